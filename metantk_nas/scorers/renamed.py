"""A scorer under another name, beside the first one in a ranking."""

from collections.abc import Sequence
from dataclasses import replace

from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.spaces.subspace import Architecture


class RenamedScorer(AbstractScorer):
    """Puts a prefix before the name of a scorer and of its metrics.

    Args:
        scorer: does the work.
        prefix: such as ``"cheap_"``.
    """

    def __init__(self, scorer: AbstractScorer, prefix: str) -> None:
        self._scorer, self._prefix = scorer, prefix
        self.name = f"{prefix}{scorer.name}"
        self.own_weight_bytes = scorer.own_weight_bytes
        self.metrics = tuple(replace(metric, name=f"{prefix}{metric.name}") for metric in scorer.metrics)

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk as the scorer does."""
        return [
            replace(finding, values={f"{self._prefix}{name}": value for name, value in finding.values.items()})
            for finding in self._scorer.score(architectures, repeat)
        ]
