"""A crew on the machines of a Ray cluster (Moritz et al., OSDI 2018, arXiv 1712.05889); the extra ``ray`` installs Ray.

Every worker is a Ray actor that holds one core and a share of a GPU. Jobs are streamed to the workers that there are:
one that the cluster has no room for yet joins when it has. Nothing but recipe and jobs travels to them, the recipe once
to each machine through Ray's object store, and nothing but answers travels back: no file system need be shared. The
machines need this package, its libraries and Ray in the versions that are here.
"""

import os
import re
import socket
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic

from metantk_nas.errors import UsageError
from metantk_nas.experiment.workers import AbstractCrew, AnswerT, JobT, Note, Recipe, answer_or_error, mourn
from metantk_nas.extra import library

HERE = "local"
"""Address of a cluster that is started on this machine, and ends with the crew."""

PATIENCE = 60.0
"""Seconds without a worker after which it is said, once, what the crew waits for."""

ANSWERS_WITHIN = 5.0
"""Seconds in which the head of a cluster must take a connection; Ray itself would try for many minutes."""

_ADVICE = "Every machine of the cluster needs metantk-nas, its libraries and Ray in the versions that are here."


class RayCrew(AbstractCrew[JobT, AnswerT]):
    """Works on a Ray cluster. Where this process is connected to one already, it is that one, and stays connected.

    Args:
        recipe: what every worker builds its tools with; it must need no file of this machine.
        note: told of workers that died, and where none begins.
        address: of the cluster, as Ray has it: ``"auto"`` is the one that this machine belongs to, `HERE` starts one.
        n_workers: how many; as many as the cluster has room for where None.
        gpus_per_worker: share of a GPU that each of them holds, in [0, 1].

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or this machine has no room for a worker.
    """

    def __init__(
        self,
        recipe: Recipe[JobT, AnswerT],
        note: Note,
        *,
        address: str = HERE,
        n_workers: int | None = None,
        gpus_per_worker: float = 0.0,
    ) -> None:
        self._ray: Any = library("ray", extra="ray")
        self._note, self._is_patient = note, True
        self._needs = f"a worker needs 1 core and {gpus_per_worker:g} of a GPU"
        self._waiting: deque[_Begun[JobT]] = deque()
        self._places: list[_Place[JobT]] = []
        self._is_host = not self._ray.is_initialized()
        try:
            if self._is_host:
                _connect(self._ray, address)
            room = _room(self._ray, gpus_per_worker)
            if not room and self._is_host and address == HERE:
                raise UsageError(f"{self._needs}, and this machine has {self._has()}; try another --gpus-per-worker.")
            self.n_hands = n_workers or max(room, 1)
            hand = self._ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=0)(_Hand)
            arguments = [self._ray.put(recipe)]
            self._places += [_Place(hand, arguments) for _ in range(self.n_hands)]
        except BaseException:
            self.close()
            raise

    @property
    def is_free(self) -> bool:
        """Whether it can begin another job."""
        return len(self._waiting) + sum(place.begun is not None for place in self._places) < self.n_hands

    def begin(self, job: JobT) -> None:
        """Send a job to a worker that has none, or keep it for the first that there is."""
        self._waiting.append(_Begun(job))
        self._hand_out()

    def finish(self) -> list[tuple[JobT, AnswerT]]:
        """Wait for an answer; errors of a worker are raised here.

        Raises:
            RunError: workers died on the same job, again and again.
        """
        done: list[tuple[JobT, AnswerT]] = []
        while not done:
            places = {place.awaited: place for place in self._places if place.awaited is not None}
            come, _ = self._ray.wait(list(places), timeout=PATIENCE)
            for awaited in come:
                done += self._receive(places[awaited])
            self._hand_out()
            if not come:
                self._tell_what_is_waited_for()
        return done

    def close(self) -> None:
        """End the workers at once, and the cluster if it was started here; nothing but jobs in hand are lost."""
        for place in self._places:
            self._ray.kill(place.actor)
        self._places = []
        if self._is_host:
            self._ray.shutdown()

    def _hand_out(self) -> None:
        """Give jobs that wait to workers that do."""
        for place in self._places:
            if self._waiting and place.awaited is None:
                place.give(self._waiting.popleft())

    def _receive(self, place: "_Place[JobT]") -> list[tuple[JobT, AnswerT]]:
        """The answer that has come; none if the worker has just begun, or died."""
        try:
            answer = self._ray.get(place.awaited)
        except self._ray.exceptions.RayError as error:
            self._replace(place, error)
            return []
        begun = place.rest()
        if isinstance(answer, BaseException):
            raise answer
        return [] if begun is None else [(begun.job, answer)]

    def _replace(self, place: "_Place[JobT]", error: Exception) -> None:
        """Tell of a death, or give up; the job waits for the first worker that is there."""
        if place.begun is None:
            place.n_deaths += 1
            n_deaths, title = place.n_deaths, "start"
        else:
            place.begun.n_deaths += 1
            n_deaths, title = place.begun.n_deaths, place.begun.job.title
            self._waiting.appendleft(place.begun)
        mourn(n_deaths, _how(error), title, _ADVICE, self._note)
        self._ray.kill(place.actor)
        place.start()

    def _tell_what_is_waited_for(self) -> None:
        if self._is_patient and not any(place.is_there for place in self._places):
            self._note(f"No worker has begun yet: {self._needs}, and the cluster has {self._has()} in all; waiting.")
            self._is_patient = False

    def _has(self) -> str:
        found = self._ray.cluster_resources()
        return f"{found.get('CPU', 0):g} and {found.get('GPU', 0):g}"


@dataclass
class _Begun(Generic[JobT]):
    """A job, and how many workers have died on it."""

    job: JobT
    n_deaths: int = 0


class _Place(Generic[JobT]):
    """Room for one worker, which is replaced when it dies.

    What is awaited of it is that it is there, then one answer after the other.
    """

    def __init__(self, hand: Any, arguments: list[Any]) -> None:
        self._hand, self._arguments = hand, arguments
        self.n_deaths = 0
        self.start()

    def start(self) -> None:
        """Ask for a worker."""
        self.actor = self._hand.remote(self._arguments)
        self.begun: _Begun[JobT] | None = None
        self.awaited: Any = self.actor.__ray_ready__.remote()
        self.is_there = False

    def give(self, begun: _Begun[JobT]) -> None:
        """Send a job to the worker."""
        self.begun, self.awaited = begun, self.actor.answer.remote(begun.job)

    def rest(self) -> _Begun[JobT] | None:
        """Note that the worker is there and has nothing to do; return what it has done."""
        done, self.begun, self.awaited = self.begun, None, None
        self.is_there, self.n_deaths = True, 0
        return done


class _Hand:
    """A worker, on its machine.

    Args:
        arguments: the recipe, as a reference, so that what goes wrong with it is an answer.
    """

    def __init__(self, arguments: list[Any]) -> None:
        self._arguments = arguments
        self._work = cache(self._follow_recipe)

    def answer(self, job: Any) -> Any:
        """Do a job; an error is an answer."""
        return answer_or_error(self._work, job)

    def _follow_recipe(self) -> Any:
        recipe = library("ray", extra="ray").get(self._arguments[0])
        return recipe()


def _connect(ray: Any, address: str) -> None:
    """Join a cluster, or start one; Ray keeps to errors."""
    if address == HERE:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a search reports nothing to anybody
    else:
        _check_answers(address)
    try:
        own = {"include_dashboard": False} if address == HERE else {}
        ray.init(address=address, logging_level="error", log_to_driver=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error


def _check_answers(address: str) -> None:
    """Refuse ``host:port`` where nobody listens."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), ANSWERS_WITHIN).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"--address {address}: no Ray cluster can be joined there ({str(error).partition('. ')[0]}); start one with "
        "ray start --head, give its host:port, or leave --address out to start one on this machine."
    )


def _room(ray: Any, gpus_per_worker: float) -> int:
    """How many workers fit into the cluster, machine by machine; a worker's share is of one GPU."""
    total = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        room = int(has.get("CPU", 0))
        if gpus_per_worker:
            room = min(room, int(has.get("GPU", 0)) * int(1 / gpus_per_worker + 1e-9))
        total += room
    return total


def _how(error: Exception) -> str:
    """What Ray knows of a worker's death, in a few words: the machine, and the reason."""
    text = str(error)
    machine = re.search(r"\bip[:=]\s*([\w.:]+)", text)
    reason = text.strip().splitlines()[-1].rpartition(" because ")[2].partition(". ")[0].rstrip(".")
    return f"on {machine[1]}: {reason}" if machine else reason
