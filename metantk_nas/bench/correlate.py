"""How well scores foretell a truth: join them by architecture, measure the agreement, and show it.

An architecture is compared if the truth knows it and every file of scores has it, so that all figures are about the
same ones and may be compared. A value that a file has left empty, or that belongs to a candidate which could not be
scored, comes last. Parameters and multiply–adds stand in every comparison: a score that does not beat them has found
out nothing but size.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

import numpy as np
import pandas as pd

from metantk_nas.bench.agreement import STATISTICS, Array, Estimate, Yardstick, estimate
from metantk_nas.bench.truth import ARCH_COLUMNS, Names, Truth, Unit, identify, read_csv
from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.networks.cost import CostModel
from metantk_nas.report.correlation import Findings, draw_findings, render_findings, score_label
from metantk_nas.report.words import fixed, metric_name
from metantk_nas.results import Ranking, read_json, write_text
from metantk_nas.rng import child_seed
from metantk_nas.scorers.registry import METRICS
from metantk_nas.spaces.space import Space

RANKING_FILE = "ranking.csv"
RANKING_COLUMNS = {"rank", "arch", "key", "status", "score"}
SIZES = ("params", "macs")
NOT_A_SCORE = {"index", "position", "repeat", "seed", "seconds", "pareto", "rank_low", "rank_high", "isomorphism_class"}
OVER_BASELINE = "over_baseline"


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of architectures, from one file.

    Args:
        name: what the file is called where two files have a score of one name.
        rows: ``key`` and ``arch`` (empty where not known) of each row, and one column a score.
        directions: by score, whether higher is better.
        baseline: these are what others are held against.
    """

    name: str
    rows: pd.DataFrame
    directions: Mapping[str, bool]
    baseline: bool = False

    def of(self, known: pd.DataFrame, unit: Unit) -> pd.DataFrame:
        """Scores of those rows of ``known`` that the file has: means over rows of one key, or of one architecture.

        An architecture that the file does not have gets the scores of its key.
        """
        numbers = [*self.directions]
        by_key = self.rows.groupby("key")[numbers].mean()
        there = known["key"][known["key"].isin(by_key.index)]
        found = by_key.loc[there].set_index(there.index)
        if unit == "arch":
            by_arch = self.rows.groupby("arch")[numbers].mean()
            own = known.index.intersection(by_arch.index)
            found.loc[own] = by_arch.loc[own]
        return found


@dataclass(frozen=True, eq=False)
class Correlation:
    """Agreement of scores with a truth.

    Args:
        table: one row a score, the highest τ first: ``score``, ``higher_is_better``, ``baseline``, every statistic with
            its ``_low`` and ``_high``, ``over_baseline`` (τ less that of the best baseline; NaN for baselines), ``n``,
            ``n_missing`` and ``top_k``.
        compared: the architectures, one row each: ``arch``, ``key`` and ``truth``.
        scores: their raw scores, one column each.
        truth: what they were held against.
        space: name of the search space.
        unit: whether a row is a canonical key or an architecture text.
        n_truth: how many rows the truth has, sampled or not, and whether or not every file has their scores.
    """

    table: pd.DataFrame
    compared: pd.DataFrame
    scores: pd.DataFrame
    truth: Truth
    space: str
    unit: Unit
    n_truth: int

    @property
    def best_baseline(self) -> str:
        """Name of the baseline with the highest τ."""
        return str(self.table.loc[self.table["baseline"], "score"].iloc[0])


def read_scores(
    path: Path, space: Space, columns: Sequence[str] = (), *, truth: Truth | None = None, baseline: bool = False
) -> Scores:
    """Read scores: a run's ranking, or any CSV with numbers.

    Of a ranking all metrics are read and ``rank``, its own order, in which candidates that were screened out have
    their places; a metric of a candidate that could not be scored is not trusted and left empty.

    Args:
        path: directory of a run, a ranking, or a CSV with ``arch``, ``arch_str``, ``key`` or ``index``.
        space: the space that the architectures belong to.
        columns: scores to take, all where empty. ``"-name"`` says that lower is better; otherwise it is as for our
            metric of that name, lower for names that begin with ``rank``, and higher for all others.
        truth: gives architectures to a file that names them by ``index`` only.
        baseline: these are what others are held against.

    Raises:
        UsageError: the file or a column is not there, or it does not say whose scores it has.
    """
    path = path / RANKING_FILE if path.is_dir() else path
    frame = read_csv(path)
    if set(frame.columns) >= RANKING_COLUMNS:
        frame = Ranking.load(path).frame.drop(columns="score")  # its order is that of the rank
        metrics = [name for name in _score_names(frame) if not name.startswith("rank") and name not in SIZES]
        frame.loc[frame["status"] != "ok", metrics] = np.nan
    directions = _directions(columns, _score_names(frame), path.name)
    rows = _identified(frame, Names(space), truth, path.name)
    wanted = [*directions, *(name for name in SIZES if name in frame.columns and name not in directions)]
    rows = rows.join(frame[wanted].astype(float))
    name = path.parent.name if path.name == RANKING_FILE else path.stem
    return Scores(name, rows, {score: directions.get(score, True) for score in wanted}, baseline)


def recorded_space(path: Path) -> str | None:
    """Return the search space that the manifest of a run names; None for other files with scores.

    Args:
        path: directory of a run, or a file in it.
    """
    folder = path if path.is_dir() else path.parent
    is_run = (folder / RANKING_FILE).exists() and (folder / "manifest.json").exists()
    spec = read_json(folder / "manifest.json").get("spec") if is_run else None
    space = spec.get("space") if isinstance(spec, dict) else None
    return space if isinstance(space, str) else None


def correlate(
    truth: Truth,
    scores: Sequence[Scores],
    space: Space,
    *,
    unit: Unit = "key",
    connected_only: bool = True,
    sample: int | None = None,
    top_k: int | None = None,
    n_resamples: int | None = None,
    seed: int = 0,
) -> Correlation:
    """Measure how well every score agrees with a truth.

    Args:
        truth: what architectures reach.
        scores: what was foretold; those that are baselines are compared with, too.
        space: the space that all architectures belong to.
        unit: compare canonical keys, or architecture texts as most of the literature does, in which cells of one
            function count several times; a text that a file of scores does not have gets the scores of its key.
        connected_only: leave out cells whose output does not depend on their input, which every score finds at once.
        sample: compare only so many, drawn at random; the draw depends on ``seed`` and the texts alone.
        top_k: size of the head, see `Yardstick`.
        n_resamples: bootstrap resamples, see `Yardstick`.
        seed: seed of sample and bootstrap.

    Raises:
        UsageError: fewer than three architectures are left, or an impossible request.
    """
    known = truth.averaged(unit)
    if connected_only:
        known = known[[arch == "" or space.is_connected(space.parse(arch)) for arch in known["arch"]]]
    n_truth = len(known)
    joined = _joined(scores, known, unit)
    if sample is not None:
        drawn = sorted(joined.index, key=lambda text: child_seed(seed, "correlate", "sample", text))[:sample]
        joined = joined.loc[drawn]
    known = known.loc[joined.index]
    joined = _with_sizes(joined, known, space)
    directions, baselines = _facts(scores, joined)
    yardstick = Yardstick(known["truth"].to_numpy(float), top_k, n_resamples, seed)
    draws = {name: yardstick.draws(joined[name], higher_is_better=directions[name]) for name in joined.columns}
    table = _table(draws, baselines)
    table.insert(1, "higher_is_better", table["score"].map(directions))
    table["n"], table["top_k"] = len(known), yardstick.k
    table["n_missing"] = table["score"].map(joined.isna().sum())
    return Correlation(table, known[["arch", "key", "truth"]], joined, truth, space.name, unit, n_truth)


def write_correlation(out_dir: Path, correlation: Correlation, command: Sequence[str] = ()) -> list[Path]:
    """Write ``correlation.csv``, ``correlation.png`` and ``correlation.html``.

    Args:
        out_dir: where; it is made if it is not there.
        correlation: what was measured.
        command: words of the command line, for the page.

    Returns:
        The three paths.

    Raises:
        UsageError: a file cannot be written.
    """
    findings = _findings(correlation, command)
    plots = draw_findings(findings)
    paths = [out_dir / f"correlation.{kind}" for kind in ("csv", "png", "html")]
    write_text(paths[0], correlation.table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    try:
        paths[1].write_bytes(plots[0].light)
    except OSError as error:
        raise UsageError(f"cannot write {paths[1]} ({error.strerror}); check space and permissions.") from error
    write_text(paths[2], render_findings(findings, plots))
    return paths


def _score_names(frame: pd.DataFrame) -> list[str]:
    """Columns that may be scores."""
    numeric = [str(name) for name in frame.select_dtypes("number").columns]
    return [name for name in numeric if name not in NOT_A_SCORE and not name.endswith("_sd")]


def _directions(columns: Sequence[str], available: Sequence[str], source: str) -> dict[str, bool]:
    """Whether higher is better, by score, in the order asked for."""
    directions: dict[str, bool] = {}
    for column in columns or available:
        name = column.removeprefix("-")
        if name not in available:
            raise unknown_name(f"score in {source}", name, available)
        if name in directions:
            raise UsageError(f"the score {name!r} of {source} is named twice; expected each once.")
        known = METRICS[name].higher_is_better if name in METRICS else not name.startswith("rank")
        directions[name] = known and not column.startswith("-")
    return directions


def _identified(frame: pd.DataFrame, names: Names, truth: Truth | None, source: str) -> pd.DataFrame:
    """Key and architecture of every row, by its text or by its place in the truth's order."""
    if "index" not in frame.columns or {*ARCH_COLUMNS, "key"} & set(frame.columns):
        return identify(frame, names, source)
    if truth is None or "index" not in truth.rows.columns:
        raise UsageError(
            f"{source} names architectures by index; expected a truth with a column index, or a column arch in it."
        )
    places = truth.rows.drop_duplicates("index").set_index("index")[["key", "arch"]]
    return places.reindex(frame["index"]).set_index(frame.index).dropna()


def _joined(scores: Sequence[Scores], known: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """All scores of the architectures that every file has; a name that two files share is told apart by their names."""
    if not scores:
        raise UsageError("there are no scores to compare; expected at least one file of scores.")
    sizes = {size: next((each for each in scores if size in each.directions), None) for size in SIZES}
    frames = []
    for each in scores:
        again = [size for size, first in sizes.items() if size in each.directions and each is not first]
        frames.append(each.of(known, unit).drop(columns=again))
    counts = Counter(name for frame in frames for name in frame.columns)
    frames = [
        frame.rename(columns={name: f"{each.name}/{name}" for name in frame.columns if counts[name] > 1})
        for each, frame in zip(scores, frames, strict=True)
    ]
    joined = pd.concat(frames, axis=1, join="inner")
    if joined.columns.has_duplicates:
        name, _ = Counter(each.name for each in scores).most_common(1)[0]
        raise UsageError(f"two files of scores are called {name}; rename one, to tell their scores apart.")
    return joined


def _with_sizes(joined: pd.DataFrame, known: pd.DataFrame, space: Space) -> pd.DataFrame:
    """Add params and macs where no file of scores has them: the truth's, or counted on 3 × 32 × 32 images."""
    joined = joined.copy()
    lacking = [size for size in SIZES if size not in joined.columns]
    for size in [size for size in lacking if size in known.columns]:
        joined[size] = known[size]
    lacking = [size for size in lacking if size not in joined.columns]
    if not lacking:
        return joined
    if (known["arch"] == "").any():
        raise UsageError(
            "neither truth nor scores name architectures, so their size cannot be counted; add a column arch, or "
            "columns params and macs."
        )
    model = CostModel(space, n_outputs=10, in_channels=3, image_size=32)
    costs = [model.live(space.parse(arch)) for arch in known["arch"]]
    for size in lacking:
        joined[size] = np.array([getattr(cost, size) for cost in costs], dtype=float)
    return joined


def _facts(scores: Sequence[Scores], joined: pd.DataFrame) -> tuple[dict[str, bool], set[str]]:
    """Directions by the names that scores have once they are joined, and which of them are baselines."""
    directions, baselines = dict.fromkeys(SIZES, True), set(SIZES)
    for each in scores:
        for name, higher_is_better in each.directions.items():
            label = name if name in joined.columns else f"{each.name}/{name}"
            directions[label] = higher_is_better
            if each.baseline:
                baselines.add(label)
    return directions, baselines


def _table(draws: Mapping[str, Mapping[str, Array]], baselines: set[str]) -> pd.DataFrame:
    """One row a score with every statistic and its interval, the highest τ first."""
    best = max(
        (name for name in draws if name in baselines),
        key=lambda name: np.nan_to_num(draws[name]["kendall"][0], nan=-np.inf),
    )
    rows = []
    for name, found in draws.items():
        row: dict[str, object] = {"score": name, "baseline": name in baselines}
        for statistic in STATISTICS:
            row |= _cells(statistic, estimate(found[statistic]))
        lead = estimate(found["kendall"] - draws[best]["kendall"])
        rows.append(row | _cells(OVER_BASELINE, Estimate(np.nan, np.nan, np.nan) if name in baselines else lead))
    return pd.DataFrame(rows).sort_values("kendall", ascending=False, kind="stable", ignore_index=True)


def _cells(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _findings(correlation: Correlation, command: Sequence[str]) -> Findings:
    """What the page tells."""
    table, truth = correlation.table, correlation.truth
    shown = table[~table["baseline"]] if not table["baseline"].all() else table
    best = shown.iloc[0]
    best_name = metric_name(best["score"])
    unit = "one of each canonical key" if correlation.unit == "key" else "cells of one function counting several times"
    summary = [
        f"{best['n']:,} architectures of {correlation.space} ({unit}) against {metric_name(truth.column)} "
        f"in {truth.name}.",
        f"The score that agrees best is {best_name}, with a Kendall τ of {_interval(best, 'kendall')}.",
    ]
    if not best["baseline"]:
        name = metric_name(correlation.best_baseline)
        summary.append(f"The difference to the best baseline, {name}, is {_interval(best, OVER_BASELINE)}.")
    if noise := noise_of(truth):
        summary.append(noise)
    points = pd.DataFrame({"x": correlation.scores[best["score"]], "y": correlation.compared["truth"]})
    return Findings(
        title=f"What foretells {metric_name(truth.column)}?",
        summary=summary,
        table=table,
        points=points,
        labels=(score_label(best["score"], best["higher_is_better"]), metric_name(truth.column)),
        command=join(command),
        facts={
            "compared": f"{best['n']:,} of the {correlation.n_truth:,} that the truth knows",
            "truth": f"{truth.column} of {truth.name}",
            "size of the head": f"{best['top_k']}",
        },
    )


def _interval(row: "pd.Series[Any]", name: str) -> str:
    return _in_words(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def noise_of(truth: Truth) -> str:
    """Say how well two trainings of the same architectures agree; nothing where none were trained twice."""
    agreement = truth.seed_agreement()
    if agreement is None:
        return ""
    tau, n_keys = agreement
    return (
        f"Two trainings with different seeds of {n_keys} architectures of the truth agree with a τ of "
        f"{_in_words(tau)}; what they lack to 1 is noise of training."
    )


def _in_words(found: Estimate) -> str:
    return f"{fixed(found.value)} (95 % interval {fixed(found.low)} … {fixed(found.high)})"
