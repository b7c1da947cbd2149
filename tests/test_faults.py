"""Full disks, places that cannot be written, clocks that jump and Ctrl-C at any moment: no finished score is lost."""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import metantk_nas
from metantk_nas.cli.app import INTERRUPTED, app
from metantk_nas.cli.interrupts import interrupts_kept
from metantk_nas.errors import RunError, UsageError
from metantk_nas.results import Ranking
from metantk_nas.store import ScoreStore
from tests.small_search import SMALL, command
from tests.test_experiment import rows, same, table, wait_for_scores

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search that nothing happened to."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    metantk_nas.search(out=run, **SMALL)
    return run


@contextmanager
def interrupting(*signals: signal.Signals) -> Iterator[None]:
    """Signals that raise KeyboardInterrupt; where tests run in the background, Ctrl-C is ignored."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def search_words(out: Path) -> list[str]:
    return command(out)[3:]


def scored(run: Path) -> set[tuple]:
    """Every score with the time that it took, which tells one that was computed again."""
    return set(rows(run / "scores.sqlite"))


@pytest.mark.parametrize("n_commits", [1, 7])
def test_a_disk_that_is_full_in_the_middle_of_a_search_loses_nothing(undisturbed, tmp_path, monkeypatch, n_commits):
    put, left = ScoreStore.put, iter(range(n_commits))

    def put_until_full(store, scores):
        if next(left, None) is None:  # SQLite then fails as it does on a full disk
            n_pages = store._database.execute("PRAGMA page_count").fetchone()[0]
            store._database.execute(f"PRAGMA max_page_count = {n_pages}")
            scores = [score.__class__(**{**vars(score), "reason": "x" * 100_000}) for score in scores]
        put(store, scores)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ScoreStore, "put", put_until_full)
        done = CliRunner().invoke(app, [*search_words(run), "--chunk", "1"])
    assert done.exit_code == UsageError.exit_code
    assert "no space is left; free some space: what was committed before is kept" in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    before = scored(run)
    assert len(before) == n_commits
    metantk_nas.search(out=run, **{**SMALL, "chunk": 1})
    same(table(undisturbed), table(run))
    assert before < scored(run)


@needs_full
@pytest.mark.parametrize("name", ["ranking.csv", "manifest.json", "report.html"])
def test_a_disk_that_is_full_when_results_are_written_loses_nothing(undisturbed, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    before, old = scored(run), (run / name).read_bytes()
    (run / f"{name}.part").symlink_to(FULL)
    done = CliRunner().invoke(app, search_words(run))
    assert done.exit_code == UsageError.exit_code
    assert "No space left on device" in done.stderr
    assert "free some space and run the same command again" in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert (run / name).read_bytes() == old
    (run / name).unlink()
    assert CliRunner().invoke(app, search_words(run)).exit_code == 0
    same(table(undisturbed), table(run))
    assert scored(run) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no folder that nobody can write")
def test_a_place_that_nobody_can_write_is_refused_in_one_line():
    done = CliRunner().invoke(app, search_words(Path("/proc/metantk-run")))
    assert done.exit_code == UsageError.exit_code
    assert "check the path and its permissions" in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_a_clock_that_jumps_back_and_forth_changes_nothing(undisturbed, tmp_path, monkeypatch):
    jumps, clock = random.Random(0), time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() + jumps.uniform(-1e6, 1e6))
        patch.setattr(time, "time_ns", lambda: int(1e9 * (clock() + jumps.uniform(-1e6, 1e6))))
        metantk_nas.search(out=tmp_path / "run", **{**SMALL, "budget": SMALL["budget"] // 2})
        os.utime(tmp_path / "run" / "scores.sqlite", (0, 0))
        metantk_nas.search(out=tmp_path / "run", **SMALL)
    same(table(undisturbed), table(tmp_path / "run"))
    assert all(0 < seconds < 100 for *_, seconds in scored(tmp_path / "run"))
    assert (Ranking.load(tmp_path / "run" / "ranking.csv").frame["seconds"] >= 0).all()


def test_ctrl_c_at_any_moment_of_a_search_loses_nothing(undisturbed, tmp_path):
    """Interrupted again and again, by the time of the processor: wherever it is, it goes on from there."""
    run, moments = tmp_path / "run", random.Random(0)
    start = time.process_time()
    metantk_nas.search(out=tmp_path / "timed", **{**SMALL, "chunk": 1})
    whole, n_interrupted, before = time.process_time() - start, 0, set()
    with interrupting(signal.SIGPROF, signal.SIGINT):
        for _ in range(10):
            try:
                with interrupts_kept():
                    signal.setitimer(signal.ITIMER_PROF, moments.uniform(0.005, 0.4) * whole)
                    metantk_nas.search(out=run, **{**SMALL, "chunk": 1})
            except KeyboardInterrupt:
                n_interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            gc.collect()  # a process that ends lets go of the store, too
            if (run / "scores.sqlite").exists():
                assert before <= scored(run)
                before = scored(run)
    assert n_interrupted >= 4
    metantk_nas.search(out=run, **{**SMALL, "chunk": 1})
    same(table(undisturbed), table(run))
    assert before <= scored(run)


def test_ctrl_c_in_a_callback_where_python_drops_exceptions_arrives_a_moment_later():
    class Whatever:
        pass

    def go_on():
        something = Whatever()
        watched = weakref.ref(something, lambda _: signal.raise_signal(signal.SIGINT))
        del something
        assert watched() is None  # the exception was dropped
        time.sleep(20)
        pytest.fail("nothing woke the sleeper")

    with interrupting(signal.SIGINT), pytest.raises(KeyboardInterrupt), interrupts_kept():
        go_on()


def test_other_exceptions_in_callbacks_are_told_as_before(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    with interrupts_kept():
        Broken()
    assert told == [ValueError]


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.1, 0.3])
def test_ctrl_c_in_a_terminal_ends_in_one_line_and_the_same_command_goes_on(undisturbed, tmp_path, wait):
    run = tmp_path / "run"
    with interrupting(signal.SIGINT):
        process = subprocess.Popen(
            command(run, chunk=1),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    wait_for_scores(run / "scores.sqlite", process)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, said
    assert "Interrupted; what was done is kept, and the same command goes on from there." in said
    assert "Traceback" not in said
    before = scored(run)
    assert before
    metantk_nas.search(out=run, **{**SMALL, "chunk": 1})
    same(table(undisturbed), table(run))
    assert before <= scored(run)


def test_a_search_on_a_damaged_store_goes_on_from_what_is_sound(undisturbed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    whole, before = (run / "scores.sqlite").read_bytes(), scored(run)
    (run / "scores.sqlite").write_bytes(whole[: 4_096 * 3] + bytes(4_096) + whole[4_096 * 4 :])
    done = CliRunner().invoke(app, search_words(run))
    assert done.exit_code == 0
    assert "was damaged" in done.stderr
    assert "the rest is scored again" in " ".join(done.stderr.split())
    same(table(undisturbed), table(run))
    assert (run / "scores.sqlite.damaged").read_bytes() != whole
    kept = before & scored(run)
    assert len(scored(run)) == len(before)
    assert kept


def test_a_store_of_rubbish_is_refused_in_one_line(tmp_path):
    (tmp_path / "scores.sqlite").write_bytes(random.Random(0).randbytes(20_000))
    with pytest.raises(RunError, match="is not an intact score store; choose another --out"):
        metantk_nas.search(out=tmp_path, **SMALL)
