"""Write ``report.html``: one self-contained page about a run, readable offline, in light, dark and print."""

import math
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shlex import join
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metantk_nas.errors import GenotypeError, RunError, UsageError
from metantk_nas.report.cells import FAMILIES, draw_cell, op_family, op_label
from metantk_nas.report.plots import Plot, Tables, draw_plots
from metantk_nas.report.trajectory import PRUNING_COLUMNS, read_trajectory
from metantk_nas.report.words import (
    count,
    duration,
    entries,
    fixed,
    listing,
    metric_name,
    metric_note,
    number,
    percent,
    rank_rule,
)
from metantk_nas.results import SCREENED_OUT, Ranking, read_json, write_text
from metantk_nas.spaces.space import Space

HEAD = 20  # candidates that are drawn, and that the table shows at first
LISTED = 500  # candidates in the table
MAX_REASONS, MAX_EXAMPLES = 5, 3  # for each status
EVALUATION_COLUMNS = ("rank", "arch", "learner", "n_way", "n_shot", "n_episodes", "accuracy", "ci95")
NUMBERS = r"\d[\d.,]*(e[-+]?\d+)?"
COSTS = ("params", "macs", "latency_ms")
FIXED_COLUMNS = {"rank", "arch", "key", "status", "reason", "score", "rank_low", "rank_high", "seed", "pareto", *COSTS}
Row = dict[str, Any]


def write_report(run_dir: Path, space: Space) -> Path:
    """Draw what a run directory holds and write ``report.html`` and ``plots/*.png`` into it.

    Args:
        run_dir: holds ``ranking.csv`` and ``manifest.json``, and ``evaluation.csv`` and ``curves/*.csv`` if any
            architecture was trained, and ``pruning.csv`` if the search pruned.
        space: the space that the architectures belong to, to draw their cells.

    Returns:
        Path of the report.

    Raises:
        RunError: a file is missing or malformed.
        UsageError: the report cannot be written.
    """
    manifest = read_json(run_dir / "manifest.json")
    tables = read_tables(run_dir)
    plots = draw_plots(tables)
    _save(plots, run_dir / "plots")
    report = run_dir / "report.html"
    write_text(report, render(run_dir.name, tables, manifest, space, plots))
    return report


def render(name: str, tables: Tables, manifest: Mapping[str, Any], space: Space, plots: list[Plot]) -> str:
    """Text of the page; everything that comes from the run is escaped.

    Args:
        name: title of the page.
        tables: ranking, evaluation and learning curves.
        manifest: how the run was made; shown as it is, no key is required.
        space: the space that the architectures belong to.
        plots: what ``draw_plots`` made of ``tables``.
    """
    distinct = Ranking(tables.ranking).top(max(1, len(tables.ranking))).frame
    listed = records(distinct.head(LISTED))
    head = listed[:HEAD]
    winners = records(tables.evaluation.sort_values("accuracy", ascending=False)) if len(tables.evaluation) else []
    columns = _shown_columns(tables.ranking, manifest)
    cards = _cards(head, winners, space)
    return (
        make_environment()
        .get_template("report.html.j2")
        .render(
            name=name,
            summary=_summary(tables, manifest, space),
            head=head,
            listed=listed,
            n_distinct=len(distinct),
            winners=winners,
            columns=columns,
            others=_other_columns(tables.ranking, columns),
            notes={column: metric_note(column, manifest) for column in [*tables.ranking.columns, "accuracy"]},
            cards=cards,
            anchors={card["arch"]: f"arch-{place}" for place, card in enumerate(cards, start=1)},
            legend=[(op, op_label(op), op_family(op)) for op in space.ops],
            families={family: colour for family, (_, colour) in FAMILIES.items()},
            plots=plots,
            pruning=None if tables.pruning.empty else read_trajectory(tables.pruning, space.n_inputs),
            has_repeats=bool(tables.ranking["rank_high"].notna().any()),
            n_candidates=len(tables.ranking),
            n_trained=len(set(tables.evaluation["arch"])) if winners else 0,
            failures=_failures(tables.ranking),
            manifest=list(entries(manifest)),
            seconds=manifest.get("seconds") if isinstance(manifest.get("seconds"), int | float) else None,
            command=recorded_command(manifest),
        )
    )


def make_environment() -> Environment:
    """Templates of this folder, with the filters for numbers and pictures; what is filled in is escaped.

    Pages allow one script, ``tables.js``, which they know by its digest: a script that a run smuggled in would not run.
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "number": number,
        "count": count,
        "duration": duration,
        "percent": percent,
        "words": metric_name,
        "fixed": fixed,
    }
    environment.filters.update(filters, data_uri=_data_uri, raw=_raw, family=op_family, label=op_label)
    script = (folder / "tables.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment.globals.update(script=Markup(script), script_source=f"'sha256-{digest}'")  # noqa: S704 - our own file
    return environment


def read_tables(run_dir: Path) -> Tables:
    """Read the tables of a run; only the ranking must exist.

    Raises:
        RunError: a file is missing or malformed.
    """
    ranking = Ranking.load(run_dir / "ranking.csv").frame
    path = run_dir / "evaluation.csv"
    evaluation = _read_csv(path, EVALUATION_COLUMNS) if path.exists() else pd.DataFrame()
    curves = {path.stem: _read_csv(path, ("episode",)) for path in sorted((run_dir / "curves").glob("*.csv"))}
    path = run_dir / "pruning.csv"
    pruning = _read_csv(path, PRUNING_COLUMNS) if path.exists() else pd.DataFrame()
    return Tables(ranking, evaluation, curves, pruning)


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table that must have these columns.

    Raises:
        RunError: it is not such a table.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}. Delete it and run the same command again.") from error
    if absent := [name for name in columns if name not in frame.columns]:
        raise RunError(f"{path} lacks the columns {', '.join(absent)}. Delete it and run the same command again.")
    return frame


def _save(plots: list[Plot], folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
        for plot in plots:
            (folder / f"{plot.name}.png").write_bytes(plot.light)
    except OSError as error:
        raise UsageError(
            f"cannot write the plots to {folder} ({error.strerror}); check space and permissions."
        ) from error


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _raw(value: float | None) -> str:
    """Number as the script reads it; empty where it is missing."""
    if value is None or math.isnan(value):
        return ""
    return str(value).replace("inf", "Infinity")


def records(frame: pd.DataFrame) -> list[Row]:
    """Rows as dictionaries in which numbers are floats, NaN where missing."""
    numbers = {name: frame[name].astype("float64") for name in frame.select_dtypes("number").columns}
    return [{str(name): value for name, value in row.items()} for row in frame.assign(**numbers).to_dict("records")]


def _metric_columns(ranking: pd.DataFrame, manifest: Mapping[str, Any]) -> list[str]:
    """Metrics that rank; where the manifest does not say, condition number and trace."""
    rule = [str(part.get("name")) for part in rank_rule(manifest).get("metrics", []) if isinstance(part, Mapping)]
    return [name for name in rule or ["condition_number", "trace"] if name in ranking.columns]


def _shown_columns(ranking: pd.DataFrame, manifest: Mapping[str, Any]) -> list[str]:
    """Columns that the table shows at first: the score, its metrics, the Pareto front and what networks cost."""
    wanted = ["score", *_metric_columns(ranking, manifest), "pareto", *COSTS]
    return [name for name in dict.fromkeys(wanted) if name in ranking.columns]


def _other_columns(ranking: pd.DataFrame, shown: list[str]) -> list[str]:
    """Measured columns that are not shown at first, without standard deviations."""
    numbers = ranking.select_dtypes("number").columns
    return [name for name in numbers if not name.endswith("_sd") and name not in FIXED_COLUMNS and name not in shown]


def _cards(head: list[Row], winners: list[Row], space: Space) -> list[Row]:
    """Architectures to draw: the head of the ranking, then those that were trained without being in it."""
    archs = dict.fromkeys([str(row["arch"]) for row in [*head, *winners]])
    ranks = {row["arch"]: row.get("rank") for row in [*winners, *head]}
    trained = {arch: [row for row in winners if row["arch"] == arch] for arch in archs}
    return [{"arch": arch, "rank": ranks[arch], "trained": trained[arch], **_drawn(arch, space)} for arch in archs]


def _drawn(arch: str, space: Space) -> Row:
    """Draw each cell of an architecture, or tell why it is not drawn."""
    try:
        genotype = space.parse(arch)
    except GenotypeError as error:
        return {"cells": [], "problem": str(error)}
    cells = [
        (kind, draw_cell(cell, n_inputs=space.n_inputs, output=space.output, title=f"{kind} cell of {arch}"))
        for kind, cell in genotype.cells
    ]
    return {"cells": cells, "problem": ""}


def _failures(ranking: pd.DataFrame) -> list[Row]:
    """Group failed candidates by status, the largest group first, and by reasons that differ in their numbers only."""
    groups = []
    for status, group in ranking[_failed(ranking)].groupby("status"):
        alike = group.groupby(group["reason"].str.replace(NUMBERS, "#", regex=True), sort=False)["reason"]
        reasons = sorted(zip(alike.first(), alike.size(), strict=True), key=lambda pair: -pair[1])
        groups.append(
            {
                "status": status,
                "n": len(group),
                "reasons": reasons[:MAX_REASONS],
                "n_more_reasons": max(0, len(reasons) - MAX_REASONS),
                "examples": list(group["arch"].head(MAX_EXAMPLES)),
            }
        )
    return sorted(groups, key=lambda group: (-group["n"], group["status"]))


def _failed(ranking: pd.DataFrame) -> "pd.Series[bool]":
    return ~ranking["status"].isin(["ok", SCREENED_OUT])


def _summary(tables: Tables, manifest: Mapping[str, Any], space: Space) -> list[str]:
    """Sentences for the top of the page: what was ranked, how many failed, what training found."""
    ranking, spec = tables.ranking, manifest.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    task = f" for {spec['n_way']}‑way {spec['n_shot']}‑shot learning" if {"n_way", "n_shot"} <= spec.keys() else ""
    data = f" on {spec['data']}" if "data" in spec else ""
    columns, ties = _metric_columns(ranking, manifest), rank_rule(manifest).get("ties_by")
    metrics = listing([metric_name(name) for name in columns if name != ties])
    n_failed, n_screened = int(_failed(ranking).sum()), int((ranking["status"] == SCREENED_OUT).sum())
    ranked = "1 architecture" if len(ranking) == 1 else f"{len(ranking):,} architectures"
    functions = f" ({ranking['key'].nunique():,} different functions) were" if len(ranking) > 1 else " was"
    rule = f", by {metrics}" if metrics else ""
    rule += f", ties by {metric_name(ties)}" if ties in columns else ""
    sentences = [f"{ranked} of {space.name}{functions} ranked before training{task}{data}{rule}."]
    if len(tables.pruning):
        sentences.append(f"Pruning tried {len(tables.pruning):,} removals to find it.")
    if n_screened:
        sentences.append(f"{n_screened:,} were screened out by a cheap look and follow in its order.")
    if n_failed:
        rest = "none could be scored" if n_failed == len(ranking) else f"{n_failed:,} could not be scored and rank last"
        sentences.append(f"{rest[0].upper()}{rest[1:]}.")
    if len(tables.evaluation):
        best = tables.evaluation.sort_values("accuracy", ascending=False).iloc[0]
        sentences.append(
            f"The best result after training is {percent(best['accuracy'])} ± {percent(best['ci95'])} % accuracy, by "
            f"{best['learner']} with {best['n_shot']}‑shot episodes of {best['n_way']} novel classes."
        )
    return sentences


def recorded_command(manifest: Mapping[str, Any]) -> str:
    """Return the command line that made the run, empty if it is not recorded."""
    command = manifest.get("command", "")
    return join(str(word) for word in command) if isinstance(command, list) else str(command)
