"""The searchers by name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem
from metantk_nas.searchers.evolution import EvolutionSearcher, EvolutionSettings
from metantk_nas.searchers.exhaustive import ExhaustiveSearcher
from metantk_nas.searchers.pruning import PruningSearcher
from metantk_nas.searchers.random import RandomSearcher
from metantk_nas.settings import check_settings


@dataclass(frozen=True)
class SearcherEntry:
    """One searcher of the registry.

    Args:
        factory: builds the searcher for a problem, and from its settings where it has any.
        description: one line for lists.
        source: paper that it comes from; empty where it is common knowledge.
        settings: dataclass of its settings; None where it has none.
        needs_budget: whether it asks on until a budget stops it.
        listens: whether what it asks depends on what it is told.
        narrows: whether it narrows the space to one architecture; then there is nothing to budget, limit or weigh.
    """

    factory: Callable[..., AbstractSearcher]
    description: str
    source: str = ""
    settings: type[EvolutionSettings] | None = None
    needs_budget: bool = False
    listens: bool = False
    narrows: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """Default settings by name."""
        return {} if self.settings is None else asdict(self.settings())


SEARCHERS: Mapping[str, SearcherEntry] = {
    "exhaustive": SearcherEntry(ExhaustiveSearcher, "every architecture of the space, in its order"),
    "random": SearcherEntry(
        RandomSearcher, "uniform draws without replacement, one of each canonical key", needs_budget=True
    ),
    "evolution": SearcherEntry(
        EvolutionSearcher,
        "one-edge changes of the fittest of a few; the oldest die",
        source="regularised evolution, Real et al. 2019, arXiv 1802.01548",
        settings=EvolutionSettings,
        needs_budget=True,
        listens=True,
    ),
    "pruning": SearcherEntry(
        PruningSearcher,
        "removes operations from the whole space, the least missed first, down to one architecture",
        source="MetaNTK-NAS, Wang et al. 2022, arXiv 2203.09137",
        listens=True,
        narrows=True,
    ),
}


def searcher_entry(name: str) -> SearcherEntry:
    """Look a searcher up.

    Raises:
        UsageError: there is no such searcher.
    """
    if name not in SEARCHERS:
        raise unknown_name("searcher", name, SEARCHERS)
    return SEARCHERS[name]


def make_settings(name: str, given: Mapping[str, Any] | None = None) -> EvolutionSettings | None:
    """Build the settings of a searcher, the given ones over the defaults; None where it has none.

    Raises:
        UsageError: there is no such searcher or setting, or a value is impossible.
    """
    declared, given = searcher_entry(name).settings, given or {}
    if declared is None:
        if given:
            raise UsageError(f"searcher {name!r} has no settings, it got {next(iter(given))!r}; leave it out.")
        return None
    check_settings(f"setting of searcher {name!r}:", given, declared)
    return declared(**given)


def make_searcher(name: str, problem: SearchProblem, settings: Mapping[str, Any] | None = None) -> AbstractSearcher:
    """Build a searcher by name.

    Args:
        name: a key of `SEARCHERS`.
        problem: what to search.
        settings: its settings by name; the rest keep their defaults.

    Raises:
        UsageError: there is no such searcher or setting, or it cannot search this problem.
    """
    chosen = make_settings(name, settings)
    factory = searcher_entry(name).factory
    return factory(problem) if chosen is None else factory(problem, chosen)
