"""From raw scores to a ranking, and the files a run leaves behind.

``repeat_table`` gathers scores, ``aggregate`` averages them over repeats, ``rank`` orders the candidates and
``rank_interval`` says how sure that order is; ``make_ranking`` does all four.

The order, exactly:

1. Only candidates whose status is ``"ok"`` are compared. All others share the rank after the last of them; they keep
   their raw values, which never enter a rank.
2. Each metric of the rule ranks the *distinct* candidates in its own direction, ties sharing the average rank. Values
   are compared at six significant digits. Members of one canonical key share their values and count once.
3. ``score`` is, by ``rule.combine``, the sum over metrics of the rank r (with ``dense_rank_sum``, of ranks that ties
   share without a gap, as in TE-NAS and MetaNTK-NAS), or of −log((m + 1 − r) / m) among m distinct
   candidates: AZ-NAS (Lee & Ham, CVPR 2024, eq. 12) with its sign turned. The logarithm punishes being last in
   anything; being first everywhere gives 0. **Lower is better.**
4. ``rank`` is 1 + the number of candidates with a lower score, so members of one key share it and the next rank skips
   (1, 1, 1, 4). Rows of one rank follow in the order of key and text.
5. Where the rule has a metric that breaks ties, (r − 1) / (2m) of its rank r is added to a sum of ranks: less than the
   one half by which sums differ.

With objectives there is also ``pareto``, the number of the Pareto front among all candidates whose status is ``"ok"``
and that have a value of every objective: nobody is better than front 1 in one objective and as good in all others.
"""

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from metantk_nas.errors import RunError, UsageError, brief, brief_text, unknown_name
from metantk_nas.ordering import Array, average, combine, fronts, objective_costs, rounded
from metantk_nas.rng import numpy_generator
from metantk_nas.store import Candidate, json_text
from metantk_nas.types import Metric, RankRule, Score

Places: TypeAlias = NDArray[np.integer[Any]]

JSON_SCHEMA_VERSION = 1
MAX_COLUMNS, MAX_HEAD = 1_000, 1_000_000
"""Of a CSV file; bytes in which its names are counted."""
SCREENED_OUT = "screened_out"
"""Status of a candidate that a first look kept from being scored."""
_NO_SIGNAL = "no_signal"
"""Status of a network whose output does not depend on its input."""
_HEAD = ("rank", "arch", "key", "status", "reason", "score", "rank_low", "rank_high")
_TAIL = ("params", "macs", "seconds", "seed")
_TEXT = ("arch", "key", "status", "reason")
_WHOLE = ("rank", "params", "macs", "seed")
_INTERVAL = ("rank_low", "rank_high")
_FRONT = "pareto"
_ALSO = "rank_"
"""What the name of a column begins with that holds the ranks by another rule."""
NO_METRICS: Mapping[str, Metric] = {}


def repeat_table(scores: Iterable[Score]) -> pd.DataFrame:
    """Gather scores: one row per key and repeat, one column per metric, NaN where a metric was not measured.

    ``status`` and ``reason`` are those of the first scorer that found trouble, or of the first that found no signal,
    since that explains the trouble of others. A scorer that reports ``"ok"`` with a
    value that is not finite gets the status ``"not_finite"``. ``seconds`` adds up over scorers.

    Returns:
        Frame indexed by ``(key, repeat)``, sorted, with columns ``status``, ``reason``, ``seconds`` and the metrics.

    Raises:
        RunError: two scores of one key and repeat carry the same metric.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for score in scores:
        row = rows.setdefault((score.key, score.repeat), {"status": "ok", "reason": "", "seconds": 0.0})
        values = score.values  # noqa: PD011, a Score is no data frame
        if twice := row.keys() & values.keys():
            raise RunError(
                f"{', '.join(sorted(twice))} of key {score.key!r} in repeat {score.repeat} comes from two scores, "
                f"the second of {score.scorer!r}; a metric belongs to one scorer."
            )
        row.update(values)
        row["seconds"] += score.seconds
        status, reason = _status(score, values)
        if row["status"] == "ok" or (status == _NO_SIGNAL and row["status"] != _NO_SIGNAL):
            row["status"], row["reason"] = status, reason
    index = pd.MultiIndex.from_tuples(rows, names=["key", "repeat"])
    columns = dict.fromkeys(["status", "reason", "seconds", *(name for row in rows.values() for name in row)])
    table = pd.DataFrame(list(rows.values()), index=index, columns=list(columns))
    return table.astype({"status": str, "reason": str, "seconds": float}).sort_index()


def _status(score: Score, values: Mapping[str, float]) -> tuple[str, str]:
    strange = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if score.status == "ok" and strange:
        return "not_finite", ", ".join(strange)
    return score.status, score.reason


def aggregate(table: pd.DataFrame, metrics: Mapping[str, Metric] = NO_METRICS) -> pd.DataFrame:
    """Average each metric over the repeats that measured it.

    Args:
        table: what ``repeat_table`` returns.
        metrics: by name, what says how a metric is averaged; the arithmetic mean for others.

    Returns:
        Frame indexed by key: ``status`` (``"ok"`` only if every repeat is), ``reason`` (of the first repeat that is
        not), the mean ``x`` and the sample standard deviation ``x_sd`` of each metric ``x`` (NaN from one repeat: the
        spread is unknown, not zero) and ``seconds``, the sum. A metric that is measured once for all repeats brings
        its ``x_sd`` along.
    """
    by_key = table.groupby(level="key")
    frame = pd.DataFrame(index=by_key.size().index)
    trouble = table[table["status"] != "ok"].reset_index("repeat").groupby(level="key").first()
    reasons = "repeat " + trouble["repeat"].astype(str) + ": " + trouble["reason"]
    frame["status"] = trouble["status"].reindex(frame.index).fillna("ok")
    frame["reason"] = reasons.reindex(frame.index).fillna("")
    brought = [f"{name}_sd" for name in table.columns if f"{name}_sd" in table.columns]
    names = [name for name in table.columns if name not in {"status", "reason", "seconds", *brought}]
    geometric = [name for name in names if name in metrics and metrics[name].averaging == "geometric"]
    mean, deviation = by_key[names].mean(), by_key[names].std().add_suffix("_sd")
    deviation[brought] = by_key[brought].mean()
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 makes the mean 0, a negative value makes it NaN
        logarithms = table[geometric].apply(np.log).groupby(level="key").mean()
    mean[geometric] = logarithms.apply(np.exp).mask(by_key[geometric].min() < 0)
    for name in names:
        frame[name], frame[f"{name}_sd"] = mean[name], deviation[f"{name}_sd"]
    frame["seconds"] = by_key["seconds"].sum()
    return frame


def rank(frame: pd.DataFrame, rule: RankRule) -> pd.DataFrame:
    """Order candidates, best first, and add the columns ``rank`` and ``score`` (see the top of this file).

    Args:
        frame: one row per candidate with ``arch``, ``key``, ``status``, ``reason`` and the metrics of ``rule``.
        rule: which metrics, and how their ranks combine.

    Returns:
        All rows of ``frame``, none dropped. A row that is ``"ok"`` but lacks a value of the rule becomes
        ``"not_scored"``; its ``score`` is NaN like that of every row that is not ``"ok"``.

    Raises:
        UsageError: ``frame`` lacks a metric of ``rule``, or ``rule`` has none or one of them twice.
    """
    names = _metric_names(frame, rule)
    ranked = frame.copy()
    values, ok = ranked[names].to_numpy(float), ranked["status"].eq("ok").to_numpy()
    for name, lacking in zip(names, ~np.isfinite(values.T), strict=True):
        ranked.loc[ok & lacking, "reason"] = f"no finite value of {name}"
        ranked.loc[ok & lacking, "status"] = "not_scored"
    ok = ok & np.isfinite(values).all(axis=1)
    first, member = _distinct(ranked[ok], names)
    scores = combine(values[ok].T[:, None, first], rule)[0, member]
    ranked["score"], ranked["rank"] = np.nan, int(ok.sum()) + 1
    ranked.loc[ok, "score"] = scores
    ranked.loc[ok, "rank"] = rankdata(scores, method="min").astype(int)
    return ranked.sort_values(["rank", "key", "arch"], kind="stable", ignore_index=True)


def rank_interval(
    ranked: pd.DataFrame, table: pd.DataFrame, rule: RankRule, *, seed: int, n_resamples: int = 200, level: float = 0.9
) -> pd.DataFrame:
    """Bootstrap the repeats: in which interval does a candidate's rank lie?

    A resample draws as many repeats as there are, with replacement and the same for all candidates (they share
    initialisations and episodes), averages each metric over them and ranks again by the same rule. Few repeats give
    few different resamples, so the interval is a hint at stability rather than a confidence statement.

    Args:
        ranked: what ``rank`` returns.
        table: what ``repeat_table`` returns. A metric of the rule that is not in it is taken as constant.
        rule: the rule that made ``ranked``.
        seed: seed of the run.
        n_resamples: number of resamples.
        level: probability inside the interval; 0.9 spans the 5 % to the 95 % quantile.

    Returns:
        Whole-numbered columns ``rank_low`` and ``rank_high``, aligned with ``ranked``; missing for candidates that are
        not ``"ok"`` and for all candidates of a run with one repeat, where nothing is known.
    """
    repeats = sorted(set(table.index.get_level_values("repeat")))
    ok = ranked["status"].eq("ok").to_numpy()
    edges = np.full((2, len(ranked)), np.nan)
    if len(repeats) > 1 and ok.any():
        first, member = _distinct(ranked[ok], [metric.name for metric in rule.metrics])
        units = ranked[ok].iloc[first]
        draws = numpy_generator(seed, "bootstrap").integers(len(repeats), size=(n_resamples, len(repeats)))
        distinct_draws, occurrence = np.unique(np.sort(draws, axis=1), axis=0, return_inverse=True)
        values = np.stack([_repeat_values(units, table, metric.name, repeats) for metric in rule.metrics])
        means = np.stack([average(values[:, :, draw], rule.metrics) for draw in distinct_draws], axis=1)
        ranks = rankdata(combine(means, rule)[:, member], method="min", axis=1).astype(np.int32)
        tail = (1 - level) / 2
        edges[:, ok] = np.quantile(ranks[occurrence.ravel()], [tail, 1 - tail], axis=0, method="inverted_cdf")
    return pd.DataFrame(dict(zip(_INTERVAL, edges, strict=True)), index=ranked.index).astype("Int64")


def _metric_names(frame: pd.DataFrame, rule: RankRule) -> list[str]:
    names = [metric.name for metric in rule.metrics]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"the rule {rule.name!r} ranks by {names}; expected at least one metric and each of them once."
        )
    for name in names:
        if name not in frame.columns:
            raise unknown_name("metric", name, set(frame.columns) - {*_HEAD, "seconds", "seed"})
    return names


def _distinct(frame: pd.DataFrame, names: list[str]) -> tuple[Places, Places]:
    """Find the rows that differ in key or in a metric: their first positions, and to which of them each row belongs."""
    compared = pd.DataFrame({"key": frame["key"].to_numpy()})
    for name in names:
        compared[name] = rounded(frame[name].to_numpy(float))
    member = compared.groupby(list(compared.columns), sort=False).ngroup().to_numpy()
    return np.unique(member, return_index=True)[1], member


def _repeat_values(units: pd.DataFrame, table: pd.DataFrame, name: str, repeats: list[int]) -> Array:
    """Values of one metric, ``(candidate, repeat)``; where a repeat did not measure it, the candidate's mean."""
    mean = np.repeat(units[name].to_numpy(float)[:, None], len(repeats), axis=1)
    if name not in table.columns:
        return mean
    wanted = pd.MultiIndex.from_product([units["key"], repeats])
    measured = table[name].reindex(wanted).to_numpy(float).reshape(mean.shape)
    return np.where(np.isnan(measured), mean, measured)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates, best first: a thin shell around a data frame with the columns of ``ranking.csv``.

    Args:
        frame: one row per candidate, ordered.
        manifest: what made the ranking (command, space, seed, versions …).
        builder: makes a network from the text of an architecture; given by whoever knows the search space.
    """

    frame: pd.DataFrame
    manifest: Mapping[str, object] = field(default_factory=dict)
    builder: Callable[[str], Any] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> "Iterator[pd.Series[Any]]":
        return (row for _, row in self.frame.iterrows())

    def top(self, k: int) -> "Ranking":
        """Keep the best ``k`` candidates that are ``"ok"``, one of each canonical key: ``k`` different functions.

        Raises:
            UsageError: ``k`` is not positive.
        """
        if k < 1:
            raise UsageError(f"top({k}) asks for no candidate; expected a number of at least 1.")
        distinct = self.frame[self.frame["status"] == "ok"].drop_duplicates("key")
        return Ranking(distinct.head(k).reset_index(drop=True), self.manifest, self.builder)

    def front(self) -> "Ranking":
        """Keep the first Pareto front, one of each canonical key, in the order of ``rank``.

        Raises:
            UsageError: the ranking was made without objectives.
        """
        if _FRONT not in self.frame.columns:
            raise UsageError(
                "this ranking has no Pareto fronts; run the search with --pareto params,score, for example."
            )
        first = self.frame[self.frame[_FRONT].eq(1).fillna(False)].drop_duplicates("key")
        return Ranking(first.reset_index(drop=True), self.manifest, self.builder)

    def build(self, row: "Mapping[str, Any] | pd.Series[Any]") -> Any:
        """Build the network of one row of this ranking.

        Raises:
            UsageError: the ranking was made without a builder, for example read from a bare CSV file.
        """
        if self.builder is None:
            raise UsageError("this ranking does not know its search space; build from the text in row['arch'] instead.")
        return self.builder(row["arch"])

    def save(self, path: Path) -> None:
        """Write the frame as CSV, all at once; floats keep all their digits, NaN becomes an empty cell.

        Raises:
            UsageError: the file cannot be written.
        """
        write_text(path, self.frame.to_csv(index=False, lineterminator="\n"))

    @classmethod
    def load(cls, path: Path, manifest: Mapping[str, object] | None = None) -> "Ranking":
        """Read what ``save`` wrote.

        Raises:
            RunError: the file is missing or is not a ranking.
        """
        try:
            check_width(path)
            cells = pd.read_csv(path, dtype=str, keep_default_na=False)
            if absent := [name for name in (*_HEAD, *_TAIL) if name not in cells.columns]:
                raise ValueError(f"it lacks the columns {', '.join(absent)}")
            frame = pd.DataFrame({name: _read_column(name, cells[name]) for name in cells.columns})
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise RunError(
                f"cannot read the ranking {path}: {brief_text(error)}. Run the search again to rebuild it."
            ) from error
        return cls(frame, manifest or {})


def check_width(path: Path) -> None:
    """Refuse a CSV file with absurdly many columns, which would take hours to read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has more than `MAX_COLUMNS`.
    """
    with path.open("rb") as file:
        n_columns = 1 + next(iter(file.read(MAX_HEAD).splitlines()), b"").count(b",")
    if n_columns > MAX_COLUMNS:
        raise ValueError(f"it has {n_columns:,} columns; expected at most {MAX_COLUMNS:,}")


def _read_column(name: str, cells: "pd.Series[str]") -> "pd.Series[Any]":
    """Turn the text of a column into its values; Python reads floats exactly, a CSV reader may not."""
    if name in _TEXT:
        return cells
    if name in _WHOLE:
        return cells.astype("int64")
    numbers = pd.Series([float(cell) if cell else math.nan for cell in cells], dtype=float)
    return numbers.astype("Int64") if name == _FRONT or name.startswith(_ALSO) else numbers


def pareto_front(ranked: pd.DataFrame, objectives: Sequence[Metric]) -> "pd.Series[Any]":
    """Number the Pareto front of each row, from 1; missing where a row is not ``"ok"`` or lacks an objective.

    Args:
        ranked: what ``rank`` returns, with the columns of all objectives.
        objectives: names of columns and their directions.
    """
    columns = {each.name: ranked[each.name].to_numpy(float) for each in objectives}
    costs = objective_costs(columns, objectives)
    ok = ranked["status"].eq("ok").to_numpy() & np.isfinite(costs).all(axis=1)
    numbers = pd.Series(pd.NA, index=ranked.index, dtype="Int64")
    numbers[ok] = fronts(costs[ok])
    return numbers


def make_ranking(
    candidates: Iterable[Candidate],
    scores: Iterable[Score],
    rule: RankRule,
    seed: int,
    *,
    objectives: Sequence[Metric] = (),
    also: Sequence[RankRule] = (),
    metrics: Mapping[str, Metric] = NO_METRICS,
    screened_out: Mapping[str, str] | None = None,
) -> Ranking:
    """Rank candidates by their scores.

    A candidate without any score, or without a value that ``rule`` needs, is ``"not_scored"``. ``params`` and ``macs``
    are those of the candidate, also where a scorer reports a metric of that name.

    Args:
        candidates: what was asked; their order does not matter.
        scores: what was found, for their keys.
        rule: which metrics rank, and how they combine.
        seed: seed of the run.
        objectives: what Pareto fronts are made of; no column ``pareto`` where empty.
        also: further rules, whose ranks get a column each, ``rank_<name>``; missing where a rule has no rank.
        metrics: further metrics by name, which say how they are averaged.
        screened_out: keys that a first look kept from being scored, best first, with the reason. They follow the
            candidates that are ``"ok"`` in this order.
    """
    columns = ["arch", "key", "params", "macs"]
    frame = pd.DataFrame([[each.arch, each.key, each.params, each.macs] for each in candidates], columns=columns)
    table = repeat_table(scores).drop(columns=["params", "macs"], errors="ignore")
    wanted = {metric.name: metric for each in (rule, *also) for metric in each.metrics}
    names = dict.fromkeys([*wanted, *(metric.name for metric in objectives)])
    needed = [name for name in names if name not in {*columns, "score"}]
    table[[name for name in needed if name not in table.columns]] = np.nan
    frame = frame.join(aggregate(table, {**metrics, **wanted}), on="key")
    frame = frame.fillna({"status": "not_scored", "reason": "the store has no score of this key", "seconds": 0.0})
    screened = frame["key"].isin(list(screened_out or ()))
    frame.loc[screened, "status"] = SCREENED_OUT
    frame.loc[screened, "reason"] = frame["key"].map(screened_out or {})
    ranked = _continue_ranks(rank(frame, rule), list(screened_out or ()))
    ranked[list(_INTERVAL)] = rank_interval(ranked, table, rule, seed=seed)
    ranked["seed"] = seed
    front = [_FRONT] if objectives else []
    if objectives:
        ranked[_FRONT] = pareto_front(ranked, objectives)
    for each in also:
        ranked[rank_column(each)] = _ranks_by(ranked, each)
    first = [column for name in needed for column in (name, f"{name}_sd")]
    others = [name for name in ranked.columns if name not in {*_HEAD, *front, *first, *_TAIL}]
    return Ranking(ranked[[*_HEAD, *front, *first, *others, *_TAIL]])


def rank_column(rule: RankRule) -> str:
    """Name of the column that holds the ranks by a further rule."""
    return f"{_ALSO}{rule.name}"


def _ranks_by(ranked: pd.DataFrame, rule: RankRule) -> "pd.Series[Any]":
    """Ranks by another rule, aligned with ``ranked``; missing for rows that this rule does not rank."""
    anew = rank(ranked.assign(row=ranked.index), rule).set_index("row")
    return anew["rank"].astype("Int64").where(anew["status"] == "ok").sort_index()


def _continue_ranks(ranked: pd.DataFrame, screened_out: Sequence[str]) -> pd.DataFrame:
    """Let the keys that were screened out follow in their order; all others that are not ``"ok"`` come after them."""
    places = {key: place for place, key in enumerate(screened_out)}
    group = ranked["key"].map(places).where(ranked["status"] == SCREENED_OUT, len(places))
    group = group.where(ranked["status"] != "ok", -1)
    behind = rankdata(group, method="min").astype(int)
    ranked["rank"] = ranked["rank"].where(ranked["status"] == "ok", behind)
    return ranked.sort_values(["rank", "key", "arch"], kind="stable", ignore_index=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file all at once: whoever reads it, and whatever happens, finds the old content or the new one.

    Raises:
        UsageError: the disk is full or the place cannot be written; the old file is untouched.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space" if full else "check the path and its permissions"
        raise UsageError(f"cannot write {path} ({error.strerror}); {advice} and run the same command again.") from error


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write ``content`` as JSON with its schema version, all at once; numbers that are not finite become strings.

    Raises:
        UsageError: the file cannot be written.
    """
    write_text(path, json_text({**content, "schema_version": JSON_SCHEMA_VERSION}, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote.

    Raises:
        RunError: the file is missing, malformed or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {error}. Run the search again to rebuild it.") from error
    version = content.pop("schema_version", None) if isinstance(content, dict) else None
    if version != JSON_SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {brief(version)}, expected {JSON_SCHEMA_VERSION}; run the search again."
        )
    return dict(content)
