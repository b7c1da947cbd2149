"""Reads one input as a user's machine would, and watches: time, memory, and every place that is touched.

A reader may succeed, or raise an error that the package raises on purpose and that says something. Anything else is a
finding: another exception, a hang, memory without measure, a write outside the folder of the test, a program started.
"""

import os
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from metantk_nas.errors import MetaNTKError
from tests.fuzz.readers import Reader

CPU_SECONDS = 10.0
"""Processor time for one input; the slowest honest one takes a tenth of a second."""

MEMORY_BYTES = 1 << 30
"""By how much the memory of this process may grow with one input."""

MESSAGE_CHARACTERS = 2_000

_PATHS = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
    "sqlite3.connect": 1,
}
"""Audit events that change a place, with the number of paths among their arguments."""

_NEVER = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "socket.connect"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class FoundError(BaseException):
    """What no input may bring about; no ``except Exception`` of a reader can swallow it."""


class _Watch:
    """The folder that may be written while a reader is at work; None between inputs."""

    folder: str | None = None
    seen: str = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _NEVER:
            self._stop(f"{event}{arguments!r}")
        elif event == "open" and len(arguments) == 3 and (arguments[2] or 0) & _WRITES:
            self._check(event, arguments[0])
        elif event in _PATHS:
            for place in arguments[: _PATHS[event]]:
                self._check(event, place)

    def _check(self, event: str, place: object) -> None:
        if isinstance(place, int) or place == ":memory:":
            return
        path = os.path.realpath(os.fsdecode(place))  # type: ignore[arg-type]  # an event names bytes, text or paths
        if path != os.devnull and os.path.commonpath([path, str(self.folder)]) != self.folder:
            self._stop(f"{event} of {path}")

    def _stop(self, what: str) -> None:
        self.seen = what
        raise FoundError(f"outside its folder: {what}")


_watch = _Watch()
sys.addaudithook(_watch)


def attempt(reader: Reader, content: bytes, folder: Path, *, cpu_seconds: float = CPU_SECONDS) -> bool:
    """Let ``reader`` read ``content`` in ``folder``, which is emptied afterwards.

    Returns:
        Whether it was read; False if it was refused with an error that says something.

    Raises:
        FoundError: it hung, took memory without measure, touched another place, or said nothing or far too much.
        whatever the reader raised that is no error of the package.
    """
    reader.seeds()  # other readers' files may be taken from them, and they are made elsewhere
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _watch.seen = ""
    try:
        with _limited(cpu_seconds), _watched(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(content, folder)
        done = True
    except MetaNTKError as error:
        done = False
        if not 0 < len(str(error)) <= MESSAGE_CHARACTERS:
            raise FoundError(f"its message has {len(str(error))} characters") from error
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if _watch.seen:
        raise FoundError(f"outside its folder, and passed over: {_watch.seen}")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MEMORY_BYTES:
        raise FoundError(f"it took {grown / 2**20:.0f} MiB of memory")
    return done


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    unwritten, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # modules loaded at first use leave nothing
    _watch.folder = os.path.realpath(folder)
    try:
        yield
    finally:
        _watch.folder = None
        sys.dont_write_bytecode = unwritten


@contextmanager
def _limited(cpu_seconds: float) -> Iterator[None]:
    """Stop what takes too long, by the time of the processor: a busy machine hangs nobody."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise FoundError(f"it was not done after {cpu_seconds:g} seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
