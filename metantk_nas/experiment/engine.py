"""The engine: it scores the candidates it is given and commits every result as it comes."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Self

from metantk_nas.experiment.cluster import RayCrew
from metantk_nas.experiment.memory import CLUSTER_GPU_BYTES, FLOAT_BYTES, Limit, chunk_activations
from metantk_nas.experiment.tasks import Answer, Item, Task, compute, give_up, worker
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.experiment.workers import AbstractCrew, InlineCrew, Note, SpawnedCrew
from metantk_nas.store import Candidate, ScoreStore

AHEAD = 4
"""Chunks per worker that should wait: candidates that are scored already, or share a key, fill none."""

SMALLEST_SHARE = 0.25
"""Towards the end chunks shrink so that no worker is left waiting, to this share of the full size."""


@dataclass
class _Chunk:
    """Candidates that are finished together.

    Args:
        candidates: in the order of submission.
        keys: those that this chunk has scored; another chunk may have had the other keys.
        n_open: tasks that are not done yet.
    """

    candidates: list[Candidate] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    n_open: int = 0


class Engine:
    """Scores candidates chunk by chunk, in this process, in one worker per device or on a cluster.

    It alone writes into the store.

    Candidates come back in the order of submission, and the scores depend on chunks and devices to rounding only.
    Use it as a context manager: leaving it ends the workers.

    Args:
        bench: the run's parts.
        store: where scores are committed, and what knows which of them are there already.
        note: told when memory ran out and when a worker died.
    """

    def __init__(self, bench: Workbench, store: ScoreStore, note: Note | None = None) -> None:
        self._bench, self._store, self._note = bench, store, note or _unheard
        self._limit = chunk_limit(bench, self._note)
        self._crew = _make_crew(bench, self._note)
        self._waiting: deque[tuple[Candidate, float]] = deque()
        self._chunks: deque[_Chunk] = deque()
        self._ready: deque[Task] = deque()
        self._chunk_of: dict[Task, _Chunk] = {}
        self._claimed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crew.close()

    @property
    def hungry(self) -> bool:
        """Whether it could do with more candidates."""
        n_chunks, n_waiting = AHEAD * self._crew.n_hands, len(self._waiting)
        size = sum(size for _, size in self._waiting)
        full = n_waiting >= n_chunks * self._limit.most or size >= n_chunks * self._limit.capacity
        return n_waiting < n_chunks or not full

    @property
    def idle(self) -> bool:
        """Whether everything submitted has been collected."""
        return not self._waiting and not self._chunks

    def submit(self, batch: Sequence[Candidate]) -> None:
        """Queue candidates."""
        self._waiting.extend((candidate, self._size(candidate)) for candidate in batch)

    def collect(self) -> list[Candidate]:
        """Work until candidates are finished, and return them in the order of submission.

        Raises:
            RunError: workers died on the same task again and again, or the store cannot be written.
        """
        self._begin_tasks()
        while self._chunks[0].n_open:
            for task, answer in self._crew.finish():
                self._settle(task, answer)
            self._begin_tasks()
        chunk = self._chunks.popleft()
        self._claimed -= chunk.keys
        return chunk.candidates

    def _size(self, candidate: Candidate) -> float:
        """What a candidate adds to a chunk: its activations, or 1 where chunks are counted."""
        bench = self._bench
        return 1 if bench.spec.chunk else bench.cost(bench.space.read(candidate.representative)).activations

    def _begin_tasks(self) -> None:
        """Give work to all who have none."""
        while self._crew.is_free and (task := self._next_task()):
            self._crew.begin(task)

    def _next_task(self) -> Task | None:
        while not self._ready and self._waiting:
            self._cut_chunk()
        if not self._ready:
            return None
        task = self._ready.popleft()
        n_fitting = self._limit.n_fitting(item.size for item in task.items)
        if n_fitting == len(task.items):
            return task
        chunk = self._chunk_of.pop(task)  # it was made before memory ran out
        first, rest = replace(task, items=task.items[:n_fitting]), replace(task, items=task.items[n_fitting:])
        self._chunk_of |= {first: chunk, rest: chunk}
        chunk.n_open += 1
        self._ready.appendleft(rest)
        return first

    def _cut_chunk(self) -> None:
        """Take the next candidates that fit into memory together, and make their tasks.

        Candidates that need no work take no room.
        """
        chunk, items, total, limit = _Chunk(), list[Item](), 0.0, self._limit_now()
        lacking: dict[str, list[tuple[int, str]]] = {}
        while self._waiting:
            candidate, size = self._waiting[0]
            lacks = self._lacks(candidate.key)
            if lacks:
                if not limit.allows(total + size, len(items) + 1):
                    break
                total += size
                items.append(Item(candidate.key, candidate.representative, size))
                lacking[candidate.key] = lacks
                self._claimed.add(candidate.key)
            chunk.candidates.append(candidate)
            self._waiting.popleft()
        chunk.keys.update(lacking)
        self._chunks.append(chunk)
        for repeat, scorer in self._passes():
            mine = tuple(item for item in items if (repeat, scorer) in lacking[item.key])
            if mine:
                task = Task(scorer, repeat, mine)
                self._ready.append(task)
                self._chunk_of[task] = chunk
                chunk.n_open += 1

    def _passes(self) -> Iterator[tuple[int, str]]:
        """Yield every repeat with every scorer's name."""
        for repeat in range(self._bench.spec.repeats):
            for scorer in self._bench.scorers:
                yield repeat, scorer.name

    def _lacks(self, key: str) -> list[tuple[int, str]]:
        """What is to be done for a key: nothing, if an earlier chunk is at it."""
        if key in self._claimed:
            return []
        return [(repeat, scorer) for repeat, scorer in self._passes() if self._store.missing([key], repeat, scorer)]

    def _limit_now(self) -> Limit:
        """Limit of the next chunk: smaller where little is left to share among workers."""
        n_hands, limit = self._crew.n_hands, self._limit
        if n_hands == 1 or self._bench.spec.chunk:
            return limit
        share = sum(size for _, size in self._waiting) / n_hands
        n_share = -(-len(self._waiting) // n_hands)
        return Limit(
            min(limit.capacity, max(share, SMALLEST_SHARE * limit.capacity)),
            min(limit.most, max(n_share, math.ceil(SMALLEST_SHARE * limit.most))),
        )

    def _settle(self, task: Task, answer: Answer) -> None:
        """Commit what was found; where memory ran out, try again with less at a time, or give up on a single one."""
        if answer is None and len(task.items) > 1:
            if self._limit.halve(task.size):
                self._note(f"Memory ran out with {len(task.items)} architectures at once; going on with half as much.")
            self._ready.appendleft(task)
            return
        self._store.put(give_up(self._bench, task) if answer is None else answer)
        self._chunk_of.pop(task).n_open -= 1


def _unheard(text: str) -> None:
    """Tell nobody."""


def _make_crew(bench: Workbench, note: Note) -> AbstractCrew[Task, Answer]:
    """Who computes, as the spec says."""
    spec = bench.spec
    if spec.is_clustered:
        share = spec.gpus_per_worker
        return RayCrew(
            partial(worker, bench.parcel), note, address=spec.address, n_workers=spec.ray_workers, gpus_per_worker=share
        )
    if bench.recipes:
        return SpawnedCrew([partial(worker, recipe) for recipe in bench.recipes], note)
    return InlineCrew(partial(compute, bench))


def chunk_limit(bench: Workbench, note: Note = _unheard) -> Limit:
    """How large chunks may be: as ``--chunk`` says, else as memory allows."""
    spec = bench.spec
    if spec.chunk:
        return Limit(spec.chunk, spec.chunk)
    n_rows = spec.n_episodes * spec.n_way * (spec.n_shot + spec.n_query)
    asked = spec.memory_bytes or (int(spec.gpus_per_worker * CLUSTER_GPU_BYTES) or None)
    capacity, most = chunk_activations(
        bench.devices, asked, weight_bytes(bench), n_rows=n_rows, spawned=bool(bench.recipes)
    )
    if capacity <= 0:
        note(f"--memory {spec.memory} is less than the program and its weights need; chunks are single architectures.")
    return Limit(max(capacity, 0.0), most)


def weight_bytes(bench: Workbench) -> int:
    """Memory of the networks of all repeats: the one that scorers share, and those that some keep for themselves.

    The thin network on which linear regions are counted, a few kilobytes, is left out.
    """
    each = FLOAT_BYTES + sum(scorer.own_weight_bytes for scorer in bench.scorers)
    return each * bench.cost(bench.space.subspace()).params * bench.spec.repeats
