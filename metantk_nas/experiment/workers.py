"""Who carries out jobs: this process, or one spawned process per device; `metantk_nas.experiment.cluster` has more.

A worker builds its own tools, answers one job at a time and writes nothing but answers into its pipe, so it may die at
any moment: it is started again, and its job is done again.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from metantk_nas.errors import MetaNTKError, RunError

Note = Callable[[str], None]
"""Told in one sentence what happened that a user may want to know."""


class Job(Protocol):
    """What a worker is asked to do; it can be pickled."""

    @property
    def title(self) -> str:
        """What it is about, for messages."""


JobT = TypeVar("JobT", bound=Job)
AnswerT = TypeVar("AnswerT")

Work = Callable[[JobT], AnswerT]
"""Carries out one job."""

Recipe = Callable[[], Work[JobT, AnswerT]]
"""Builds, in another process, what carries out jobs there; can be pickled."""

MAX_DEATHS = 3
"""Workers that may die on one job, one after the other."""


class AbstractCrew(ABC, Generic[JobT, AnswerT]):
    """Carries out jobs, as many at a time as it has hands."""

    n_hands: int

    @property
    @abstractmethod
    def is_free(self) -> bool:
        """Whether it can begin another job."""

    @abstractmethod
    def begin(self, job: JobT) -> None:
        """Begin a job; only while it is free."""

    @abstractmethod
    def finish(self) -> list[tuple[JobT, AnswerT]]:
        """Wait until one or more of the begun jobs are done."""

    @abstractmethod
    def close(self) -> None:
        """Stop, whatever is going on."""


class InlineCrew(AbstractCrew[JobT, AnswerT]):
    """Works in this process.

    Args:
        work: carries out a job.
    """

    n_hands = 1

    def __init__(self, work: Work[JobT, AnswerT]) -> None:
        self._work = work
        self._begun: list[JobT] = []

    @property
    def is_free(self) -> bool:
        """Whether it can begin another job."""
        return not self._begun

    def begin(self, job: JobT) -> None:
        """Take a job; it is carried out in `finish`."""
        self._begun.append(job)

    def finish(self) -> list[tuple[JobT, AnswerT]]:
        """Carry out the job."""
        job = self._begun.pop()
        return [(job, self._work(job))]

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


class SpawnedCrew(AbstractCrew[JobT, AnswerT]):
    """Works in one spawned process per device; they share this process's threads.

    Args:
        recipes: one for each worker.
        note: told of workers that died.
    """

    def __init__(self, recipes: Sequence[Recipe[JobT, AnswerT]], note: Note) -> None:
        import torch  # noqa: PLC0415 - jobs that need none are not to wait for it

        self.n_hands = len(recipes)
        n_threads = max(1, torch.get_num_threads() // self.n_hands)
        self._workers = [_Worker(recipe, n_threads, note) for recipe in recipes]

    @property
    def is_free(self) -> bool:
        """Whether it can begin another job."""
        return any(worker.job is None for worker in self._workers)

    def begin(self, job: JobT) -> None:
        """Hand a job to a worker that has none."""
        next(worker for worker in self._workers if worker.job is None).begin(job)

    def finish(self) -> list[tuple[JobT, AnswerT]]:
        """Wait for answers; errors of a worker are raised here.

        Raises:
            RunError: workers died on the same job, again and again.
        """
        done: list[tuple[JobT, AnswerT]] = []
        while not done:
            at_work = {worker.connection: worker for worker in self._workers if worker.job is not None}
            for connection in wait(list(at_work)):
                done += at_work[connection].receive()  # type: ignore[index]  # what was asked comes back
        return done

    def close(self) -> None:
        """End the workers at once; nothing but the job in hand is lost."""
        for worker in self._workers:
            worker.stop()


class _Worker(Generic[JobT, AnswerT]):
    """One place in the crew: a process, started with its first job and again when it died."""

    def __init__(self, recipe: Recipe[JobT, AnswerT], n_threads: int, note: Note) -> None:
        self._recipe, self._n_threads, self._note = recipe, n_threads, note
        self._process: multiprocessing.process.BaseProcess | None = None
        self._n_deaths = 0
        self.job: JobT | None = None
        self.connection: Connection

    def begin(self, job: JobT) -> None:
        """Send a job."""
        self.job = job
        if self._process is None:
            self._start()
        with suppress(OSError):  # it died idle; `receive` finds its end of the pipe closed, and starts another
            self.connection.send(job)

    def receive(self) -> Iterator[tuple[JobT, AnswerT]]:
        """Yield the answer, or begin again if there is none because the process died."""
        job = self.job
        assert job is not None  # noqa: S101 - only workers that have a job are waited for
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self._mourn(job)
            self.begin(job)
            return
        self.job, self._n_deaths = None, 0
        if isinstance(answer, BaseException):
            raise answer
        yield job, answer

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
            self._process = process  # whoever is interrupted now can stop it
        theirs.close()

    def _mourn(self, job: JobT) -> None:
        """Tell of a death, or give up."""
        code = self.stop()
        self._n_deaths += 1
        advice = "A script that calls metantk_nas with devices must do so under if __name__ == '__main__'."
        mourn(self._n_deaths, f"exit code {code}", job.title, advice, self._note)


def mourn(n_deaths: int, how: str, title: str, advice: str, note: Note) -> None:
    """Tell that a worker died, or give up.

    Args:
        n_deaths: how many died on the job, one after the other, with this one.
        how: what is known of it.
        title: what the job is about.
        advice: what to look for, beside memory.
        note: told of it.

    Raises:
        RunError: it was the last of `MAX_DEATHS`.
    """
    if n_deaths == MAX_DEATHS:
        raise RunError(
            f"a worker died {MAX_DEATHS} times in a row ({how}) on the same {title}. Memory may have run out: try a "
            f"smaller --memory, or --chunk 1. {advice} What was done is kept, and the same command goes on from there."
        )
    note(f"A worker died ({how}) at {title}; another one does it again.")


def _serve(recipe: Recipe[Any, Any], n_threads: int, connection: Connection) -> None:
    """Answer tasks until the other end closes or dies."""
    import torch  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    work = cache(recipe)
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(answer_or_error(work, job))


def _follow_parent() -> None:
    """End this process with the one that started it, in the middle of a job that nobody waits for any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - a worker has one
    parent.join()
    os._exit(1)


def answer_or_error(work: Recipe[Any, Any], job: Any) -> Any:
    """In a worker: the answer to a job, or the error that it failed with, to be raised where the job came from."""
    try:
        return work()(job)
    except MetaNTKError as error:
        return error
    except Exception as error:  # whatever it is, it is raised again where somebody listens
        return RuntimeError(f"{type(error).__name__} in a worker: {error}\n{traceback.format_exc()}")


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Start processes that never see Ctrl-C, not even while they import; here it arrives a moment later.

    They inherit the mask. In this process another thread may take the signal nevertheless, and Python would then
    interrupt the main thread between a process's start and what it is sent; so it is kept, too.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if is_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)
