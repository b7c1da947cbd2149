from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metantk_nas.errors import UsageError
from metantk_nas.rng import child_seed
from metantk_nas.searchers.evolution import EvolutionSearcher, EvolutionSettings
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from tests.contracts.searcher import BudgetedSearcherContract, drive, make_problem, n_convolutions

Value = Callable[[Genotype], float | None]


class TestEvolutionSearcher(BudgetedSearcherContract):
    name = "evolution"


def evolve(
    value: Value, settings: EvolutionSettings, budget: int = 200, space: str = "nas_bench_201"
) -> list[Genotype]:
    searcher = EvolutionSearcher(make_problem(space, budget=budget), settings)
    stream: list[Any] = []
    while asked := searcher.ask(1_000):
        stream += asked
        for genotype in asked:
            found = value(genotype)
            searcher.tell(genotype, None if found is None else np.full((1, 2), found))
    return stream


def few_convolutions(genotype: Genotype) -> float:
    return n_convolutions(genotype) + chance(genotype)


def chance(genotype: Genotype) -> float:
    """A number in [0, 1) that depends on the genotype alone."""
    return child_seed(0, repr(genotype)) / 2**63


def living(stream: list[Genotype], settings: EvolutionSettings) -> list[tuple[list[Genotype], list[Genotype]]]:
    """Pairs of a population and its children, written from the words of the paper."""
    pairs = []
    for start in range(settings.population, len(stream), settings.generation):
        population = stream[start - settings.population : start]
        pairs.append((population, stream[start : start + settings.generation]))
    return pairs


@pytest.mark.parametrize("space", ["nas_bench_201", "darts"])
def test_every_canonical_key_is_asked_once(space: str) -> None:
    problem = make_problem(space, budget=600)
    keys = [problem.space.key(genotype) for genotype in drive("evolution", problem)]
    assert len(set(keys)) == len(keys) == 600


def test_the_first_population_is_that_of_random_search() -> None:
    size = EvolutionSettings().population
    assert drive("evolution", make_problem(budget=size)) == drive("random", make_problem(budget=size))


def test_children_differ_in_one_edge_from_a_living_member() -> None:
    settings = EvolutionSettings(population=12, tournament=3, generation=4)
    space = make_problem("darts").space
    for population, children in living(evolve(few_convolutions, settings, space="darts"), settings):
        near = {neighbour for member in population for neighbour in space.neighbours(member)}
        assert near.issuperset(children)


@pytest.mark.parametrize("generation", [1, 5])
def test_a_tournament_of_all_makes_the_best_living_member_the_parent_and_the_oldest_die(generation: int) -> None:
    settings = EvolutionSettings(population=10, tournament=10, generation=generation)
    space = make_problem("darts").space
    n_best_died = 0
    bests = []
    for population, children in living(evolve(few_convolutions, settings, 120, "darts"), settings):
        best = min(population, key=few_convolutions)
        assert set(space.neighbours(best)).issuperset(children)
        n_best_died += bool(bests) and few_convolutions(best) > few_convolutions(bests[-1])
        bests.append(best)
    assert n_best_died > 0, "no best member grew old: the test saw nothing"


def test_what_could_not_be_scored_is_no_parent_as_long_as_there_is_another() -> None:
    settings = EvolutionSettings(population=20, tournament=2, generation=5)
    space = make_problem("darts").space

    def mostly_broken(genotype: Genotype) -> float | None:
        return chance(genotype) if chance(genotype) > 0.9 else None

    for population, children in living(evolve(mostly_broken, settings, space="darts"), settings):
        parents = [member for member in population if mostly_broken(member) is not None] or population
        near = {neighbour for parent in parents for neighbour in space.neighbours(parent)}
        assert near.issuperset(children)


def test_when_all_neighbours_were_asked_others_take_their_turn() -> None:
    problem = make_problem(budget=1_000_000, allowed=lambda genotype: n_convolutions(genotype) in (0, 6))
    keys = {problem.space.key(genotype) for genotype in problem.space.genotypes() if problem.allowed(genotype)}
    stream = drive("evolution", problem)  # no single edit leads from no convolution to six
    assert {problem.space.key(genotype) for genotype in stream} == keys
    assert len(stream) == len(keys)


def test_it_finds_better_ones_than_random_search() -> None:
    settings = EvolutionSettings()
    bred = evolve(lambda genotype: -n_convolutions(genotype), settings, 100, "darts")
    drawn = drive("random", make_problem("darts", budget=100))
    assert max(map(n_convolutions, bred)) == 16 > max(map(n_convolutions, drawn))  # two cells of eight edges


def test_telling_out_of_turn_is_refused() -> None:
    searcher = make_searcher("evolution", make_problem())
    first, second = searcher.ask(2)
    with pytest.raises(UsageError, match="out of turn"):
        searcher.tell(second, None)
    searcher.tell(first, None)
    searcher.tell(second, None)
    with pytest.raises(UsageError, match="out of turn"):
        searcher.tell(second, None)


def test_a_budget_is_needed() -> None:
    with pytest.raises(UsageError, match="searcher 'evolution' got no budget; expected --budget N"):
        make_searcher("evolution", make_problem(budget=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population is 0; expected a whole number of at least 1"),
        ({"tournament": 2.5}, "tournament is 2.5; expected a whole number"),
        ({"generation": "many"}, "generation is 'many'; expected a whole number"),
        ({"population": 8, "tournament": 9, "generation": 2}, "tournament is 9; expected at most the population, 8"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_searcher("evolution", make_problem(), settings)
