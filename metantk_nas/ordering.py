"""How several metrics make one order: by ranks that are added up, or by Pareto fronts."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gmean, rankdata

from metantk_nas.types import Metric, RankRule

Array: TypeAlias = NDArray[np.float64]
Whole: TypeAlias = NDArray[np.int64]

SCORE_DECIMALS = 12
"""Digits to which sums of ranks are compared: the order of adding logarithms must not break a tie."""


def average(values: Array, metrics: Sequence[Metric]) -> Array:
    """Average raw values over repeats, each metric in its own way: ``[metric, …, repeat]`` to ``[metric, …]``.

    A geometric mean is 0 where a value is, and NaN where one is negative.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [
            gmean(part, axis=-1) if metric.averaging == "geometric" else part.mean(axis=-1)
            for part, metric in zip(values, metrics, strict=True)
        ]
    return np.stack(means)


def combine(values: Array, rule: RankRule) -> Array:
    """Combine metric ranks into scores, ``(metric, draw, candidate)`` to ``(draw, candidate)``; lower is better.

    Sums of ranks are multiples of one half, so a tie-breaker's ranks add less than one half.
    """
    ranks = part_ranks(values, rule)
    combined: Array = ranks[: len(rule.summed)].sum(axis=0).round(SCORE_DECIMALS)
    return combined + (ranks[-1] - 1) / (2 * ranks.shape[-1]) if rule.breaks_ties else combined


def part_ranks(values: Array, rule: RankRule) -> Array:
    """Rank candidates by each metric, ``(metric, draw, candidate)``, in the form that ``rule`` adds up."""
    directed = [-part if metric.higher_is_better else part for part, metric in zip(values, rule.metrics, strict=True)]
    ties: Literal["dense", "average"] = "dense" if rule.combine == "dense_rank_sum" else "average"
    ranks: Array = rankdata(rounded(np.stack(directed)), method=ties, axis=-1)
    if rule.combine == "log_rank_sum":
        n_candidates = ranks.shape[-1]
        ranks = -np.log((n_candidates + 1 - ranks) / n_candidates)
    return ranks


def rounded(values: Array) -> Array:
    """Round to six significant digits, so that the last bits of a sum do not decide an order."""
    return np.array([float(f"{value:.5e}") for value in values.flat]).reshape(values.shape)


def places(group: Sequence[Array], rule: RankRule) -> list[float]:
    """Score a group of architectures among each other as `rule` does; lower is better.

    Args:
        group: for each architecture its raw values ``[metric, repeat]``, in the order of ``rule.metrics``.
        rule: how they are compared; repeats are averaged first.
    """
    means = average(np.stack(group, axis=1), rule.metrics)
    scores: list[float] = combine(means[:, None], rule)[0].tolist()
    return scores


def pareto_places(
    group: Sequence[Array], metrics: Sequence[Metric], objectives: Sequence[Metric], rule: RankRule
) -> list[float]:
    """Order a group by front, and within a front by crowding distance, the lonelier first; lower is better.

    This is the crowded comparison of NSGA-II (Deb, Pratap, Agarwal & Meyarivan, IEEE TEVC 2002, section III).

    Args:
        group: for each architecture its raw values ``[metric, repeat]``; repeats are averaged first.
        metrics: what the rows of a value are; those of ``rule`` come first.
        objectives: some of ``metrics``, in directions of their own, and ``score``, which stands for ``rule``.
        rule: what ``score`` is.
    """
    means = average(np.stack(group, axis=1), metrics)
    columns = {metric.name: mean for metric, mean in zip(metrics, means, strict=True)}
    columns["score"] = np.array(places([found[: len(rule.metrics)] for found in group], rule))
    table = objective_costs(columns, objectives)
    front = fronts(table)
    distance = np.zeros(len(table))
    for number in np.unique(front):
        distance[front == number] = crowding_distances(table[front == number])
    _, order = np.unique(np.stack([front, -distance], axis=1), axis=0, return_inverse=True)
    return [float(place) for place in order.ravel()]


def objective_costs(columns: Mapping[str, Array], objectives: Sequence[Metric]) -> Array:
    """Turn columns of values into costs ``[candidate, objective]``, the lower the better, at six significant digits."""
    signed = [-columns[each.name] if each.higher_is_better else columns[each.name] for each in objectives]
    return rounded(np.stack(signed, axis=1))


def fronts(costs: Array) -> Whole:
    """Number the Pareto front of every candidate, from 1: one that nobody beats, once the fronts before are set aside.

    A candidate beats another that is nowhere lower and somewhere higher; equal ones share a front. Candidates are
    inserted in lexicographic order, so that only those before can beat them, and their front is found by bisection
    (ENS-BS: Zhang, Tian, Cheng & Jin, IEEE TEVC 2015). Then the first cost is settled, and a member whose others are
    nowhere lower than a later member's need not be looked at again.

    Args:
        costs: ``[candidate, objective]``, the lower the better.
    """
    points, member = np.unique(costs, axis=0, return_inverse=True)
    others: list[Array] = []
    numbers = np.zeros(len(points), dtype=np.int64)
    for index, point in enumerate(points[:, 1:]):
        place = bisect_left(others, True, key=partial(_leaves_alone, point))
        if place == len(others):
            others.append(point[None])
        else:
            kept = others[place][(others[place] < point).any(axis=1)]
            others[place] = np.vstack([kept, point])
        numbers[index] = 1 + place
    return numbers[member.ravel()]


def _leaves_alone(point: Array, front: Array) -> bool:
    """Whether nobody of a front beats a point that comes after all of them, the first cost aside."""
    return not (front <= point).all(axis=1).any()


def crowding_distances(costs: Array) -> Array:
    """Sum over objectives of the gap between a candidate's two neighbours, in parts of the whole range.

    The best and the worst in an objective get ``inf``; an objective in which all are equal adds nothing.

    Args:
        costs: ``[candidate, objective]`` of one front.
    """
    distances = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        ascending = column[order]
        if ascending[-1] > ascending[0]:
            gaps = np.full(len(costs), np.inf)
            gaps[1:-1] = (ascending[2:] - ascending[:-2]) / (ascending[-1] - ascending[0])
            distances[order] += gaps
    return distances
