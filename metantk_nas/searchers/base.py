"""What a searcher is: it is asked for architectures and told what was found. It never sees how a score is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metantk_nas.errors import UsageError
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture

Told = NDArray[np.float64]
"""What was found of an architecture: raw values ``[metric, repeat]`` of the metrics that are ranked by."""

Order = Callable[[Sequence[Told]], Sequence[float]]
"""Places of a group of architectures among each other, the lower the better; equal places are ties."""


@dataclass(frozen=True)
class SearchProblem:
    """Everything that a searcher knows beforehand.

    Args:
        space: where to search.
        budget: most architectures to ask for; None asks for as many as there are.
        seed: seed of the run; a searcher draws from the stream ``"search"`` alone.
        allowed: whether an architecture satisfies the limits on parameters, multiply-adds and latency.
        order: compares architectures by what was told of them.

    Raises:
        UsageError: the budget is not positive.
    """

    space: Space
    budget: int | None
    seed: int
    allowed: Callable[[Genotype], bool]
    order: Order

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"budget is {self.budget}; expected at least 1 architecture: --budget 100, for example.")


class AbstractSearcher(ABC):
    """Asks for architectures, one stream of them per problem.

    The stream depends on the problem and on what was told, never on how ``ask`` cuts it into pieces or on how far
    ahead it is asked: a search that was interrupted is replayed by asking a new searcher again.
    """

    @abstractmethod
    def ask(self, n: int) -> list[Architecture]:
        """Return the next architectures, ``n`` at most.

        None at all means: what was asked must be told first; or, when all of it was told, that the search is over.

        Raises:
            UsageError: no architecture at all is allowed.
        """

    @abstractmethod
    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Learn what was found of an architecture that was asked; architectures are told in the order of asking.

        Args:
            architecture: as it was asked.
            found: its values; None if it could not be scored.

        Raises:
            UsageError: a searcher that listens is told out of turn.
        """

    @property
    @abstractmethod
    def total(self) -> int:
        """How many architectures will be asked, at most."""


def check_turn(told: Architecture, waiting: Sequence[Architecture]) -> None:
    """Check that what is told is the first of those that were asked and wait to be told.

    Raises:
        UsageError: it is not.
    """
    if not waiting or told != waiting[0]:
        raise UsageError("tell got an architecture out of turn; expected what ask returned, in that order.")


def nothing_allowed(n_tried: int, how: str) -> UsageError:
    """Build the error for limits that no architecture satisfies.

    Args:
        n_tried: how many architectures were looked at.
        how: how they were found, such as ``"sampled"``.
    """
    return UsageError(
        f"no architecture of {n_tried:,} {how} satisfies the limits (--max-params, --max-macs, "
        "--max-latency); loosen the limit."
    )
