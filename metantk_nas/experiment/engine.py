"""The engine: it scores the candidates it is given and commits every result as it comes."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from metantk_nas.experiment.workbench import Workbench
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Score

BYTES_PER_ACTIVATION = 8
"""Measured peak memory of the kernel scorer over the activations of its chunk, in float32, rounded up."""

CHUNK_BYTES = 2 * 2**30
"""Memory that a chunk of candidates may take where ``--chunk`` is not given."""

MAX_CHUNK = 16
"""Candidates of a chunk at most: beyond this a larger chunk gains nothing."""


@dataclass(frozen=True)
class Task:
    """What one call of one scorer computes.

    Args:
        scorer: name of the scorer.
        repeat: index of the repeat.
        keys: canonical keys, none of which has been scored.
        texts: their representatives.
    """

    scorer: str
    repeat: int
    keys: tuple[str, ...]
    texts: tuple[str, ...]


def compute(bench: Workbench, scorer: AbstractScorer, task: Task) -> list[Score]:
    """Carry out a task."""
    start = time.perf_counter()
    findings = scorer.score([bench.space.read(text) for text in task.texts], task.repeat)
    seconds = (time.perf_counter() - start) / len(task.keys)
    return [
        Score(key, task.repeat, scorer.name, finding.values, finding.status, finding.reason, seconds)
        for key, finding in zip(task.keys, findings, strict=True)
    ]


class Engine:
    """Scores candidates chunk by chunk.

    Args:
        bench: the run's parts.
        store: where scores are committed, and what knows which of them are there already.
    """

    def __init__(self, bench: Workbench, store: ScoreStore) -> None:
        self._bench, self._store = bench, store
        self._waiting: deque[list[Candidate]] = deque()

    @property
    def hungry(self) -> bool:
        """Whether it could do with more candidates."""
        return not self._waiting

    @property
    def idle(self) -> bool:
        """Whether everything submitted has been collected."""
        return not self._waiting

    def submit(self, batch: Sequence[Candidate]) -> None:
        """Queue candidates."""
        self._waiting.extend(self._chunks(batch))

    def collect(self) -> list[Candidate]:
        """Work until candidates are finished, and return them in the order of submission."""
        chunk = self._waiting.popleft()
        for task in self._tasks(chunk):
            scorer = next(scorer for scorer in self._bench.scorers if scorer.name == task.scorer)
            self._store.put(compute(self._bench, scorer, task))
        return chunk

    def _tasks(self, chunk: Sequence[Candidate]) -> Iterator[Task]:
        """Yield what the store lacks of a chunk: one task per repeat and scorer."""
        representatives = {candidate.key: candidate.representative for candidate in chunk}
        for repeat in range(self._bench.spec.repeats):
            for scorer in self._bench.scorers:
                keys = self._store.missing(representatives, repeat, scorer.name)
                if keys:
                    yield Task(scorer.name, repeat, tuple(keys), tuple(representatives[key] for key in keys))

    def _chunks(self, batch: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        """Cut a batch into chunks that fit into memory."""
        size = self._bench.spec.chunk or self._chunk_size(batch)
        for start in range(0, len(batch), size):
            yield list(batch[start : start + size])

    def _chunk_size(self, batch: Sequence[Candidate]) -> int:
        """Candidates whose activations fit into `CHUNK_BYTES`, by the largest of a batch."""
        bench, spec = self._bench, self._bench.spec
        n_rows = spec.n_episodes * spec.n_way * (spec.n_shot + spec.n_query)
        largest = max(bench.cost(bench.space.read(candidate.representative)).activations for candidate in batch)
        return max(1, min(MAX_CHUNK, CHUNK_BYTES // (n_rows * largest * BYTES_PER_ACTIVATION)))
