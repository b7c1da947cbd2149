"""Agreement of a score with a truth by plain loops over pairs and over every order that the score allows.

Scores and truths are higher-is-better; None is a score that is not known and comes last. Imports nothing from the
package.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise, permutations


def comparable(score: list[float | None]) -> list[float]:
    return [-math.inf if value is None else value for value in score]


def sign(a: float, b: float) -> int:
    return (a > b) - (a < b)


def kendall(score: list[float | None], truth: list[float]) -> float:
    """τ-b: concordant less discordant pairs, over the geometric mean of the pairs untied in each."""
    ours, pairs = comparable(score), [(i, j) for i in range(len(truth)) for j in range(i)]
    difference = sum(sign(ours[i], ours[j]) * sign(truth[i], truth[j]) for i, j in pairs)
    untied = [sum(values[i] != values[j] for i, j in pairs) for values in (ours, truth)]
    return difference / math.sqrt(untied[0] * untied[1]) if untied[0] * untied[1] else math.nan


def spearman(score: list[float | None], truth: list[float]) -> float:
    """Pearson's correlation of mean ranks."""
    ours, theirs = mean_ranks(comparable(score)), mean_ranks(truth)
    middle = (len(truth) + 1) / 2
    covariance = sum((a - middle) * (b - middle) for a, b in zip(ours, theirs, strict=True))
    spreads = [sum((rank - middle) ** 2 for rank in ranks) for ranks in (ours, theirs)]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if spreads[0] * spreads[1] else math.nan


def mean_ranks(values: list[float]) -> list[float]:
    return [
        1 + sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def orders(score: list[float | None]) -> Iterator[tuple[int, ...]]:
    """Every order of the rows in which no row stands behind a worse one; all are equally likely."""
    ours = comparable(score)
    for order in permutations(range(len(ours))):
        if all(ours[a] >= ours[b] for a, b in pairwise(order)):
            yield order


def expected(score: list[float | None], measure: Callable[[tuple[int, ...]], float]) -> float:
    found = [measure(order) for order in orders(score)]
    return sum(found) / len(found)


def ndcg(score: list[float | None], truth: list[float], k: int) -> float:
    low, high = min(truth), max(truth)

    def gained(order: tuple[int, ...]) -> float:
        return sum((truth[row] - low) / (high - low) / math.log2(place + 2) for place, row in enumerate(order[:k]))

    return expected(score, gained) / expected(list(truth), gained)


def top_k_recall(score: list[float | None], truth: list[float], k: int) -> float:
    needed = sorted(truth, reverse=True)[k - 1]
    return expected(score, lambda order: sum(truth[row] >= needed for row in order[:k]) / k)


def regret(score: list[float | None], truth: list[float], k: int) -> float:
    return expected(score, lambda order: max(truth) - max(truth[row] for row in order[:k]))
