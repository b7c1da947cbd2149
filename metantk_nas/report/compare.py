"""Write one page that compares several runs: do their rankings agree, on what, and which settings differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from scipy.stats import kendalltau

from metantk_nas.errors import UsageError
from metantk_nas.report.html import LISTED, make_environment, read_tables, recorded_command, records
from metantk_nas.report.plots import DARK, LIGHT, Plot, Tables, Theme, make_figure, plain, set_scale, to_png
from metantk_nas.report.words import MISSING, entries, fixed, rank_rule
from metantk_nas.results import read_json, write_text

TOP = 10
SHOWN = 20  # rows of the table that are shown at first
MAX_PLOTS = 6
UNCOMPARED = ("command", "seconds", "training.command")
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """A run to compare.

    Args:
        name: what it is called on the page.
        manifest: how it was made.
        tables: what it found.
        best: candidates that were scored, one of each canonical key, best first; the index is the key.
    """

    name: str
    manifest: Mapping[str, Any]
    tables: Tables
    best: pd.DataFrame


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree.

    Args:
        first: name of one run.
        second: name of the other.
        n_shared: canonical keys that both have scored.
        kendall: Kendall's τ-b between the two ranks of the shared keys, −1 … 1; NaN where it is not defined.
        top_k: how many of the best of each run are compared.
        n_top: how many of these both runs have.
    """

    first: str
    second: str
    n_shared: int
    kendall: float
    top_k: int
    n_top: int


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Compare what several run directories hold, and write the page.

    Args:
        run_dirs: each holds ``ranking.csv`` and ``manifest.json``.
        out: HTML file to write.

    Returns:
        ``out``.

    Raises:
        RunError: a directory holds no run.
        UsageError: fewer than two runs, one run twice, or ``out`` cannot be written.
    """
    if len({path.resolve() for path in run_dirs}) < max(2, len(run_dirs)):
        given = ", ".join(map(str, run_dirs))
        raise UsageError(f"a comparison needs two or more different runs; got {given}.")
    runs = [_read_run(path, name) for path, name in zip(run_dirs, _names(run_dirs), strict=True)]
    write_text(out, render_comparison(runs))
    return out


def render_comparison(runs: Sequence[Run]) -> str:
    """Text of the page; everything that comes from the runs is escaped."""
    agreements = [compare(one, other) for one, other in combinations(runs, 2)]
    table = _side_by_side(runs)
    return (
        make_environment()
        .get_template("compare.html.j2")
        .render(
            runs=[_overview(run) for run in runs],
            agreements=agreements,
            summary=_summary(runs, agreements),
            plots=_draw(runs),
            rows=table[:LISTED],
            n_rows=len(table),
            shown=SHOWN,
            metrics=_shared_metrics(runs),
            differences=_differences(runs),
        )
    )


def compare(one: Run, other: Run) -> Agreement:
    """Measure how far two rankings agree."""
    shared = one.best.index.intersection(other.best.index)
    ranks = (one.best.loc[shared, "rank"], other.best.loc[shared, "rank"])
    kendall = float(kendalltau(*ranks).statistic) if len(shared) > 1 else float("nan")
    top_k = min(TOP, len(one.best), len(other.best))
    heads = [set(run.best.index[:top_k]) for run in (one, other)]
    return Agreement(one.name, other.name, len(shared), kendall, top_k, len(heads[0] & heads[1]))


def _read_run(folder: Path, name: str) -> Run:
    manifest, tables = read_json(folder / "manifest.json"), read_tables(folder)
    ok = tables.ranking[tables.ranking["status"] == "ok"]
    return Run(name, manifest, tables, ok.drop_duplicates("key").set_index("key"))


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """Directory names where they differ, whole paths where not."""
    short = [path.resolve().name for path in run_dirs]
    return short if len(set(short)) == len(short) else [str(path) for path in run_dirs]


def _overview(run: Run) -> Row:
    """What a run was and what it found."""
    spec = run.manifest.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    evaluation, seconds = run.tables.evaluation, run.manifest.get("seconds")
    winner = {} if evaluation.empty else records(evaluation.sort_values("accuracy", ascending=False).head(1))[0]
    return {
        "name": run.name,
        "space": spec.get("space", MISSING),
        "data": spec.get("data", MISSING),
        "rule": rank_rule(run.manifest).get("name", MISSING),
        "n": len(run.tables.ranking),
        "n_scored": len(run.best),
        "seconds": seconds if isinstance(seconds, int | float) else None,
        "best": str(run.best["arch"].iloc[0]) if len(run.best) else "",
        "winner": winner,
        "command": recorded_command(run.manifest),
    }


def _summary(runs: Sequence[Run], agreements: Sequence[Agreement]) -> list[str]:
    """Sentences for the top of the page."""
    shared = set.intersection(*(set(run.best.index) for run in runs))
    union = set.union(*(set(run.best.index) for run in runs))
    sentences = [f"{len(runs)} runs scored {len(union):,} different functions, {len(shared):,} of them in every run."]
    known = [each for each in agreements if np.isfinite(each.kendall)]
    if len(known) == 1:
        sentences.append(f"On what both scored, their rankings agree with Kendall τ = {fixed(known[0].kendall)}.")
    elif known:
        low, high = (fixed(end([each.kendall for each in known])) for end in (min, max))
        sentences.append(f"On what two of them scored, rankings agree with Kendall τ from {low} to {high}.")
    else:
        sentences.append("They share too little for a comparison of their rankings.")
    return sentences


def _shared_metrics(runs: Sequence[Run]) -> list[str]:
    """Metrics that rank in some run and that all runs have."""
    rules = [rank_rule(run.manifest).get("metrics", []) for run in runs]
    names = dict.fromkeys(str(part.get("name")) for rule in rules for part in rule if isinstance(part, Mapping))
    return [name for name in names if all(name in run.best for run in runs)]


def _side_by_side(runs: Sequence[Run]) -> list[Row]:
    """One row a function, with its place and scores in each run; the best place anywhere comes first."""
    columns = ["arch", "rank", "score", "params", "macs", *_shared_metrics(runs)]
    found = [{str(row["key"]): row for row in records(run.best.reset_index()[["key", *columns]])} for run in runs]
    rows = []
    for key in dict.fromkeys(key for by_key in found for key in by_key):
        here = [by_key.get(key) for by_key in found]
        known = [each for each in here if each is not None]
        best = (-len(known), min(each["rank"] for each in known), sum(each["rank"] for each in known))
        rows.append({"arch": known[0]["arch"], "params": known[0]["params"], "runs": here, "best": best})
    return sorted(rows, key=lambda row: row["best"])


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Entries of the manifests that differ between the runs."""
    flat = [dict(entries(run.manifest)) for run in runs]
    names = [name for name in dict.fromkeys(name for each in flat for name in each) if name not in UNCOMPARED]
    told = {name: [each.get(name, MISSING) for each in flat] for name in names}
    return [(name, values) for name, values in told.items() if len(set(values)) > 1]


def _draw(runs: Sequence[Run]) -> list[Plot]:
    """Draw the ranks of shared keys, a plot for each of the first pairs that share any."""
    pairs = [(one, other) for one, other in combinations(runs, 2) if len(one.best.index.intersection(other.best.index))]
    caption = "Each dot is an architecture that both runs scored; on the line both give it the same rank."
    plots = []
    for place, (one, other) in enumerate(pairs[:MAX_PLOTS], start=1):
        light, dark = (to_png(_draw_ranks(one, other, theme)) for theme in (LIGHT, DARK))
        plots.append(Plot(f"ranks-{place}", f"Ranks in {one.name} and {other.name}", caption, light, dark))
    return plots


def _draw_ranks(one: Run, other: Run, theme: Theme) -> Figure:
    """Scatter of the ranks of the keys that two runs share."""
    shared = one.best.index.intersection(other.best.index)
    x, y = (run.best.loc[shared, "rank"].to_numpy(float) for run in (one, other))
    figure, (axes,) = make_figure(theme)
    ends = [1.0, float(max(x.max(), y.max()))]
    axes.plot(ends, ends, color=theme.muted, linewidth=0.8)
    size, alpha = (4, 0.35) if len(x) > 1000 else (16, 0.6)
    axes.scatter(x, y, s=size, alpha=alpha, color=theme.palette[0], linewidths=0, zorder=3)
    for axis, run in ((axes.xaxis, one), (axes.yaxis, other)):
        set_scale(axes, axis.axis_name, np.array(ends))
        axis.set_major_formatter(EngFormatter(sep=" "))
        axis.set_label_text(f"rank in {plain(run.name)}")
    return figure
