"""What a choice of scores is worth: made on one half of the cells, measured on the other, many times.

The best of many combinations always looks good on the cells that chose it. So the cells are divided in halves many
times: on the first half of a division a combination is chosen, on the second it is measured, and only the second figure
says what such a choice is worth. Rules that are fixed beforehand are measured on the same second halves. Halves overlap
between divisions: their spread says how much depends on the cells, and is no standard error of the mean.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from metantk_nas.bench.agreement import Estimate, Yardstick, estimate
from metantk_nas.bench.choose import Cells, Choice, Objective, Search, choose, kendall_many, objective_of
from metantk_nas.rng import child_seed
from metantk_nas.types import RankRule

CHOSEN, HIGHEST, BEST_BASELINE = "chosen", "highest", "best_baseline"
"""Names of what is chosen anew on every first half: by the whole rule, by τ alone, and the best of the baselines."""
TOP = 5  # cells whose mean truth is the lift
_SUMMARY = {
    "kendall": ("kendall", "mean"),
    "kendall_sd": ("kendall", "std"),
    "kendall_min": ("kendall", "min"),
    "kendall_max": ("kendall", "max"),
    "spearman": ("spearman", "mean"),
    "kendall_choosing": ("kendall_choosing", "mean"),
    "over_baseline": ("over_baseline", "mean"),
    "over_baseline_sd": ("over_baseline", "std"),
    "wins": ("wins", "mean"),
    "lift": ("lift", "mean"),
    "percentile": ("percentile", "mean"),
}


@dataclass(frozen=True, eq=False)
class Validation:
    """Choices on first halves, and what they and the fixed rules are worth on the second.

    Args:
        chosen: one row a division: ``split``, ``rule``, ``combine``, ``n_parts``, ``kendall_choosing`` (the objective
            on the first half), ``standard_error``, ``highest`` and its ``highest_choosing``, and ``n_compared``.
        figures: one row a division, truth and rule: ``split``, ``truth``, ``rule``, ``kendall``, ``spearman``, ``lift``
            and ``percentile`` on the second half, ``kendall_choosing`` (τ on the first) and ``over_baseline``: τ less
            that of the baseline that was best on the first half; NaN where there is no baseline.
    """

    chosen: pd.DataFrame
    figures: pd.DataFrame


def halves(cells: Sequence[Cells], seed: int, number: int) -> tuple[list[Cells], list[Cells]]:
    """Divide the cells in two; a cell that several truths know lies in the same half of each."""
    first, second = [], []
    for each in cells:
        keys = sorted({key for other in cells if other.space == each.space for key in other.scores.index})
        drawn = sorted(keys, key=lambda key: child_seed(seed, "choose", number, key))
        first.append(each.keep(set(drawn[: len(drawn) // 2])))
        second.append(each.keep(set(drawn[len(drawn) // 2 :])))
    return first, second


def validate(
    cells: Sequence[Cells],
    search: Search,
    baselines: Mapping[str, RankRule],
    others: Mapping[str, RankRule],
    *,
    n_splits: int = 20,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Validation:
    """Choose on one half of the cells and measure on the other, many times.

    Args:
        cells: one for each truth.
        search: the combinations that are compared.
        baselines: rules that a choice has to beat, by name.
        others: fixed rules that are measured, too, by name.
        n_splits: how many divisions.
        seed: seed of the divisions.
        progress: told how many divisions are done.

    Raises:
        UsageError: a half has fewer than three cells or only one truth.
    """
    chosen, figures = [], []
    for split in range(n_splits):
        first, second = halves(cells, seed, split)
        choice = choose(first, search, n_top=1)
        rules = {CHOSEN: choice.rule, HIGHEST: choice.top[0], **baselines, **others}
        if baselines:
            rules[BEST_BASELINE] = _best(first, baselines, search.objective)
        figures += [{"split": split, **row} for row in _held_out(first, second, rules)]
        chosen.append({"split": split, **_told(choice)})
        if progress:
            progress(split + 1)
    return Validation(pd.DataFrame(chosen), pd.DataFrame(figures))


def summarize(figures: pd.DataFrame, objective: Objective = "mean") -> pd.DataFrame:
    """Average the figures of a validation over its divisions.

    Args:
        figures: see `Validation`.
        objective: with several truths there are also rows of all of them, with the mean or the lowest figure that each
            division has.

    Returns:
        One row a truth and rule, in their order: ``kendall`` (mean), ``kendall_sd``, ``kendall_min``, ``kendall_max``,
        ``spearman``, ``kendall_choosing``, ``over_baseline``, ``over_baseline_sd``, ``wins`` (share of the divisions in
        which τ is above that of the best baseline), ``lift`` and ``percentile``.
    """
    if len(figures["truth"].unique()) > 1:
        together = figures.groupby(["split", "rule"], sort=False).agg(objective, numeric_only=True).reset_index()
        figures = pd.concat([figures, together.assign(truth=f"({objective})")], ignore_index=True)
    figures = figures.assign(wins=(figures["over_baseline"] > 0).where(figures["over_baseline"].notna()).astype(float))
    groups = figures.groupby(["truth", "rule"], sort=False)
    columns = {name: groups[figure].agg(how) for name, (figure, how) in _SUMMARY.items()}
    return pd.DataFrame(columns).reset_index()


def on_all_cells(
    cells: Sequence[Cells],
    rules: Mapping[str, RankRule],
    baselines: Mapping[str, RankRule],
    *,
    n_resamples: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure rules on all cells, with bootstrap intervals.

    A rule that these cells have chosen looks better here than it is; for others the figures are fair.

    Args:
        cells: one for each truth.
        rules: what is measured, by name; baselines are measured after them.
        baselines: rules to beat, by name.
        n_resamples: see `Yardstick`.
        seed: seed of the resamples.

    Returns:
        One row a truth and rule: ``truth``, ``rule``, ``kendall`` and ``spearman`` with ``_low`` and ``_high``,
        ``lift``, ``percentile``, ``baseline`` (the best for this truth; empty for baselines) and ``over_baseline``: the
        paired difference of τ to it, with ``_low`` and ``_high``.
    """
    rows: list[dict[str, object]] = []
    for each in cells:
        yardstick = Yardstick(each.truth, n_resamples=n_resamples, seed=seed)
        every = {**rules, **baselines}
        draws = {name: yardstick.draws(each.order(rule), higher_is_better=False) for name, rule in every.items()}
        best = max(baselines, key=lambda name: np.nan_to_num(draws[name]["kendall"][0], nan=-1), default="")
        for name, rule in every.items():
            row: dict[str, object] = {"truth": each.name, "rule": name}
            for statistic in ("kendall", "spearman"):
                row |= _cells_of(statistic, estimate(draws[name][statistic]))
            row |= dict(zip(("lift", "percentile"), lift(each, rule), strict=True))
            if best and name not in baselines:
                lead = estimate(draws[name]["kendall"] - draws[best]["kendall"])
                row |= {"baseline": best, **_cells_of("over_baseline", lead)}
            rows.append(row)
    return pd.DataFrame(rows)


def lift(cells: Cells, rule: RankRule, k: int = TOP) -> tuple[float, float]:
    """How much better than the average the rule's best are.

    Returns:
        Mean truth of the best ``k`` less the mean of all, in units of the truth, and the percentage of all cells whose
        truth is below that of the best ``k``. Cells that tie across place ``k`` count by their chance to be taken.
    """
    place = rankdata(cells.order(rule), method="min")
    size = (place[:, None] == place).sum(axis=1)
    shares = np.clip(k + 1 - place, 0, size) / size
    mean = float(shares @ cells.truth / shares.sum())
    return mean - float(cells.truth.mean()), 100 * float((cells.truth < mean).mean())


def _best(cells: Sequence[Cells], rules: Mapping[str, RankRule], objective: Objective) -> RankRule:
    """Find the rule with the highest objective."""
    taus = [kendall_many(np.stack([each.order(rule) for rule in rules.values()]), each.truth)[0] for each in cells]
    return list(rules.values())[int(objective_of(np.stack(taus, axis=1), objective).argmax())]


def _held_out(
    first: Sequence[Cells], second: Sequence[Cells], rules: Mapping[str, RankRule]
) -> Iterator[dict[str, object]]:
    for before, after in zip(first, second, strict=True):
        choosing, found = _correlations(before, rules), _correlations(after, rules)
        baseline = found[BEST_BASELINE]["kendall"] if BEST_BASELINE in rules else np.nan
        for name, rule in rules.items():
            gained, percentile = lift(after, rule)
            yield {
                "truth": after.name,
                "rule": name,
                **found[name],
                "kendall_choosing": choosing[name]["kendall"],
                "over_baseline": found[name]["kendall"] - baseline,
                "lift": gained,
                "percentile": percentile,
            }


def _correlations(cells: Cells, rules: Mapping[str, RankRule]) -> dict[str, dict[str, float]]:
    """τ and ρ of every rule; 0 where it tells no cells apart."""
    yardstick = Yardstick(cells.truth, n_resamples=1)
    found = {name: yardstick.draws(cells.order(rule), higher_is_better=False) for name, rule in rules.items()}
    return {
        name: {statistic: float(np.nan_to_num(draws[statistic][0])) for statistic in ("kendall", "spearman")}
        for name, draws in found.items()
    }


def _told(choice: Choice) -> dict[str, object]:
    return {
        "rule": choice.rule.name,
        "combine": choice.rule.combine,
        "n_parts": len(choice.rule.metrics),
        "kendall_choosing": choice.objective,
        "standard_error": choice.standard_error,
        "highest": choice.top[0].name,
        "highest_combine": choice.top[0].combine,
        "highest_choosing": choice.top_objective[0],
        "n_compared": choice.n_compared,
    }


def _cells_of(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
