"""The guard of the fuzz tests sees what it is there to see."""

import mmap
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from metantk_nas.errors import UsageError
from tests.fuzz.guard import FoundError, attempt
from tests.fuzz.readers import Reader


def trial(act: Callable[[Path], object], folder: Path, **options: float) -> bool:
    return attempt(Reader(lambda _, place: act(place) and None, lambda _: []), b"", folder, **options)


def refuse(_: Path) -> None:
    raise UsageError("x is 3; expected 4.")


def swallow(act: Callable[[], object]) -> Callable[[Path], object]:
    """A reader that would hide what it does."""

    def read(_: Path) -> None:
        with suppress(BaseException):
            act()

    return read


def test_reading_and_refusing_are_told_apart_and_leave_nothing(tmp_path: Path) -> None:
    assert trial(lambda folder: (folder / "file").write_text("inside"), tmp_path)
    assert not trial(refuse, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path(tempfile.gettempdir(), "metantk-escape").write_text("outside"),
        lambda: os.mkdir(Path(tempfile.gettempdir(), "metantk-escape")),
        lambda: os.remove(Path(tempfile.gettempdir(), "metantk-escape")),
        lambda: os.symlink("/", Path(tempfile.gettempdir(), "metantk-escape")),
        lambda: os.system("true"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: socket.create_connection(("127.0.0.1", 9)),
    ],
)
def test_what_happens_elsewhere_is_stopped_even_if_it_is_hidden(act: Callable[[], object], tmp_path: Path) -> None:
    with pytest.raises(FoundError, match="outside its folder"):
        trial(swallow(act), tmp_path)
    assert not Path(tempfile.gettempdir(), "metantk-escape").exists()


def test_a_link_that_leads_outside_is_seen_through(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()

    def read(folder: Path) -> None:
        (folder / "link").symlink_to(outside)
        (folder / "link" / "file").write_text("outside")

    with pytest.raises(FoundError, match="outside its folder"):
        trial(read, inside)


def test_other_errors_are_crashes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        trial(lambda _: 1 // 0, tmp_path)


def test_an_endless_loop_is_stopped(tmp_path: Path) -> None:
    def spin(_: Path) -> None:
        while True:
            pass

    with pytest.raises(FoundError, match=r"not done after 0\.2 seconds"):
        trial(spin, tmp_path, cpu_seconds=0.2)


def test_memory_without_measure_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.guard.MEMORY_BYTES", 1 << 20)

    def fill(_: Path) -> None:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with mmap.mmap(-1, peak + (64 << 20)) as memory:  # more than this process ever held
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1

    with pytest.raises(FoundError, match="MiB of memory"):
        trial(fill, tmp_path)


@pytest.mark.parametrize("message", ["", "x" * 10_000])
def test_an_error_that_says_nothing_or_far_too_much_is_none(message: str, tmp_path: Path) -> None:
    def read(_: Path) -> None:
        raise UsageError(message)

    with pytest.raises(FoundError, match="its message has"):
        trial(read, tmp_path)
