"""Regularised evolution: the fittest of a few have children, the oldest die."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import final

from metantk_nas.errors import UsageError
from metantk_nas.rng import python_generator
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem, Told, check_turn
from metantk_nas.searchers.random import distinct_draws
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.subspace import Architecture


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of `EvolutionSearcher`; the defaults did best on tabulated accuracies (``benchmarks/evolution.py``).

    Args:
        population: members alive; as many are drawn at random to begin with.
        tournament: members among which a parent is chosen; the more, the greedier.
        generation: children made before the first of them is told. They can be scored together.

    Raises:
        UsageError: a value is not a whole number of at least 1, or larger than the population.
    """

    population: int = 32
    tournament: int = 8
    generation: int = 16

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} is {value!r}; expected a whole number of at least 1.")
            if value > self.population:
                raise UsageError(f"{name} is {value}; expected at most the population, {self.population}.")


@dataclass(frozen=True, eq=False)
class Member:
    """A member of the population.

    Args:
        genotype: what it is.
        found: what was told of it; None if it could not be scored.
    """

    genotype: Genotype
    found: Told | None


@final
class EvolutionSearcher(AbstractSearcher):
    """Regularised (aging) evolution (Real, Aggarwal, Huang & Le, AAAI 2019, arXiv 1802.01548, algorithm 1).

    A child differs from its parent, the winner of a tournament, in one edge, and takes the place of the oldest
    member. Unlike the paper's, children come in generations, and no canonical key is asked twice: where all
    neighbours of a parent have been asked, another parent takes its turn, and where none is left, a random newcomer.
    What could not be scored is no parent as long as there is another.

    Raises:
        UsageError: the problem has no budget.
    """

    def __init__(self, problem: SearchProblem, settings: EvolutionSettings | None = None) -> None:
        if problem.budget is None:
            raise UsageError("searcher 'evolution' got no budget; expected --budget N.")
        self._problem, self._settings = problem, settings or EvolutionSettings()
        self._total = problem.budget
        self._rng = python_generator(problem.seed, "search", "evolution")
        self._newcomers = distinct_draws(problem)
        self._population: deque[Member] = deque(maxlen=self._settings.population)
        self._generation: list[Genotype] = []
        self._told: list[Member] = []
        self._n_asked = 0
        self._seen: set[str] = set()
        self._spent: set[Genotype] = set()

    def ask(self, n: int) -> list[Architecture]:
        """Return the next ``n`` of the generation; none while the generation has been asked, but not told."""
        if len(self._told) == len(self._generation):
            self._breed()
        asked = self._generation[self._n_asked : self._n_asked + n]
        self._n_asked += len(asked)
        return list(asked)

    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Remember what was found.

        Raises:
            UsageError: it is told out of turn.
        """
        check_turn(architecture, self._generation[len(self._told) : self._n_asked])
        self._told.append(Member(self._generation[len(self._told)], found))

    @property
    def total(self) -> int:
        """How many architectures will be asked, at most."""
        return self._total

    def _breed(self) -> None:
        """Take the generation into the population, whose oldest die, and make the next."""
        self._population.extend(self._told)
        size = self._settings.generation if self._population else self._settings.population
        self._generation, self._told, self._n_asked = [], [], 0
        while len(self._generation) < size and len(self._seen) < self._total:
            child = self._child()
            if child is None:
                break
            self._seen.add(self._problem.space.key(child))
            self._generation.append(child)

    def _child(self) -> Genotype | None:
        """Change one edge of a tournament's winner; None when nothing is left to ask."""
        candidates = [member for member in self._population if member.genotype not in self._spent]
        parents = [member for member in candidates if member.found is not None] or candidates
        while parents:
            parent = self._winner(parents)
            child = next(self._mutants(parent.genotype), None)
            if child is not None:
                return child
            self._spent.add(parent.genotype)
            parents.remove(parent)
        return next((newcomer for newcomer in self._newcomers if self._is_new(newcomer)), None)

    def _winner(self, parents: list[Member]) -> Member:
        """Hold a tournament; chance decides among equals, and among those that could not be scored."""
        entrants = self._rng.sample(parents, min(self._settings.tournament, len(parents)))
        told = [member.found for member in entrants if member.found is not None]
        places = self._problem.order(told) if told else [0.0]
        return entrants[places.index(min(places))]

    def _mutants(self, genotype: Genotype) -> Iterator[Genotype]:
        neighbours = list(self._problem.space.neighbours(genotype))
        self._rng.shuffle(neighbours)
        return (mutant for mutant in neighbours if self._is_new(mutant) and self._problem.allowed(mutant))

    def _is_new(self, genotype: Genotype) -> bool:
        return self._problem.space.key(genotype) not in self._seen
