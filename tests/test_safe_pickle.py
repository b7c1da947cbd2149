import codecs
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metantk_nas.safe_pickle import BROKEN, safe_load, safe_load_arrays

MOST = 1 << 28
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


class Evil:
    """A pickle that would call something when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def arrays_of(content: bytes) -> Any:
    return safe_load_arrays(io.BytesIO(content))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [PIXELS, PIXELS.T, PIXELS[:, ::2], PIXELS.astype(">i4"), np.zeros((0, 3)), np.array(3.5), np.array(["n01", "é"])],
)
def test_arrays_come_back_as_they_were(value: np.ndarray, protocol: int) -> None:
    found = arrays_of(pickle.dumps({"a": [value, value]}, protocol))["a"]
    for each in found:
        np.testing.assert_array_equal(each, value)
        assert each.dtype == value.dtype.newbyteorder("=")
    assert found[0] is found[1], "a pickle that names an object twice holds it once"


def test_what_python_2_wrote_is_read() -> None:
    """By the instructions of its protocol 2, byte for byte: strings are bytes, NumPy is of before 2.0."""
    content = (
        b"\x80\x02}q\x00U\x0aimage_dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"U\x01bq\x04\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1q\x07K\x00K\x01\x87Rq\x08(K\x03U\x01|q\x09"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x02\xfd\xfe\xfftbs."
    )
    (found,) = arrays_of(content).items()
    assert found[0] == b"image_data"
    assert found[1].tolist() == [[0, 1, 2], [253, 254, 255]]


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Evil(os.system, "touch {}"), r"(posix|nt)\.system"),
        (Evil(eval, "open({!r}, 'w')"), r"(__builtin__|builtins)\.eval"),
        (Evil(getattr, "text", "upper"), "getattr"),
        (Evil(np.load, "file.npy"), r"numpy.*\.load"),
        (Evil(codecs.encode, "text", "rot13"), "bytes encoded as 'rot13'"),
        (np.array([Evil(os.system, "touch {}")], dtype=object), "type 'O8'"),
        (np.array([1], dtype=[("f", "u1")]), "type 'V1'"),
        (np.datetime64("2020-01-01"), "type 'M8'"),
        (Path("there"), "pathlib"),
    ],
)
def test_everything_else_is_refused_and_nothing_is_run(value: Any, wanted: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "was run"
    for evil in [value] if isinstance(value, Evil) else []:
        evil.call = (evil.call[0], tuple(str(each).format(str(marker)) for each in evil.call[1]))
    with pytest.raises(pickle.UnpicklingError, match=wanted):
        arrays_of(pickle.dumps({"image_data": value}, protocol))
    assert not marker.exists()


def test_arrays_are_refused_where_they_were_not_asked_for() -> None:
    with pytest.raises(pickle.UnpicklingError, match="_frombuffer, which is no number, text or container"):
        safe_load(io.BytesIO(pickle.dumps(PIXELS, 5)), MOST)


def test_weights_are_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="network weights"):
        arrays_of(b"Pstorage\n.")


@pytest.mark.parametrize("read", [partial(safe_load, most=MOST), safe_load_arrays])
def test_a_pickle_cannot_change_what_reads_it(read: Callable[[Any], Any]) -> None:
    """By an instruction that would set attributes of the function which answers for ``set``."""
    with pytest.raises(pickle.UnpicklingError, match="wants to change what reads it"):
        read(io.BytesIO(b"cbuiltins\nset\n(}X\x08\x00\x00\x00__name__X\x04\x00\x00\x00evilstb."))


def array_state(shape: tuple[Any, ...], content: Any, code: str = "u1") -> bytes:
    """A pickled array that says it has a certain shape and content."""

    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            make, empty, _ = PIXELS.__reduce__()
            return make, empty, (1, shape, np.dtype(code), False, content)

    return pickle.dumps(Forged(), 4)


@pytest.mark.parametrize(
    ("shape", "content"),
    [((5,), b"1234"), ((3,), b"1234"), ((-2, -2), b"1234"), ((2**62, 4), b""), ((2.0, 2), b"1234"), ((1,), [1])],
)
def test_an_array_whose_content_does_not_fit_is_refused(shape: tuple[Any, ...], content: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="shape and content do not fit"):
        arrays_of(array_state(shape, content))
    np.testing.assert_array_equal(arrays_of(array_state((2, 2), b"1234")), [[49, 50], [51, 52]])


@pytest.mark.parametrize(
    "content",
    [
        b"]replace.",  # names memo 1,634,496,626, for which C would make room (CPython issue 115952)
        b"]r\xff\xff\xff\x03.",  # memo 67,108,863: a gigabyte
        b"\x80\x05\x96" + (2**31).to_bytes(8, "little") + b"few",
        b"\x8e" + (2**31).to_bytes(8, "little") + b"few",
        b"\x95" + (2**62).to_bytes(8, "little") + b"few",
    ],
)
@pytest.mark.parametrize("read", [arrays_of, lambda content: safe_load(io.BytesIO(content), MOST // 4)])
def test_a_few_bytes_do_not_fill_the_memory(read: Callable[[bytes], Any], content: bytes) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(BROKEN):
        read(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def mutated(content: bytes, places: list[tuple[float, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in places:
        changed[int(place * len(changed))] = value
    return bytes(changed)


SAMPLES = [
    pickle.dumps({"image_data": PIXELS, "class_dict": OrderedDict(n01=[0], n02=np.array([1]))}, protocol)
    for protocol in (0, 2, 4, 5)
]


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_damaged_pickles_raise_nothing_but_what_is_announced(
    content: bytes, places: list[tuple[float, int]], cut: int
) -> None:
    for damaged in (
        mutated(content, places),
        mutated(content, places)[: -1 - cut],
        bytes(value for _, value in places),
    ):
        with suppress(BROKEN):
            arrays_of(damaged)
