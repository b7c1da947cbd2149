"""Exhaustive search: everything there is, in the order of the space."""

from collections.abc import Iterator
from itertools import islice

from metantk_nas.errors import UsageError
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem, Told, nothing_allowed
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.subspace import Architecture

MAX_SIZE = 1_000_000
"""Largest space that is searched exhaustively."""


class ExhaustiveSearcher(AbstractSearcher):
    """Asks every allowed genotype once, all members of a canonical key included; scores do not matter to it.

    Args:
        problem: what to search; a budget stops early.
        max_size: largest space to accept, in genotypes.

    Raises:
        UsageError: the space is larger.
    """

    def __init__(self, problem: SearchProblem, max_size: int = MAX_SIZE) -> None:
        if problem.space.size > max_size:
            raise UsageError(
                f"space {problem.space.name!r} has {problem.space.size:,} architectures, too many for an exhaustive "
                f"search (at most {max_size:,}); use --searcher random --budget N."
            )
        self._total = min(problem.budget or problem.space.size, problem.space.size)
        self._stream = islice(_allowed(problem), problem.budget)

    def ask(self, n: int) -> list[Architecture]:
        """Return the next ``n`` architectures in the order of the space."""
        return list(islice(self._stream, n))

    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Learn nothing."""

    @property
    def total(self) -> int:
        """How many architectures will be asked, at most."""
        return self._total


def _allowed(problem: SearchProblem) -> Iterator[Genotype]:
    found = False
    for genotype in filter(problem.allowed, problem.space.genotypes()):
        found = True
        yield genotype
    if not found:
        raise nothing_allowed(problem.space.size, "in the space")
