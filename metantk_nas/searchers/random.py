"""Random search without replacement."""

import math
from collections.abc import Iterator
from itertools import islice

from metantk_nas.errors import UsageError
from metantk_nas.rng import python_generator
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem, Told, nothing_allowed
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.subspace import Architecture

MAX_ENUMERATED = 200_000
"""Largest space that is shuffled as a whole, so that its end is certain."""
MAX_FAILURES = 10_000
"""In a larger space: draws in a row that bring nothing new before it counts as used up."""


class RandomSearcher(AbstractSearcher):
    """Draws genotypes uniformly and asks each canonical key once; scores do not matter to it.

    It remembers the keys that it asked and, in a space of at most `MAX_ENUMERATED` genotypes, the shuffled space.

    Raises:
        UsageError: the problem has no budget.
    """

    def __init__(self, problem: SearchProblem) -> None:
        if problem.budget is None:
            raise UsageError("searcher 'random' got no budget; expected --budget N, or --searcher exhaustive for all.")
        self._total = problem.budget
        self._stream = islice(distinct_draws(problem), problem.budget)

    def ask(self, n: int) -> list[Architecture]:
        """Return the next ``n`` architectures, each of another canonical key."""
        return list(islice(self._stream, n))

    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Learn nothing."""

    @property
    def total(self) -> int:
        """How many architectures will be asked, at most."""
        return self._total


def distinct_draws(problem: SearchProblem) -> Iterator[Genotype]:
    """Draw genotypes uniformly and yield the first allowed one of each key, until there are no more.

    Raises:
        UsageError: no architecture at all is allowed.
    """
    patience = math.inf if _enumerable(problem) else MAX_FAILURES
    seen: set[str] = set()
    n_drawn = n_failures = 0
    for genotype in _draws(problem):
        n_drawn += 1
        n_failures += 1
        key = problem.space.key(genotype)
        if key not in seen and problem.allowed(genotype):
            seen.add(key)
            n_failures = 0
            yield genotype
        if n_failures == patience:
            break
    if not seen:
        raise nothing_allowed(n_drawn, "sampled")


def _draws(problem: SearchProblem) -> Iterator[Genotype]:
    rng = python_generator(problem.seed, "search")
    if _enumerable(problem):
        genotypes = list(problem.space.genotypes())
        rng.shuffle(genotypes)
        yield from genotypes
    while not _enumerable(problem):
        yield problem.space.sample(rng)


def _enumerable(problem: SearchProblem) -> bool:
    return problem.space.size <= MAX_ENUMERATED
