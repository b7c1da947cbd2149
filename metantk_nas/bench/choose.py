"""Which few scores, their ranks added up, order architectures best?

All combinations of a few parts are compared by Kendall's τ with one truth or several, and the choice prefers few parts.
Among the combinations that are at most one standard error below the highest, those with the fewest parts remain, and of
them the highest is chosen. The standard error is that of the *difference* to the highest (jackknife over cells: Efron &
Stein, Annals of Statistics 1981), much smaller than that of either τ.

The best of many combinations looks good on the cells that chose it, whatever it is worth; see
`metantk_nas.bench.validate`.

Ranks are those among the cells given, as a search over just these cells would make them. Cells that lack a score come
last in every order, whatever it is made of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metantk_nas.bench.agreement import Array
from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.ordering import SCORE_DECIMALS, combine, part_ranks
from metantk_nas.scorers.registry import METRICS, OPPOSITE
from metantk_nas.types import Metric, RankRule

Form: TypeAlias = Literal["rank_sum", "dense_rank_sum", "log_rank_sum"]
Objective: TypeAlias = Literal["mean", "min"]
Indices: TypeAlias = tuple[int, ...]
Formed: TypeAlias = tuple[Indices, Form]

BLOCK = 1_024  # combinations that are in memory at a time


@dataclass(frozen=True, eq=False)
class Cells:
    """Architectures with their scores and one truth.

    Args:
        name: name of the truth.
        space: name of the search space.
        scores: raw scores, one column each, indexed by canonical key.
        truth: what the architectures reach, higher is better, in any unit, ``[cell]``.
    """

    name: str
    space: str
    scores: pd.DataFrame
    truth: Array

    def __len__(self) -> int:
        return len(self.truth)

    def keep(self, keys: set[str]) -> "Cells":
        """Keep the cells with these keys."""
        kept = self.scores.index.isin(keys)
        return Cells(self.name, self.space, self.scores[kept], self.truth[kept])

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """Which cells have all their scores."""
        known: NDArray[np.bool_] = np.isfinite(self.scores.to_numpy(float)).all(axis=1)
        return known

    def part_ranks(self, parts: Sequence[Metric], form: Form) -> Array:
        """Ranks of the cells that are scored, ``[part, cell]``, as ``form`` adds them up."""
        rule = RankRule(form, tuple(parts), form)
        ranks: Array = part_ranks(self._values(rule), rule)[:, 0]
        return ranks

    def order(self, rule: RankRule) -> Array:
        """Score all cells as ``rule`` does, ``[cell]``; lower is better, infinite where a score is lacking."""
        order: Array = self.spread(combine(self._values(rule), rule))[0]
        return order

    def spread(self, totals: Array) -> Array:
        """Give the cells that are not scored their place, ``[rule, scored cell]`` to ``[rule, cell]``."""
        spread = np.full((len(totals), len(self)), np.inf)
        spread[:, self.scored] = totals
        return spread

    def _values(self, rule: RankRule) -> Array:
        columns = [metric.name.removeprefix(OPPOSITE) for metric in rule.metrics]
        return self.scores.loc[self.scored, columns].to_numpy(float).T[:, None]


@dataclass(frozen=True)
class Search:
    """The combinations that are compared.

    A metric stands in a combination at most once, whichever its direction and the settings it was computed with: the
    name of a part is ``[~][settings/]metric``.

    Args:
        parts: what combinations are made of.
        forms: how ranks are combined; combinations of one part are compared in the first form only.
        required: parts that every combination has, in one of their directions and, where only the metric is named,
            with one of the settings.
        max_parts: size of the largest combination.
        objective: of the τ with several truths, their mean counts or the lowest.
        one_setting: let no combination mix metrics of different settings.
        limit: where more combinations of one size would be compared, only the best of the size before are extended …
        beam: … and this is how many.

    Raises:
        UsageError: a required part is not among the parts, or there is nothing to choose from.
    """

    parts: tuple[Metric, ...]
    forms: tuple[Form, ...] = ("rank_sum", "log_rank_sum")
    required: tuple[str, ...] = ()
    max_parts: int = 5
    objective: Objective = "mean"
    one_setting: bool = False
    limit: int = 100_000
    beam: int = 500

    def __post_init__(self) -> None:
        names = [part.name.removeprefix(OPPOSITE) for part in self.parts]
        if not names or not self.forms:
            raise UsageError("there is nothing to choose from; expected at least one part and one form.")
        for name in self.required:
            if not self._standing_for(name):
                raise unknown_name("required part", name, set(names))
        if self.max_parts < max(1, len(self.required)) or not self.starts():
            raise UsageError(
                f"no combination of at most {self.max_parts} parts has {', '.join(self.required)}; allow more parts "
                "or require fewer."
            )

    @cached_property
    def compatible(self) -> NDArray[np.bool_]:
        """Which parts may stand together, ``[part, part]``."""
        split = [_settings_and_metric(part.name) for part in self.parts]
        return np.array([[self._agree(one, other) for other in split] for one in split])

    def starts(self) -> list[Indices]:
        """List the smallest combinations: the required parts in all their variants, or else each part alone."""
        choices = [self._standing_for(name) for name in self.required] or [list(range(len(self.parts)))]
        found = {tuple(sorted(set(chosen))) for chosen in product(*choices)}
        return sorted(combination for combination in found if self._is_possible(combination))

    def extended(self, combinations: Sequence[Indices]) -> list[Indices]:
        """List the combinations that have one part more than these."""
        found = {
            tuple(sorted((*combination, int(part))))
            for combination in combinations
            for part in np.flatnonzero(self.compatible[list(combination)].all(axis=0))
        }
        return sorted(found)

    def rule(self, combination: Indices, form: Form) -> RankRule:
        """Make a ranking rule of a combination."""
        metrics = tuple(self.parts[part] for part in combination)
        return RankRule(", ".join(metric.name for metric in metrics), metrics, form)

    def _standing_for(self, name: str) -> list[int]:
        return [place for place, part in enumerate(self.parts) if name in _names(part.name)]

    def _agree(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        settings = {one[0], other[0]} - {""}
        return one[1] != other[1] and not (self.one_setting and len(settings) > 1)

    def _is_possible(self, combination: Indices) -> bool:
        pairs = self.compatible[np.ix_(combination, combination)]
        return int(pairs.sum()) == len(combination) * (len(combination) - 1)


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        rule: the combination with the fewest parts among those that can hardly be told from the highest.
        objective: its mean (or lowest) τ.
        standard_error: of its difference to the highest; 0 if it is the highest.
        top: the combinations with the highest objective, the highest first.
        top_objective: their objectives.
        n_compared: how many combinations were compared, each form counted.
    """

    rule: RankRule
    objective: float
    standard_error: float
    top: tuple[RankRule, ...]
    top_objective: tuple[float, ...]
    n_compared: int


def make_part(name: str, directions: Mapping[str, bool]) -> Metric:
    """Make a part of a combination from its name.

    Args:
        name: a column, or a metric that only one column has; with ``~`` before it against its direction.
        directions: by column, whether higher is better.

    Raises:
        UsageError: no column is called so, or several columns have the metric.
    """
    asked = name.removeprefix(OPPOSITE)
    columns = [asked] if asked in directions else [column for column in directions if asked in _names(column)]
    if not columns:
        raise unknown_name("score", asked, directions)
    if len(columns) > 1:
        raise UsageError(f"{asked!r} stands in several runs; name one of {', '.join(columns)}.")
    sign = name[: len(name) - len(asked)]
    known = METRICS.get(columns[0].rpartition("/")[2])
    averaging = "arithmetic" if known is None else known.averaging
    return Metric(f"{sign}{columns[0]}", directions[columns[0]] != bool(sign), "", "", averaging)


def kendall_many(scores: Array, truth: Array) -> tuple[Array, Array]:
    """Kendall's τ-b of many scores with one truth, and what it would be without each cell in turn.

    Args:
        scores: lower is better, infinity comes last, ``[score, cell]``.
        truth: higher is better, ``[cell]``.

    Returns:
        τ ``[score]`` and τ without a cell ``[score, cell]``; 0 where all scores are equal.
    """
    costs = np.ascontiguousarray(scores.T)
    truth_signs = np.sign(truth[:, None] - truth).astype(np.float32)  # sums of signs are exact in float32
    concordance, untied = np.empty_like(costs), np.empty_like(costs)
    for cell, own in enumerate(costs):
        signs = ((costs > own).view(np.int8) - (costs < own).view(np.int8)).astype(np.float32)
        concordance[cell] = truth_signs[cell] @ signs
        untied[cell] = np.abs(signs).sum(axis=0)
    by_cell = [concordance, untied, np.abs(truth_signs).sum(axis=1, dtype=float)[:, None]]
    whole = [sums.sum(axis=0) / 2 for sums in by_cell]
    others = [total - sums for total, sums in zip(whole, by_cell, strict=True)]
    return _tau(*whole), _tau(*others).T


def choose(cells: Sequence[Cells], search: Search, *, n_top: int = 10) -> Choice:
    """Choose a combination on all the cells given, see the top of this file.

    Args:
        cells: one for each truth.
        search: the combinations that are compared.
        n_top: how many of the highest are listed.
    """
    trial = _Trial(cells, search)
    tried, taus = trial.compare_all()
    objective = objective_of(taus, search.objective)
    order = np.lexsort((np.array([len(combination) for combination, _ in tried]), -objective))
    place, error = trial.simplest(tried, taus, order)
    head = order[:n_top]
    return Choice(
        search.rule(*tried[place]),
        float(objective[place]),
        error,
        tuple(search.rule(*tried[at]) for at in head),
        tuple(objective[head].tolist()),
        len(tried),
    )


def objective_of(taus: Array, objective: Objective) -> Array:
    """Make one figure of the τ with several truths, ``[rule, truth]`` to ``[rule]``."""
    figure: Array = taus.mean(axis=1) if objective == "mean" else taus.min(axis=1)
    return figure


class _Trial:
    """All combinations on one set of cells; their parts are ranked once."""

    def __init__(self, cells: Sequence[Cells], search: Search) -> None:
        self._cells, self._search = cells, search
        self._ranks = [np.vstack([each.part_ranks(search.parts, form) for form in search.forms]) for each in cells]
        keys = pd.MultiIndex.from_tuples([(each.space, key) for each in cells for key in each.scores.index])
        self._columns = np.split(pd.factorize(keys)[0], np.cumsum([len(each) for each in cells])[:-1])

    def compare_all(self) -> tuple[list[Formed], Array]:
        """Try every combination in every form; returns them and their τ ``[combination, truth]``."""
        tried, found = list[Formed](), list[Array]()
        level = self._search.starts()
        while level:
            formed = [(each, form) for each in level for form in self._search.forms[: None if len(each) > 1 else 1]]
            taus = np.concatenate([self._taus(formed[at : at + BLOCK]) for at in range(0, len(formed), BLOCK)])
            tried += formed
            found.append(taus)
            level = self._next(level, formed, objective_of(taus, self._search.objective))
        return tried, np.concatenate(found)

    def _next(self, level: list[Indices], formed: list[Formed], objective: Array) -> list[Indices]:
        """Extend all combinations by one part, or only the best where they would become too many."""
        search, size = self._search, len(level[0])
        if size >= search.max_parts:
            return []
        if len(level) * (len(search.parts) - size) / (size + 1) > search.limit:
            best_first = [formed[place][0] for place in np.argsort(-objective, kind="stable")]
            level = list(dict.fromkeys(best_first))[: search.beam]
        return search.extended(level)

    def _taus(self, formed: Sequence[Formed]) -> Array:
        """τ of every combination with every truth, ``[combination, truth]``."""
        return np.stack([tau for tau, _ in self._kendalls(formed)], axis=1)

    def _kendalls(self, formed: Sequence[Formed]) -> Iterator[tuple[Array, Array]]:
        """Yield for every truth what `kendall_many` finds."""
        n_parts, forms = len(self._search.parts), self._search.forms
        members = np.zeros((len(formed), n_parts * len(forms)))
        for row, (combination, form) in enumerate(formed):
            members[row, np.array(combination) + n_parts * forms.index(form)] = 1
        for each, ranks in zip(self._cells, self._ranks, strict=True):
            yield kendall_many(each.spread((members @ ranks).round(SCORE_DECIMALS)), each.truth)

    def simplest(self, tried: Sequence[Formed], taus: Array, order: NDArray[np.intp]) -> tuple[int, float]:
        """Find the smallest combination within a standard error of the highest.

        Args:
            tried: combinations and their forms.
            taus: their τ, ``[combination, truth]``.
            order: their places from the highest objective to the lowest.

        Returns:
            Its place in ``tried``, and the standard error of its difference to the highest.
        """
        below = objective_of(taus, self._search.objective)
        below = below[order[0]] - below
        highest = self._influence([tried[order[0]]], taus[order[:1]])
        sizes = np.array([len(tried[place][0]) for place in order])
        for size in np.unique(sizes):
            alike = order[sizes == size]
            for places in np.split(alike, range(BLOCK, len(alike), BLOCK)):
                influence = self._influence([tried[place] for place in places], taus[places])
                errors = np.sqrt(np.square(highest - influence).sum(axis=1))
                near = np.flatnonzero(below[places] <= errors)
                if near.size:
                    return int(places[near[0]]), float(errors[near[0]])
        raise AssertionError("the highest is within any distance of itself")

    def _influence(self, formed: Sequence[Formed], taus: Array) -> Array:
        """How much each cell moves the objective, ``[combination, cell]``; squares add up to the jackknife variance."""
        influence = np.zeros((len(formed), 1 + max(int(columns.max()) for columns in self._columns)))
        lowest = taus.argmin(axis=1)
        for truth, (_, without) in enumerate(self._kendalls(formed)):
            weight = np.full(len(formed), 1 / len(self._cells))
            if self._search.objective == "min":
                weight = (lowest == truth).astype(float)
            n_cells = without.shape[1]
            moved = (without.mean(axis=1, keepdims=True) - without) * np.sqrt((n_cells - 1) / n_cells)
            influence[:, self._columns[truth]] += weight[:, None] * moved
        return influence


def _tau(concordance: Array, untied: Array, truth_untied: Array) -> Array:
    pairs = np.sqrt(untied * truth_untied)
    return np.divide(concordance, pairs, out=np.zeros_like(concordance), where=pairs > 0)


def _names(part: str) -> set[str]:
    """By which names a part can be meant."""
    return {part, part.removeprefix(OPPOSITE), _settings_and_metric(part)[1]}


def _settings_and_metric(part: str) -> tuple[str, str]:
    settings, _, metric = part.removeprefix(OPPOSITE).rpartition("/")
    return settings, metric
