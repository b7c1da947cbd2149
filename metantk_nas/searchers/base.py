"""What a searcher is: it is asked for architectures and told their scores. It never sees how a score is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from metantk_nas.errors import UsageError
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space


@dataclass(frozen=True)
class SearchProblem:
    """Everything that a searcher knows beforehand.

    Args:
        space: where to search.
        budget: most architectures to ask for; None asks for as many as there are.
        seed: seed of the run; a searcher draws from the stream ``"search"`` alone.
        allowed: whether an architecture satisfies the limits on parameters and multiply-adds.

    Raises:
        UsageError: the budget is not positive.
    """

    space: Space
    budget: int | None
    seed: int
    allowed: Callable[[Genotype], bool]

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"budget is {self.budget}; expected at least 1 architecture: --budget 100, for example.")


class AbstractSearcher(ABC):
    """Asks for architectures, one stream of them per problem.

    The stream depends on the problem and the scores told, not on how ``ask`` cuts it into pieces: a search that was
    interrupted is replayed by asking a new searcher again.
    """

    @abstractmethod
    def ask(self, n: int) -> list[Genotype]:
        """Return the next ``n`` architectures; fewer, or none, when the budget or the space is used up.

        Raises:
            UsageError: no architecture at all is allowed.
        """

    @abstractmethod
    def tell(self, genotype: Genotype, score: float | None) -> None:
        """Learn the score of an architecture that was asked.

        Args:
            genotype: the architecture.
            score: the lower the better, as in ``ranking.csv``; None if it could not be scored.
        """


def nothing_allowed(n_tried: int, how: str) -> UsageError:
    """Build the error for limits that no architecture satisfies.

    Args:
        n_tried: how many architectures were looked at.
        how: how they were found, such as ``"sampled"``.
    """
    return UsageError(
        f"no architecture of {n_tried:,} {how} satisfies the limits of --max-params and --max-macs; loosen the limit."
    )
