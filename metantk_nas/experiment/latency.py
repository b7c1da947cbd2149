"""Latencies of a run: a key is timed once, and whoever asks again, even after a restart, hears the same."""

import time
from collections.abc import Callable

from metantk_nas.scorers.registry import LATENCY
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.store import ScoreStore
from metantk_nas.types import Score

SCORER = "latency"
"""Name that latencies have among the scores of a store."""


class Latencies:
    """Latency of architectures in milliseconds, by canonical key.

    Args:
        key: canonical key of an architecture.
        measure: times the architecture that stands for its key.
    """

    def __init__(self, key: Callable[[Genotype], str], measure: Callable[[Genotype], float]) -> None:
        self._key, self._measure = key, measure
        self._known: dict[str, float] = {}
        self._store: ScoreStore | None = None

    def keep_in(self, store: ScoreStore) -> None:
        """Take over what a store holds, and commit to it from now on."""
        held = {score.key: score.values[LATENCY] for score in store.scores() if score.scorer == SCORER}
        self._store, fresh = store, {key: ms for key, ms in self._known.items() if key not in held}
        self._known |= held
        store.put(Score(key, 0, SCORER, {LATENCY: ms}) for key, ms in fresh.items())

    def __call__(self, genotype: Genotype) -> float:
        """Return what is known, or measure."""
        key = self._key(genotype)
        if key not in self._known:
            start = time.perf_counter()
            self._known[key] = self._measure(genotype)
            if self._store is not None:
                seconds = time.perf_counter() - start
                self._store.put([Score(key, 0, SCORER, {LATENCY: self._known[key]}, seconds=seconds)])
        return self._known[key]
