"""How several metrics make one order."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from metantk_nas.types import RankRule

Array: TypeAlias = NDArray[np.float64]

SCORE_DECIMALS = 12
"""Digits to which sums of ranks are compared: the order of adding logarithms must not break a tie."""


def combine(values: Array, rule: RankRule) -> Array:
    """Combine metric ranks into scores, ``(metric, draw, candidate)`` to ``(draw, candidate)``; lower is better."""
    directed = [-part if metric.higher_is_better else part for part, metric in zip(values, rule.metrics, strict=True)]
    ties: Literal["dense", "average"] = "dense" if rule.combine == "dense_rank_sum" else "average"
    ranks = rankdata(rounded(np.stack(directed)), method=ties, axis=-1)
    if rule.combine == "log_rank_sum":
        n_candidates = ranks.shape[-1]
        ranks = -np.log((n_candidates + 1 - ranks) / n_candidates)
    combined: Array = ranks.sum(axis=0).round(SCORE_DECIMALS)
    return combined


def rounded(values: Array) -> Array:
    """Round to six significant digits, so that the last bits of a sum do not decide an order."""
    return np.array([float(f"{value:.5e}") for value in values.flat]).reshape(values.shape)


def places(group: Sequence[Array], rule: RankRule) -> list[float]:
    """Score a group of architectures among each other as `rule` does; lower is better.

    Args:
        group: for each architecture its raw values ``[metric, repeat]``, in the order of ``rule.metrics``.
        rule: how they are compared; repeats are averaged first.
    """
    means = np.stack([found.mean(axis=1) for found in group], axis=-1)
    scores: list[float] = combine(means[:, None], rule)[0].tolist()
    return scores
