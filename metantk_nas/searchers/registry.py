"""The searchers by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metantk_nas.errors import unknown_name
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem
from metantk_nas.searchers.exhaustive import ExhaustiveSearcher
from metantk_nas.searchers.random import RandomSearcher


@dataclass(frozen=True)
class SearcherEntry:
    """One searcher of the registry.

    Args:
        make: builds the searcher for a problem.
        description: one line for lists.
    """

    make: Callable[[SearchProblem], AbstractSearcher]
    description: str


SEARCHERS: Mapping[str, SearcherEntry] = {
    "exhaustive": SearcherEntry(ExhaustiveSearcher, "every architecture of the space, in its order"),
    "random": SearcherEntry(RandomSearcher, "uniform draws without replacement, one of each canonical key"),
}


def make_searcher(name: str, problem: SearchProblem) -> AbstractSearcher:
    """Build a searcher by name.

    Raises:
        UsageError: there is no such searcher, or it cannot search this problem.
    """
    if name not in SEARCHERS:
        raise unknown_name("searcher", name, SEARCHERS)
    return SEARCHERS[name].make(problem)
