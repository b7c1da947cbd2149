from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.errors import RunError, UsageError
from metantk_nas.ordering import places
from metantk_nas.rng import numpy_generator
from metantk_nas.searchers.base import Order, SearchProblem, Told
from metantk_nas.searchers.pruning import PruningSearcher
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture, EdgeSlot, SubSpace
from metantk_nas.types import Metric, RankRule
from tests.contracts.searcher import SearcherContract, anything, by_mean, drive, make_problem
from tests.reference.pruning import prune
from tests.spaces.strategies import SKELETON, spaces

Value = Callable[[Architecture], Told | None]
LOWER = Metric("lower", higher_is_better=False, description="", source="")
HIGHER = Metric("higher", higher_is_better=True, description="", source="")
DENSE = RankRule("dense", (LOWER, HIGHER), "dense_rank_sum")


class TestPruningSearcher(SearcherContract):
    name = "pruning"
    budget = None


def small_space(edges_per_node: int | None = 1, ops: tuple[str, ...] = ("conv_3x3", "skip_connect", "none")) -> Space:
    return Space("small", "", "", ("normal", "reduce"), 2, 2, edges_per_node, "concat", ops, SKELETON)


def search(space: Space, value: Value, order: Order = by_mean) -> tuple[list[Architecture], PruningSearcher]:
    searcher = PruningSearcher(SearchProblem(space, None, 0, anything, order))
    stream: list[Architecture] = []
    while asked := searcher.ask(7):
        stream += asked
        for architecture in asked:
            searcher.tell(architecture, value(architecture))
    return stream, searcher


def last(stream: Sequence[Architecture]) -> Genotype:
    assert isinstance(stream[-1], Genotype)
    return stream[-1]


def choices(architecture: Architecture, space: Space) -> list[tuple[str, int, int, str]]:
    return [(cell_type, *choice) for cell_type in space.cell_types for choice in architecture.choices(cell_type)]


def additive(space: Space, seed: int, architecture: Architecture) -> Told:
    """Each choice has a cost of its own, the same in both repeats; an architecture costs what its choices cost."""
    costs = [numpy_generator(seed, *choice).uniform(1, 2) for choice in choices(architecture, space)]
    return np.full((1, 2), 100 + sum(costs))


def by_text(space: Space, seed: int, architecture: Architecture) -> Told:
    """Values without any order to them, of few levels, so that ties abound; two metrics, three repeats."""
    text = str(sorted(choices(architecture, space)))
    return numpy_generator(seed, text).integers(4, 7, size=(2, 3)).astype(float)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("edges_per_node", [1, 2, None])
def test_where_choices_do_not_depend_on_each_other_the_best_genotype_is_found(seed: int, edges_per_node: int | None):
    space = small_space(edges_per_node)
    stream, _ = search(space, partial(additive, space, seed))
    without_none = [
        g for g in space.genotypes() if not any("none" in str(node) for _, cell in g.cells for node in cell)
    ]
    best = min(without_none, key=lambda genotype: float(additive(space, seed, genotype).mean()))
    assert last(stream) == best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("edges_per_node", [1, 2, None])
def test_it_prunes_as_the_plain_loops_do(seed: int, edges_per_node: int | None):
    space = small_space(edges_per_node, ("conv_3x3", "skip_connect", "sep_conv_3x3"))
    stream, _ = search(space, partial(by_text, space, seed), lambda group: places(group, DENSE))

    def value(live: dict[tuple[str, int, int], tuple[str, ...]]) -> list[list[float]]:
        text = str(sorted((*slot, op) for slot, ops in live.items() for op in ops))
        return numpy_generator(seed, text).integers(4, 7, size=(2, 3)).astype(float).tolist()

    left = prune({tuple(slot): ops for slot, ops in space.subspace().slots}, edges_per_node, value, [False, True])
    assert sorted(choices(last(stream), space)) == sorted((*slot, ops[0]) for slot, ops in left.items())


@settings(deadline=None, max_examples=40)
@given(spaces(max_nodes=3, max_ops=3), st.integers(0, 100))
def test_every_space_ends_in_one_of_its_genotypes_after_exactly_as_many_as_were_announced(space: Space, seed: int):
    stream, searcher = search(space, partial(additive, space, seed))
    space.check(last(stream))
    assert len(stream) == searcher.total
    assert len(searcher.history) == len(stream) - 1 - len({trial.round for trial in searcher.history})
    assert all(isinstance(architecture, SubSpace) for architecture in stream[:-1])


def test_a_round_asks_its_base_and_then_every_removal_and_the_next_base_lacks_all_that_was_pruned():
    space = small_space()
    stream, searcher = search(space, partial(additive, space, 0))
    waiting = iter(stream)
    base = next(waiting)
    for number in sorted({trial.round for trial in searcher.history}):
        trials = [trial for trial in searcher.history if trial.round == number]
        assert isinstance(base, SubSpace)
        assert list(islice(waiting, len(trials))) == [base.without(trial.edge, trial.op) for trial in trials]
        for trial in trials:
            base = base.without(trial.edge, trial.op) if trial.pruned else base
        following = next(waiting)
        assert following == (base.genotype() if base.is_genotype else base)
        base = following
    assert next(waiting, None) is None


def test_none_is_removed_from_the_start_and_all_edges_stay_where_the_space_keeps_them():
    problem = make_problem("nas_bench_201", budget=None)
    stream = drive("pruning", problem)
    assert not any("none" in problem.space.format(architecture) for architecture in stream)
    assert len(list(stream[-1].choices("cell"))) == 6
    assert len(stream) == (1 + 24) + (1 + 18) + (1 + 12) + 1


def test_of_equal_places_the_operation_that_the_space_lists_first_goes_and_the_edge_with_the_lower_input():
    space = small_space(edges_per_node=1)
    stream, searcher = search(space, lambda architecture: np.ones((1, 1)))
    assert {trial.op for trial in searcher.history if trial.pruned and trial.round == 1} == {"conv_3x3"}
    kept = [[index for _, index in node] for _, cell in last(stream).cells for node in cell]
    assert kept == [[1], [2], [1], [2]]


def test_a_change_is_the_mean_of_the_repeats_ratios_to_the_base():
    space = small_space(edges_per_node=2)

    def value(architecture: Architecture) -> Told:
        n_choices = len(choices(architecture, space))
        return np.array([[float(n_choices), 10.0 * n_choices**2]])

    _, searcher = search(space, value)
    n_all = 2 * 2 * 5
    ratio = (n_all - 1) / n_all
    assert searcher.history[0].changes == pytest.approx([(ratio + ratio**2) / 2 - 1])


@pytest.mark.parametrize("sign", [1, -1])
def test_lower_values_are_lower_changes_also_where_they_are_negative(sign: int):
    space = small_space(edges_per_node=2)
    skipped = EdgeSlot("normal", 1, 2)

    def value(architecture: Architecture) -> Told:
        lacks_skip = (*skipped, "skip_connect") not in choices(architecture, space)
        return np.full((1, 2), sign * 50.0 - 10.0 * lacks_skip)

    _, searcher = search(space, value)
    pruned = [trial.op for trial in searcher.history if trial.pruned and trial.edge == skipped]
    assert pruned[0] == "skip_connect"


def test_a_removal_that_breaks_the_network_comes_last():
    space = small_space(edges_per_node=1)
    vital = {(cell_type, 0, 1, "conv_3x3") for cell_type in space.cell_types}

    def value(architecture: Architecture) -> Told | None:
        return additive(space, 0, architecture) if vital.issubset(choices(architecture, space)) else None

    stream, searcher = search(space, value)
    assert vital.issubset(choices(last(stream), space))
    broken = [trial for trial in searcher.history if trial.place == float("inf")]
    assert broken
    assert all(trial.changes == () and not trial.pruned for trial in broken)


def test_a_base_that_cannot_be_scored_ends_the_search_and_says_what_to_do():
    with pytest.raises(RunError, match=r"the network of all [\d,]+ architectures left could not be scored.*--n-cells"):
        search(small_space(), lambda architecture: None)


def test_a_winner_that_cannot_be_scored_is_still_asked():
    space = small_space()
    stream, _ = search(space, lambda found: None if isinstance(found, Genotype) else additive(space, 0, found))
    space.check(last(stream))


def test_a_budget_is_refused():
    with pytest.raises(UsageError, match=r"'pruning' ends by itself, it got a budget of 48; leave --budget out"):
        make_searcher("pruning", make_problem(budget=48))


def test_telling_out_of_turn_is_refused():
    searcher = make_searcher("pruning", make_problem(budget=None))
    _, second = searcher.ask(2)
    with pytest.raises(UsageError, match="out of turn"):
        searcher.tell(second, None)


def test_the_search_of_the_paper_asks_what_its_rounds_add_up_to():
    searcher = make_searcher("pruning", SearchProblem(load_space("darts_fewshot"), None, 0, anything, by_mean))
    n_edges = 2 * (2 + 3 + 4)
    operations = sum(1 + n_edges * n_ops for n_ops in range(7, 1, -1))
    assert searcher.total == operations + (1 + 2 * (3 + 4)) + 1 == 508
