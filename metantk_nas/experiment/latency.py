"""Latencies of a run: a key is timed once, and whoever asks again, even after a restart, hears the same."""

import time
from collections.abc import Callable, Mapping

from metantk_nas.networks.latency import Latency
from metantk_nas.scorers.registry import LATENCY
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.store import ScoreStore
from metantk_nas.types import Score

SCORER = "latency"
"""Name that latencies have among the scores of a store."""


def latency_score(key: str, found: Latency, seconds: float = 0.0) -> Score:
    """Write a latency as a score: its spread is that of the timings, since it is not measured in every repeat."""
    return Score(key, 0, SCORER, {LATENCY: found.ms, f"{LATENCY}_sd": found.sd}, seconds=seconds)


class Latencies:
    """Latency of architectures in milliseconds, by canonical key.

    Args:
        key: canonical key of an architecture.
        measure: times the architecture that stands for its key.
    """

    def __init__(self, key: Callable[[Genotype], str], measure: Callable[[Genotype], Latency]) -> None:
        self._key, self._measure = key, measure
        self._known: dict[str, Score] = {}
        self._store: ScoreStore | None = None

    def keep_in(self, store: ScoreStore) -> None:
        """Take over what a store holds, and commit to it from now on."""
        held = {score.key: score for score in store.scores() if score.scorer == SCORER}
        fresh = [score for key, score in self._known.items() if key not in held]
        self._store = store
        self._known |= held
        store.put(fresh)

    def __call__(self, genotype: Genotype) -> float:
        """Return what is known, or measure."""
        return self.columns(genotype)[LATENCY]

    def columns(self, genotype: Genotype) -> Mapping[str, float]:
        """Return the latency and its spread by the names of their columns: what is known, or measured now."""
        key = self._key(genotype)
        if key not in self._known:
            start = time.perf_counter()
            found = self._measure(genotype)
            self._known[key] = latency_score(key, found, time.perf_counter() - start)
            if self._store is not None:
                self._store.put([self._known[key]])
        return self._known[key].values
