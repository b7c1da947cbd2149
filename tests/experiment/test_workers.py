"""Worker processes: the same ranking, whatever happens to them, and none of them left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

import metantk_nas
from metantk_nas.errors import RunError, SpaceError
from metantk_nas.experiment.tasks import Item, Task
from metantk_nas.experiment.workers import InlineCrew, SpawnedCrew, _interrupt_held_back
from metantk_nas.spaces.load import load_space
from tests.contracts.crew import CrewContract, MortalCrewContract
from tests.small_search import SMALL, command


class TestInlineCrew(CrewContract):
    n_hands = 1

    @staticmethod
    def make(recipe, note):
        return InlineCrew(lambda job: recipe()(job))  # noqa: PLW0108 - an error comes with a job


class TestSpawnedCrew(MortalCrewContract):
    @staticmethod
    def make(recipe, note):
        return SpawnedCrew([recipe, recipe], note)


TASK = Task("kernel", 0, (Item("a key", "a text", 1), Item("another", "another text", 1)))


def ignores_ctrl_c(pid):
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True  # only Linux tells
    ignored = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> (signal.SIGINT - 1) & 1)


def no_child_lives():
    return not multiprocessing.active_children()


def kill_the_first_worker():
    """Kill it at once: it is started with its first task, so it dies on that."""
    while not (children := multiprocessing.active_children()):
        time.sleep(0.001)
    os.kill(children[0].pid, signal.SIGKILL)


def test_two_workers_one_of_them_killed_make_the_same_ranking(tmp_path):
    settings = {**SMALL, "chunk": 2}
    alone = metantk_nas.search(out=tmp_path / "alone", device="cpu", **settings).frame
    notes, deaf = [], []

    def look(label, done, total):
        deaf.extend(ignores_ctrl_c(child.pid) for child in multiprocessing.active_children())

    killer = Thread(target=kill_the_first_worker)
    killer.start()
    both = metantk_nas.search(out=tmp_path / "both", devices="cpu,cpu", progress=look, note=notes.append, **settings)
    killer.join()
    assert deaf
    assert all(deaf)
    assert len(notes) == 1
    assert "A worker died (exit code -9)" in notes[0]
    assert both.frame.drop(columns="seconds").to_csv() == alone.drop(columns="seconds").to_csv()
    assert both.manifest["spec"]["devices"] == "cpu,cpu"
    assert no_child_lives()


def test_a_task_that_kills_every_worker_ends_the_run_with_advice():
    notes = []
    crew = SpawnedCrew([partial(os._exit, 7)], notes.append)
    crew.begin(TASK)
    with pytest.raises(RunError, match=r"died 3 times in a row \(exit code 7\).*2 architectures.*a text.*--memory"):
        crew.finish()
    assert len(notes) == 2
    crew.close()
    assert no_child_lives()


def test_an_error_in_a_worker_is_the_same_error_here():
    crew = SpawnedCrew([partial(load_space, "dart"), partial(int, "no number")], lambda note: None)
    crew.begin(TASK)
    crew.begin(TASK)
    assert not crew.is_free
    raised = []
    while len(raised) < 2:
        with pytest.raises((SpaceError, RuntimeError)) as caught:
            crew.finish()
        raised.append(f"{type(caught.value).__name__}: {caught.value}")
    crew.close()
    known, unknown = sorted(raised, reverse=True)
    assert known.startswith("SpaceError")
    assert "Did you mean 'darts'" in known
    assert unknown.startswith("RuntimeError: ValueError in a worker")
    assert no_child_lives()


@pytest.fixture
def _interrupts_are_heard():
    """Background jobs of a shell ignore Ctrl-C, and so would all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_are_heard")
def test_an_interrupt_waits_until_a_process_has_all_it_needs_to_start():
    """Even where another thread hears it, as that of the progress bars may."""
    end, reached = Event(), []
    Thread(target=end.wait, daemon=True).start()

    def start():
        with _interrupt_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        start()
    end.set()
    assert reached


@pytest.mark.usefixtures("_interrupts_are_heard")
def test_ctrl_c_ends_the_workers_with_the_search(tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(run, chunk=1, budget=3000, devices="cpu,cpu"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = run / "scores.sqlite-wal"
    for _ in range(600):
        if log.exists() and log.stat().st_size > 40_000:
            break
        assert process.poll() is None, "the search ended before it could be interrupted"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in told
    assert "Traceback" not in told
    assert "leaked" not in told
    assert group_ends(process.pid)


def group_ends(group: int) -> bool:
    """Whether no process of a group is left, within a minute: a worker may have PyTorch still to import."""
    for _ in range(1200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def sleeper():
    return lambda _: time.sleep(300)


def begin_to_sleep():
    crew = SpawnedCrew([sleeper, sleeper], lambda note: None)
    crew.begin(TASK)
    crew.begin(TASK)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    crew.finish()


def test_workers_end_in_the_middle_of_a_job_with_whoever_started_them():
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import begin_to_sleep; begin_to_sleep()"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process.stdout as told:
        assert told.readline() == "begun\n"
    time.sleep(5)  # they import PyTorch, and fall asleep
    process.kill()
    process.wait()
    assert group_ends(process.pid)
