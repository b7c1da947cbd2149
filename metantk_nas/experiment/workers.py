"""Who carries out tasks: this process, or one spawned process per device.

A worker rebuilds its own workbench, answers one task at a time and writes nothing but answers into its pipe, so it may
die at any moment: it is started again, and its task is done again.
"""

import multiprocessing
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

import torch

from metantk_nas.errors import MetaNTKError, RunError
from metantk_nas.experiment.tasks import Task, compute
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.types import Score

Note = Callable[[str], None]
"""Told in one sentence what happened that a user may want to know."""

Recipe = Callable[[], Workbench]
"""Builds a workbench in another process; can be pickled."""

Answer = list[Score] | None
"""Scores of a task; None where memory ran out."""

MAX_DEATHS = 3
"""Workers that may die on one task, one after the other."""


class AbstractCrew(ABC):
    """Carries out tasks, as many at a time as it has hands."""

    n_hands: int

    @property
    @abstractmethod
    def is_free(self) -> bool:
        """Whether it can begin another task."""

    @abstractmethod
    def begin(self, task: Task) -> None:
        """Begin a task; only while it is free."""

    @abstractmethod
    def finish(self) -> list[tuple[Task, Answer]]:
        """Wait until one or more of the begun tasks are done."""

    @abstractmethod
    def close(self) -> None:
        """Stop, whatever is going on."""


class InlineCrew(AbstractCrew):
    """Works in this process.

    Args:
        bench: what to work with.
    """

    n_hands = 1

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._begun: list[Task] = []

    @property
    def is_free(self) -> bool:
        """Whether it can begin another task."""
        return not self._begun

    def begin(self, task: Task) -> None:
        """Take a task; it is carried out in `finish`."""
        self._begun.append(task)

    def finish(self) -> list[tuple[Task, Answer]]:
        """Carry out the task."""
        task = self._begun.pop()
        return [(task, compute(self._bench, task))]

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


class SpawnedCrew(AbstractCrew):
    """Works in one spawned process per device; they share this process's threads.

    Args:
        recipes: builds the workbench of each worker.
        note: told of workers that died.
    """

    def __init__(self, recipes: Sequence[Recipe], note: Note) -> None:
        self.n_hands = len(recipes)
        n_threads = max(1, torch.get_num_threads() // self.n_hands)
        self._workers = [_Worker(recipe, n_threads, note) for recipe in recipes]

    @property
    def is_free(self) -> bool:
        """Whether it can begin another task."""
        return any(worker.task is None for worker in self._workers)

    def begin(self, task: Task) -> None:
        """Hand a task to a worker that has none."""
        next(worker for worker in self._workers if worker.task is None).begin(task)

    def finish(self) -> list[tuple[Task, Answer]]:
        """Wait for answers; errors of a worker are raised here.

        Raises:
            RunError: workers died on the same task, again and again.
        """
        done: list[tuple[Task, Answer]] = []
        while not done:
            at_work = {worker.connection: worker for worker in self._workers if worker.task is not None}
            for connection in wait(list(at_work)):
                done += at_work[connection].receive()  # type: ignore[index]  # what was asked comes back
        return done

    def close(self) -> None:
        """End the workers at once; nothing but the task in hand is lost."""
        for worker in self._workers:
            worker.stop()


class _Worker:
    """One place in the crew: a process, started with its first task and again when it died."""

    def __init__(self, recipe: Recipe, n_threads: int, note: Note) -> None:
        self._recipe, self._n_threads, self._note = recipe, n_threads, note
        self._process: multiprocessing.process.BaseProcess | None = None
        self._n_deaths = 0
        self.task: Task | None = None
        self.connection: Connection

    def begin(self, task: Task) -> None:
        """Send a task."""
        self.task = task
        if self._process is None:
            self._start()
        with suppress(OSError):  # it died idle; `receive` finds its end of the pipe closed, and starts another
            self.connection.send(task)

    def receive(self) -> Iterator[tuple[Task, Answer]]:
        """Yield the answer, or begin again if there is none because the process died."""
        task = self.task
        assert task is not None  # noqa: S101 - only workers that have a task are waited for
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self._mourn(task)
            self.begin(task)
            return
        self.task, self._n_deaths = None, 0
        if isinstance(answer, BaseException):
            raise answer
        yield task, answer

    def stop(self) -> int | None:
        """End the process and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        self.connection.close()
        return code

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._recipe, self._n_threads, theirs), daemon=True)
        resource_tracker.ensure_running()  # it would let interrupts through again once it has started
        with _interrupt_held_back():
            process.start()
        theirs.close()
        self._process = process

    def _mourn(self, task: Task) -> None:
        """Tell of a death, or give up."""
        code = self.stop()
        self._n_deaths += 1
        what = f"{len(task.items)} architecture{'s' * (len(task.items) > 1)}, the first of them {task.items[0].text}"
        if self._n_deaths == MAX_DEATHS:
            raise RunError(
                f"a worker died {MAX_DEATHS} times in a row (exit code {code}) on the same {what}. Memory may have run "
                "out: try a smaller --memory, or --chunk 1. A script that calls metantk_nas with devices must do so "
                "under if __name__ == '__main__'. What was scored is kept, and the same command goes on from there."
            )
        self._note(f"A worker died (exit code {code}) at {what}; another one does them again.")


def _serve(recipe: Recipe, n_threads: int, connection: Connection) -> None:
    """Answer tasks until the other end closes or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(n_threads)
    bench = cache(recipe)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_answer(bench, task))


def _answer(bench: Recipe, task: Task) -> Answer | Exception:
    try:
        return compute(bench(), task)
    except MetaNTKError as error:
        return error
    except Exception as error:  # whatever it is, it is raised again where somebody listens
        return RuntimeError(f"{type(error).__name__} in a worker: {error}\n{traceback.format_exc()}")


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Start processes that never see Ctrl-C, not even while they import; here it arrives a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
