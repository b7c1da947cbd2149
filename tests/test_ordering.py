import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.ordering import crowding_distances, fronts, pareto_places, places
from metantk_nas.types import Metric, RankRule
from tests.reference.pareto import crowding, dominates, peeled_fronts

CONDITION = Metric("condition_number", higher_is_better=False, description="", source="")
TRACE = Metric("trace", higher_is_better=True, description="", source="")
PARAMS = Metric("params", higher_is_better=False, description="", source="")
SCORE = Metric("score", higher_is_better=False, description="", source="")
RULE = RankRule("metantk", (CONDITION, TRACE))

LEVELS = st.sampled_from([0.0, 1.0, 2.0, 3.5, -1.0])
POINTS = st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[LEVELS] * n), min_size=1, max_size=25))


@settings(deadline=None)
@given(POINTS)
def test_fronts_are_those_of_plain_peeling(points):
    assert fronts(np.array(points)).tolist() == peeled_fronts(points)


@settings(deadline=None)
@given(POINTS)
def test_whoever_dominates_is_on_an_earlier_front(points):
    numbers = fronts(np.array(points))
    for first, a in zip(points, numbers, strict=True):
        assert all(a < b for second, b in zip(points, numbers, strict=True) if dominates(first, second))


@settings(deadline=None)
@given(POINTS)
def test_crowding_distances_are_those_of_the_paper(points):
    np.testing.assert_allclose(crowding_distances(np.array(points)), crowding(points))


def test_no_candidates_have_no_fronts():
    assert fronts(np.empty((0, 2))).tolist() == []


def test_a_large_front_takes_seconds_not_minutes():
    line = np.arange(20_000.0)
    assert set(fronts(np.stack([line, -line], axis=1))) == {1}
    assert fronts(np.stack([line, line], axis=1)).tolist() == list(range(1, 20_001))


def group(*rows):
    """Condition number, trace and params of each; two repeats of equal values."""
    return [np.repeat(np.array(row, dtype=float)[:, None], 2, axis=1) for row in rows]


def test_places_go_by_front_and_then_the_lonelier_first():
    told = group((1, 0, 50), (2, 0, 40), (2.5, 0, 39), (9, 0, 10), (10, 0, 60))
    found = pareto_places(told, (CONDITION, TRACE, PARAMS), (CONDITION, PARAMS), RULE)
    ends, middle = [0, 3], [1, 2]
    assert found[ends[0]] == found[ends[1]] == 0
    assert found[middle[0]] == found[middle[1]] - 1 or found[middle[0]] == found[middle[1]] + 1
    assert found[2] < found[1], "(2.5, 39) has more room around it than (2, 40)"
    assert found[4] == max(found)


def test_score_as_an_objective_is_the_rule_of_the_ranking():
    told = group((1, 5, 10), (2, 9, 10), (3, 1, 10), (4, 2, 10))
    by_rule = places([found[:2] for found in told], RULE)
    found = pareto_places(told, (CONDITION, TRACE, PARAMS), (SCORE, PARAMS), RULE)
    assert np.argsort(found, kind="stable").tolist() == np.argsort(by_rule, kind="stable").tolist()


@pytest.mark.parametrize("objective", [CONDITION, TRACE])
def test_an_objective_has_its_own_direction(objective):
    told = group((1, 1, 5), (2, 2, 5))
    first, second = pareto_places(told, (CONDITION, TRACE, PARAMS), (objective, PARAMS), RULE)
    assert (second < first) == objective.higher_is_better


def test_places_with_dense_ranks_share_ties_without_a_gap():
    rule = RankRule("dense", (CONDITION,), "dense_rank_sum")
    assert places(group((1,), (1,), (1.000_000_1,), (2,), (3,)), rule) == [1, 1, 1, 2, 3]
