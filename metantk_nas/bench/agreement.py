"""How well a score orders architectures by a truth: five statistics, each with a bootstrap interval.

The truth is higher-is-better and finite. Of a score only its order counts; NaN comes last, all NaN being tied.

- ``kendall``: τ-b. Pairs tied in score or truth count for neither side and shrink the denominator (Kendall 1945).
- ``spearman``: ρ, Pearson's correlation of ranks; ties share their mean rank.
- ``ndcg``: Σ_{i≤k} g_i / log2(i + 1) over the score's best k, divided by the same sum for the truth's own order
  (Järvelin & Kekäläinen, ACM TOIS 2002). The gain g is linear: the truth scaled to [0, 1] over all architectures.
  Places that tied scores share have their mean gain, as in ``sklearn.metrics.ndcg_score``.
- ``top_k_recall``: share of the score's best k that are among the true best k: those no worse than the k-th best
  truth. A tie in the score across place k counts by its expected value: each of its members is as likely to be taken.
- ``regret``: best truth of all minus the best truth among the score's best k, in units of the truth, lower is better;
  a tie across place k counts by its expected value, too.

Intervals hold the middle 95 % of a bootstrap over architectures. All scores of a `Yardstick` share its resamples, so
the difference of two scores has an interval of its own, narrower than their two intervals suggest. A resample repeats
about a third of the architectures and leaves out as many: enough for τ and ρ, but a rough guide for ``regret`` and
``top_k_recall``, which hang on few of them. Above 2,000 architectures 200 resamples are drawn instead of 1,000.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.rng import numpy_generator

Array: TypeAlias = NDArray[np.float64]
Whole: TypeAlias = NDArray[np.int64]

TOP_K = 10
N_RESAMPLES, N_RESAMPLES_OF_MANY = 1_000, 200
MANY = 2_000  # architectures
LEVEL = 0.95
MIN_ROWS = 3
BLOCK = 1_024  # rows of the matrix of pairs that are in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A statistic and the interval of its bootstrap; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Placed:
    """The order of one score, and where its groups of ties fall in every draw.

    Args:
        levels: number of the distinct value of each row, the best the highest, ``[row]``.
        rows: rows from the best score to the worst, within a tie from the best truth to the worst.
        first: place in ``rows`` where each group of ties begins, ``[group]``.
        size: members of the group, copies counted, ``[group, draw]``.
        before: members of all better groups, ``[group, draw]``.
    """

    levels: Array
    rows: Whole
    first: Whole
    size: Array
    before: Array

    def sums(self, weights: Array) -> Array:
        """Add up weights ``[row, draw]`` over the members of each group, ``[group, draw]``."""
        return np.add.reduceat(weights[self.rows], self.first, axis=0)

    def by_row(self, groups: Array) -> Array:
        """Give each row what its group has, ``[group, draw]`` to ``[row, draw]``."""
        spread = np.empty((len(self.rows), groups.shape[1]))
        spread[self.rows] = np.repeat(groups, self.members, axis=0)
        return spread

    @property
    def members(self) -> Whole:
        """Rows of each group, ``[group]``."""
        return np.diff(self.first, append=len(self.rows))


@dataclass(frozen=True, eq=False)
class Yardstick:
    """A truth, and the resamples with which every score is held against it.

    Draw 0 is the sample itself and the others are resamples, so that one formula makes the estimate and its interval.

    Args:
        truth: higher is better, finite, in any unit, ``[row]``.
        top_k: size of the head for ``ndcg``, ``top_k_recall`` and ``regret``; where None, 10, or a quarter of the rows
            if they are fewer than 40.
        n_resamples: number of resamples; where None, 1,000, or 200 above 2,000 rows.
        seed: seed of the resamples.

    Raises:
        UsageError: fewer than three rows, all truths equal or one not finite, or an impossible ``top_k``.
    """

    truth: Array
    top_k: int | None = None
    n_resamples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        n_rows = len(self.truth)
        if n_rows < MIN_ROWS:
            raise UsageError(f"{n_rows} architectures have a truth and all scores; expected at least {MIN_ROWS}.")
        if not np.isfinite(self.truth).all():
            raise UsageError("a truth is not finite; leave out the architectures whose truth is not known.")
        if np.ptp(self.truth) == 0:
            raise UsageError(f"all {n_rows} truths are {self.truth[0]:g}; there is no order to find.")
        if not 1 <= self.k <= n_rows:
            raise UsageError(f"top k is {self.k}; expected 1 … {n_rows}, the number of architectures.")
        if self.n_resamples is not None and self.n_resamples < 1:
            raise UsageError(f"{self.n_resamples} resamples make no interval; expected at least 1.")

    @property
    def k(self) -> int:
        """Size of the head."""
        return max(1, min(TOP_K, len(self.truth) // 4)) if self.top_k is None else self.top_k

    def draws(self, score: ArrayLike, *, higher_is_better: bool = True) -> dict[str, Array]:
        """Every statistic of a score in every draw, ``[draw]``; NaN where it is not defined.

        Raises:
            UsageError: ``score`` has another number of rows than the truth.
        """
        placed = self._place(score, higher_is_better=higher_is_better)
        with np.errstate(divide="ignore", invalid="ignore"):  # a constant score has no correlation
            return {name: statistic(self, placed) for name, statistic in STATISTICS.items()}

    def measure(self, score: ArrayLike, *, higher_is_better: bool = True) -> dict[str, Estimate]:
        """Every statistic of a score, with its interval.

        Raises:
            UsageError: ``score`` has another number of rows than the truth.
        """
        draws = self.draws(score, higher_is_better=higher_is_better)
        return {name: estimate(found) for name, found in draws.items()}

    @cached_property
    def counts(self) -> Array:
        """How often each row occurs in each draw, ``[row, draw]``; once in draw 0."""
        n_rows = len(self.truth)
        n_resamples = self.n_resamples or (N_RESAMPLES if n_rows <= MANY else N_RESAMPLES_OF_MANY)
        rng = numpy_generator(self.seed, "correlate", "bootstrap")
        resamples = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=n_resamples)
        return np.vstack([np.ones(n_rows), resamples]).T.copy()

    @cached_property
    def ideal(self) -> Placed:
        """The truth's own order."""
        return self._place(self.truth, higher_is_better=True)

    @cached_property
    def weighted_midranks(self) -> Array:
        """Centred rank of the truth times the row's count, ``[row, draw]``."""
        return self.counts * self.ideal.by_row(_midranks(self.ideal))

    @cached_property
    def weighted_gains(self) -> Array:
        """Truth scaled to [0, 1] within the draw, times the row's count, ``[row, draw]``."""
        low = np.where(self.counts > 0, self.truth[:, None], np.inf).min(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            gains: Array = self.counts * (self.truth[:, None] - low) / (self.best - low)
        return gains

    @cached_property
    def ideal_gain(self) -> Array:
        """Discounted gain of the truth's own order, ``[draw]``."""
        return _discounted_gain(self, self.ideal)

    @cached_property
    def weighted_hits(self) -> Array:
        """Count of the rows that are among the true best k of the draw, else 0, ``[row, draw]``."""
        return self.counts * self.ideal.by_row((self.ideal.before < self.k).astype(float))

    @cached_property
    def best(self) -> Array:
        """Best truth of each draw, ``[draw]``."""
        found: Array = np.where(self.counts > 0, self.truth[:, None], -np.inf).max(axis=0)
        return found

    def _place(self, score: ArrayLike, *, higher_is_better: bool) -> Placed:
        values = np.asarray(score, dtype=float)
        if values.shape != self.truth.shape:
            raise UsageError(f"a score has the shape {values.shape}, the truth {self.truth.shape}; expected the same.")
        levels = np.nan_to_num(rankdata(values if higher_is_better else -values, method="dense", nan_policy="omit"))
        rows = np.lexsort((-self.truth, -levels))
        first = np.flatnonzero(np.diff(levels[rows], prepend=np.inf))
        size = np.add.reduceat(self.counts[rows], first, axis=0)
        return Placed(levels, rows, first, size, np.cumsum(size, axis=0) - size)


def paired_difference(
    score_a: ArrayLike,
    score_b: ArrayLike,
    truth: ArrayLike,
    statistic: str = "kendall",
    *,
    higher_is_better: tuple[bool, bool] = (True, True),
    top_k: int | None = None,
    n_resamples: int | None = None,
    seed: int = 0,
) -> Estimate:
    """How much larger a statistic is for one score than for another, on the same resamples.

    Args:
        score_a: the score whose statistic comes first, ``[row]``.
        score_b: the score whose statistic is taken off, ``[row]``.
        truth: higher is better, ``[row]``.
        statistic: name of a statistic.
        higher_is_better: directions of the two scores.
        top_k: as in `Yardstick`.
        n_resamples: as in `Yardstick`.
        seed: as in `Yardstick`.

    Raises:
        UsageError: an unknown statistic, or what `Yardstick` refuses.
    """
    if statistic not in STATISTICS:
        raise unknown_name("statistic", statistic, STATISTICS)
    yardstick = Yardstick(np.asarray(truth, dtype=float), top_k, n_resamples, seed)
    first, second = (
        yardstick.draws(score, higher_is_better=higher)[statistic]
        for score, higher in zip((score_a, score_b), higher_is_better, strict=True)
    )
    return estimate(first - second)


def estimate(draws: Array) -> Estimate:
    """Draw 0, and the interval that holds the middle 95 % of the other draws in which the statistic is defined."""
    defined = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or not defined.size:
        return Estimate(float(draws[0]), np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(draws[0]), float(low), float(high))


def _kendall(yardstick: Yardstick, placed: Placed) -> Array:
    """Sum over pairs of the product of signs: with counts w and a matrix M of signs, wᵀMw is all pairs of a draw."""
    counts = yardstick.counts.astype(np.float32)  # sums of signs are whole numbers that float32 holds exactly
    levels = [ranks.levels.astype(np.float32) for ranks in (placed, yardstick.ideal)]
    concordance = np.zeros(counts.shape[1])
    for start in range(0, len(counts), BLOCK):
        block = slice(start, start + BLOCK)
        ours, truths = (np.sign(level[block, None] - level[start:]) for level in levels)
        partners = counts[start:].copy()
        partners[BLOCK:] *= 2  # M is symmetric: what lies left of the block was counted from the other side
        concordance += np.einsum("rd,rd->d", yardstick.counts[block], (ours * truths) @ partners)
    n_pairs = [len(counts) ** 2 - np.square(ranks.size).sum(axis=0) for ranks in (placed, yardstick.ideal)]
    tau: Array = concordance / np.sqrt(n_pairs[0] * n_pairs[1])
    return tau


def _spearman(yardstick: Yardstick, placed: Placed) -> Array:
    ranks, truths = _midranks(placed), _midranks(yardstick.ideal)
    covariance = (ranks * placed.sums(yardstick.weighted_midranks)).sum(axis=0)
    variances = (placed.size * ranks**2).sum(axis=0) * (yardstick.ideal.size * truths**2).sum(axis=0)
    correlation: Array = covariance / np.sqrt(variances)
    return correlation


def _midranks(placed: Placed) -> Array:
    """Mean rank of each group, less the mean of all ranks, ``[group, draw]``."""
    centred: Array = placed.before + (placed.size - len(placed.rows)) / 2
    return centred


def _ndcg(yardstick: Yardstick, placed: Placed) -> Array:
    return _discounted_gain(yardstick, placed) / yardstick.ideal_gain


def _discounted_gain(yardstick: Yardstick, placed: Placed) -> Array:
    """Sum over groups of their mean gain times the discounts of their places, ``[draw]``."""
    places = np.arange(1, len(placed.rows) + 1)
    discounts = np.append(0.0, np.cumsum(np.where(places <= yardstick.k, 1 / np.log2(places + 1), 0)))
    first, last = placed.before.astype(int), (placed.before + placed.size).astype(int)
    shares = (discounts[last] - discounts[first]) / np.maximum(placed.size, 1)
    gained: Array = (shares * placed.sums(yardstick.weighted_gains)).sum(axis=0)
    return gained


def _top_k_recall(yardstick: Yardstick, placed: Placed) -> Array:
    taken = np.clip(yardstick.k - placed.before, 0, placed.size) / np.maximum(placed.size, 1)
    expected: Array = (taken * placed.sums(yardstick.weighted_hits)).sum(axis=0)
    return expected / yardstick.k


def _regret(yardstick: Yardstick, placed: Placed) -> Array:
    """Best of all less the expected best of the head: of groups that lie in it, and of the one that its end cuts.

    From a group of u members m are drawn. None of its c best is drawn with probability C(u − c, m) / C(u, m).
    """
    k, truth, counts = yardstick.k, yardstick.truth[placed.rows], yardstick.counts[placed.rows]
    end = placed.before + placed.size
    inside = np.repeat(end <= k, placed.members, axis=0) & (counts > 0)
    sure = np.where(inside, truth[:, None], -np.inf).max(axis=0)
    cut = (placed.before < k) & (k < end)
    row, draw = np.nonzero(np.repeat(cut, placed.members, axis=0) & (counts > 0))
    group = np.repeat(np.arange(len(placed.first)), placed.members)[row]
    size, n_drawn = placed.size[group, draw].astype(int), (k - placed.before[group, draw]).astype(int)
    until = (np.cumsum(counts, axis=0)[row, draw] - placed.before[group, draw]).astype(int)
    n_better = until - counts[row, draw].astype(int)
    chance = _chance_of_none(n_better, size, n_drawn) - _chance_of_none(until, size, n_drawn)
    expected = np.bincount(draw, chance * np.maximum(sure[draw], truth[row]), minlength=counts.shape[1])
    return yardstick.best - np.where(cut.any(axis=0), expected, sure)


def _chance_of_none(n_special: Whole, size: Whole, n_drawn: Whole) -> Array:
    """Chance that ``n_drawn`` of ``size``, drawn without replacement, hold none of ``n_special``."""
    factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, size.max(initial=0) + 1))))
    others = size - n_special
    possible = others >= n_drawn
    spare = np.where(possible, others - n_drawn, 0)
    chance = np.exp(factorial[others] - factorial[spare] + factorial[size - n_drawn] - factorial[size])
    return np.where(possible, chance, 0.0)


STATISTICS: Mapping[str, Callable[[Yardstick, Placed], Array]] = {
    "kendall": _kendall,
    "spearman": _spearman,
    "ndcg": _ndcg,
    "top_k_recall": _top_k_recall,
    "regret": _regret,
}
"""Every statistic by name."""
