"""The contract of a scorer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric


@dataclass(frozen=True)
class Finding:
    """What a scorer says of one architecture.

    Args:
        values: raw metric values by name; NaN or infinite where ``status`` is not ``"ok"``.
        status: ``"ok"`` or the name of what is wrong.
        reason: one sentence that explains any other status.
    """

    values: Mapping[str, float]
    status: str = "ok"
    reason: str = ""


class AbstractScorer(ABC):
    """Scores chunks of untrained architectures; to change a scorer, wrap it.

    A candidate's finding is the same alone and in any chunk, to rounding.
    """

    name: str
    metrics: tuple[Metric, ...]
    own_weight_bytes: int = 0
    """Bytes of each weight of a network that it keeps for itself in every repeat, beside the one that all share."""

    @abstractmethod
    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk in one repeat; one finding per architecture, in order."""
