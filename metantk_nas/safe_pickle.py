"""Pickles that others made, read without running anything that they hold.

A pickle can run any program. Here it may build text, numbers, lists, tuples, sets, dictionaries and, where that is
asked for, NumPy arrays; it refers to nothing else: for the few names that such pickles use there are stand-ins, and all
other names are refused.
"""

import math
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

import numpy as np

BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading pickles and archives raises when the bytes are not what they should be, or want more than they may."""


def safe_load(file: IO[bytes], most: int) -> Any:
    """Unpickle text, numbers and containers, nothing else.

    This one is fast, but six bytes can ask it for gigabytes (CPython issue 115952), so that it is given a limit where
    the system has one (Linux).

    Args:
        file: what to read.
        most: bytes by which this process may grow meanwhile.

    Raises:
        pickle.UnpicklingError: the pickle refers to anything else.
        others of `BROKEN`: it is damaged.
    """
    with _limited(most):
        return _Unpickler(file).load()


@contextmanager
def _limited(most: int) -> Iterator[None]:
    """Let this process grow by so many bytes only; beyond, there is a MemoryError."""
    try:
        import resource  # noqa: PLC0415 - not on every system

        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = in_use + most
    resource.setrlimit(resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(wanted, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def safe_load_arrays(file: IO[bytes]) -> Any:
    """Unpickle text, numbers, containers and NumPy arrays of numbers and text; strings of Python 2 come as bytes.

    This one is slow where there are millions of objects, but a few bytes cannot make it fill the memory.

    Raises:
        pickle.UnpicklingError: the pickle refers to anything else.
        others of `BROKEN`: it is damaged.
    """
    return _ArrayUnpickler(file, encoding="bytes").load()


class _Kind:
    """Stands in for a NumPy data type: its code and byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {">": ">", "<": "<"}.get(_text(state[1]), "=")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type itself."""
        return np.dtype(self.order + self.code)


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array whose state is looked at before NumPy takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_version, shape, kind, fortran, content = state
        if not (
            isinstance(kind, _Kind)
            and isinstance(content, bytes | bytearray)
            and all(type(length) is int and length >= 0 for length in shape)
            and math.prod(shape) * kind.dtype.itemsize == len(content)
        ):
            raise pickle.UnpicklingError("it has an array whose shape and content do not fit")
        safe = (1, tuple(shape), kind.dtype, bool(fortran), bytes(content))
        super().__setstate__(safe)  # type: ignore[arg-type]  # NumPy's stub wants its own kind of bool, NumPy does not


class _StandIn:
    """Answers for one name. It cannot be changed from within a pickle, unlike a function, which has attributes."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, _state: object) -> None:
        raise pickle.UnpicklingError("it wants to change what reads it")


def _text(value: object) -> str:
    """Text that Python 2 may have written as bytes."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _number(code: object, *_flags: object) -> _Kind:
    if not re.fullmatch(r"[fiub][1248]", _text(code)):
        raise pickle.UnpicklingError(f"it has NumPy values of type {_text(code)!r}, which are no numbers")
    return _Kind(_text(code))


def _number_or_text(code: object, *_flags: object) -> _Kind:
    return _Kind(_text(code)) if re.fullmatch(r"[SU]\d{1,6}", _text(code)) else _number(code)


def _scalar(kind: _Kind, content: bytes) -> float | int | bool:
    value: float | int | bool = np.frombuffer(content, kind.dtype, count=1)[0].item()
    return value


def _latin1(text: str, encoding: object) -> bytes:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it has bytes encoded as {_text(encoding)!r}")
    return text.encode("latin1")


def _empty_array(*_arguments: object) -> _Array:
    return _Array((0,), np.uint8)


def _array_of_bytes(content: bytes, kind: _Kind, shape: tuple[int, ...], order: str) -> _Array:
    array = _empty_array()
    array.__setstate__((shape, kind, order == "F", content))
    return array


_ALLOWED: Mapping[tuple[str, str], _StandIn] = {
    ("collections", "OrderedDict"): _StandIn(OrderedDict),
    ("builtins", "set"): _StandIn(set),
    ("__builtin__", "set"): _StandIn(set),  # as protocol 2 writes it
    ("numpy", "dtype"): _StandIn(_number),
    ("numpy.core.multiarray", "scalar"): _StandIn(_scalar),
    ("numpy._core.multiarray", "scalar"): _StandIn(_scalar),
    ("_codecs", "encode"): _StandIn(_latin1),  # how protocol 2 writes bytes
    ("__builtin__", "bytes"): _StandIn(lambda: b""),  # how it writes none
}
"""Every name that a pickle may use, and what answers for it; nothing here can reach anything else."""

_ALLOWED_WITH_ARRAYS: Mapping[tuple[str, str], _StandIn] = {
    **_ALLOWED,
    ("numpy", "dtype"): _StandIn(_number_or_text),
    ("numpy", "ndarray"): _StandIn(_empty_array),  # only ever the first argument of the next two
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): _StandIn(_empty_array),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_array_of_bytes),  # how protocol 5 writes arrays
    ("numpy._core.numeric", "_frombuffer"): _StandIn(_array_of_bytes),
}


def _find(names: Mapping[tuple[str, str], _StandIn], module: str, name: str, allowed: str) -> _StandIn:
    if (module, name) not in names:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no {allowed}")
    return names[module, name]


def _refuse_weights() -> NoReturn:
    raise pickle.UnpicklingError("it holds network weights, not only numbers")


class _Unpickler(pickle.Unpickler):
    """Builds text, numbers and containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        return _find(_ALLOWED, module, name, "number, text or container")

    def persistent_load(self, _pid: Any) -> Any:
        _refuse_weights()


class _ArrayUnpickler(pickle._Unpickler):
    """Builds arrays too; written in Python, where the place of a memo costs no more than itself.

    The faster one makes room for two billion memos where eight bytes name the last of them (CPython issue 115952).
    """

    read: Callable[[int], bytes]
    append: Callable[[object], None]

    def find_class(self, module: str, name: str) -> Any:
        return _find(_ALLOWED_WITH_ARRAYS, module, name, "number, text, array or container")

    def persistent_load(self, _pid: Any) -> Any:
        _refuse_weights()

    def _load_bytearray8(self) -> None:
        """Take as many bytes as there are, where the original makes room for as many as are announced."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    dispatch: ClassVar[Any] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray8}
