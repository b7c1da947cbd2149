"""What people see: tables, progress, notes and errors."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from metantk_nas.report.words import count, duration, fixed, number

if TYPE_CHECKING:
    import pandas as pd

    from metantk_nas.results import Ranking

TOP = 10
MIN_ARCH = 24
"""Characters of an architecture that a table shows at least."""

LINE_SECONDS = 60.0
"""Between two lines that tell how far work has got, where no bar can be drawn."""

PACE_LINES, PACE_SECONDS = 8, 3600.0
"""Lines of a log, and seconds before now, whose pace says how long the rest will take; a training may take minutes, and
several workers that began together also finish together.
"""

_ACCURACIES = ("accuracy_1shot", "accuracy_5shot")

stdout, stderr = Console(), Console(stderr=True)


def print_note(text: str) -> None:
    """Tell on stderr what happened on the way."""
    stderr.print(f"Note: {escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show on stderr how far every label has got: by a bar on a terminal, by a line now and then in a log."""
    if not stderr.is_terminal:
        lines = _ProgressLines()
        try:
            yield lines
        finally:
            lines.finish()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, speed_estimate_period=PACE_SECONDS) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], completed=done, total=total or None)

        yield report


class _ProgressLines:
    """Lines about progress for logs: one a minute, and the last state of every label."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        work = self._works.setdefault(label, _Work(label, begun=now, lines=deque([(now, done)], PACE_LINES), moved=now))
        if done != work.done:
            work.moved = now
        work.done, work.total = done, total
        if now - work.lines[-1][0] >= LINE_SECONDS:
            work.say(now)

    def finish(self) -> None:
        """Say where everything ended, and after how long, unless a line has said so."""
        for work in self._works.values():
            if len(work.lines) == 1 or work.lines[-1][1] != work.done:
                work.say(work.moved if work.done == work.total else time.monotonic())


@dataclass
class _Work:
    """How far one label has got; times in seconds of a clock.

    Args:
        label: what is being done.
        begun: when it was reported first.
        lines: of the last lines, when and what was done; before there are so many, also of the first report.
        moved: when more was done than before.
        done: what is done.
        total: what there is to do, 0 where it is not known.
    """

    label: str
    begun: float
    lines: deque[tuple[float, int]]
    moved: float
    done: int = 0
    total: int = 0

    def say(self, now: float) -> None:
        """Print a line; what is left is judged by the pace of the last lines."""
        parts = [f"{self.label}: {self.done:,}" + (f" of {self.total:,}" if self.total else "")]
        parts.append(f"after {duration(now - self.begun)}")
        then, done_then = self.lines[0]
        if done_then < self.done < self.total:
            left = (now - then) / (self.done - done_then) * (self.total - self.done)
            parts.append(f"about {duration(left)} left")
        self.lines.append((now, self.done))
        stderr.print(escape(", ".join(parts)), highlight=False, soft_wrap=True)


def print_run(run: Path, ranking: "Ranking", trained: Any, *, as_json: bool) -> None:
    """Print the best of a search, what was trained of it, and where the files are."""
    from metantk_nas.results import SCREENED_OUT

    rows = [] if trained is None else json.loads(trained.to_json(orient="records"))
    paths = {"ranking": str(run / "ranking.csv"), "report": str(run / "report.html")}
    objectives = [text.strip() for text in str(ranking.manifest["spec"]["pareto"]).split(",") if text]  # type: ignore[index]
    if as_json:
        front = {"front": rows_of(ranking.front())} if objectives else {}
        print_json({"out": str(run), **paths, "top": rows_of(ranking.top(TOP)), **front, "evaluation": rows})
        return
    top = ranking.top(TOP)
    print_ranking(top, f"The best {len(top)} of {len(ranking):,} architectures")
    if objectives:
        print_ranking(ranking.front(), f"Pareto front of {', '.join(objectives)}", objectives)
    best = ranking.top(1).frame
    if len(best):
        stdout.print(f"Best: {best['arch'].iloc[0]}", highlight=False, soft_wrap=True, markup=False)
    n_screened = int((ranking.frame["status"] == SCREENED_OUT).sum())
    n_failed = int((ranking.frame["status"] != "ok").sum()) - n_screened
    if n_screened:
        stdout.print(f"{n_screened} were screened out by a cheap look and follow in its order.")
    if n_failed:
        stdout.print(f"{n_failed} could not be scored and rank last; see status and reason in the ranking.")
    if rows:
        print_evaluation(rows)
    for name, path in paths.items():
        stdout.print(f"{name.capitalize()}: {path}", highlight=False, soft_wrap=True)


def print_ranking(ranking: "Ranking", title: str, metrics: Sequence[str] = ()) -> None:
    """Print the metrics that rank, or those that are named."""
    rule = metrics or [metric["name"] for metric in ranking.manifest["rank_rule"]["metrics"]]  # type: ignore[index]
    names = ["rank", *rule, *[name for name in ("params", "macs") if name not in rule], "status", "arch"]
    rows = [{name: _cell(row[name]) for name in names} for row in rows_of(ranking)]
    widths = {name: max(len(text) for text in (name, *(row[name] for row in rows))) for name in names}
    wanted = widths.pop("arch")
    further = [name for name in rule[1:] if name != "params"]
    for name in ("macs", "status", *reversed(further)):  # a narrow terminal shows less, the CSV all
        if _room_beside(widths) < MIN_ARCH:
            widths.pop(name, None)
    widths["arch"] = max(MIN_ARCH, min(wanted, _room_beside(widths)))
    table = Table(title=title)
    for name, width in widths.items():
        justify: Literal["left", "right"] = "left" if name in ("status", "arch") else "right"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*(row[name] for name in widths))
    stdout.print(table)


def _room_beside(widths: Mapping[str, int]) -> int:
    """Characters left for one more column of a table on this terminal."""
    return stdout.width - sum(width + 3 for width in widths.values()) - 4


def print_evaluation(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what learners reached, one row a training."""
    table = Table(title="Few-shot accuracy on novel tasks, mean ± 95 % confidence interval")
    for name in ("rank", "learner", "task", "accuracy", "episodes", "params"):
        table.add_column(name, justify="left" if name in ("learner", "task") else "right")
    for row in rows:
        task, reached = _reached(row)
        table.add_row(_cell(row["rank"]), row["learner"], task, reached, _cell(row["n_episodes"]), _cell(row["params"]))
    stdout.print(table)


def _reached(row: Mapping[str, Any]) -> tuple[str, str]:
    """The task in words, and accuracy or squared error with its interval."""
    if row.get("mse") is not None:
        return f"{row['n_shot']}-shot regression", f"error {row['mse']:.2g} ± {row['ci95']:.2g}"
    reached = f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f} %"
    return f"{row['n_way']}-way {row['n_shot']}-shot", reached


def print_labels(counts: Mapping[Any, int], n_unreadable: int) -> None:
    """Print how many images got each label."""
    table = Table(title=f"{sum(counts.values()):,} images labelled")
    table.add_column("label")
    table.add_column("images", justify="right")
    for label, n_images in counts.items():
        table.add_row(escape(str(label)), f"{n_images:,}")
    stdout.print(table)
    if n_unreadable:
        stdout.print(f"{n_unreadable:,} could not be read; see reason in the file.")


def print_table_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the best and the worst of a table of trained architectures."""
    ordered = sorted(rows, key=lambda row: -row["accuracy_5shot"])
    shown = ordered if len(ordered) <= TOP else [*ordered[: TOP // 2], *ordered[-TOP // 2 :]]
    table = Table(title=f"The best and the worst of {len(rows)} trainings, accuracy ± 95 % confidence interval")
    for name in ("1-shot", "5-shot", "training loss", "epochs", "params", "architecture"):
        table.add_column(name, justify="left" if name == "architecture" else "right", overflow="ellipsis", no_wrap=True)
    for row in shown:
        accuracies = (f"{100 * row[name]:.1f} ± {100 * row[f'{name}_ci']:.1f} %" for name in _ACCURACIES)
        numbers = (_cell(row[name]) for name in ("train_loss", "epochs", "params"))
        table.add_row(*accuracies, *numbers, escape(row["arch"]))
    stdout.print(table)


def print_correlation(found: "pd.DataFrame") -> None:
    """Print how well scores agree with a truth, the best first; NaN where all have the same score."""
    rows = found.to_dict("records")
    table = Table(
        title=f"Agreement over {rows[0]['n']:,} architectures; baselines in brackets",
        caption="τ: Kendall's, with its interval; ρ: Spearman's; "
        f"regret: what the best {rows[0]['top_k']} by a score miss of the best of all; "
        "lead: τ less that of the best baseline",
    )
    widths = {"τ": 6, "95 %": 15, "ρ": 6, "regret": 7, "lead": 6}
    room = stdout.width - sum(widths.values()) - 3 * len(widths) - 4  # a narrow terminal cuts names, not figures
    table.add_column("score", overflow="ellipsis", no_wrap=True, max_width=max(room, 8))
    for name, width in widths.items():
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        name = f"[{row['score']}]" if row["baseline"] else row["score"]
        interval = f"{fixed(row['kendall_low'])} … {fixed(row['kendall_high'])}"
        lead = ("+" if row["over_baseline"] >= 0 else "") + fixed(row["over_baseline"])
        table.add_row(
            escape(name), fixed(row["kendall"]), interval, fixed(row["spearman"]), number(row["regret"], 3), lead
        )
    stdout.print(table)


def print_changes(changes: Sequence[tuple[str, str, str]]) -> None:
    """Print what a manifest records that is different now."""
    if not changes:
        stdout.print("Data, space, device, threads, versions and commit are those that were recorded.")
        return
    table = Table(title="What is not as it was recorded")
    for name in ("", "recorded", "here"):
        table.add_column(name, overflow="fold")
    for change in changes:
        table.add_row(*map(escape, change))
    stdout.print(table)


def rows_of(ranking: "Ranking") -> list[dict[str, Any]]:
    """Rows of a ranking as plain values."""
    rows: list[dict[str, Any]] = json.loads(ranking.frame.to_json(orient="records"))
    return rows


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return count(value) if isinstance(value, int) else escape(str(value))


def print_list(columns: Sequence[str], rows: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Print a list of things with columns."""
    if as_json:
        print_json(rows)
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[column]) for column in columns))
    stdout.print(table)


def print_facts(facts: Mapping[str, str], *, as_json: bool) -> None:
    """Print one thing, line by line."""
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    stdout.print(table)


def print_json(value: Any) -> None:
    """Print JSON and nothing else."""
    stdout.print(json.dumps(value, indent=2), highlight=False, soft_wrap=True, markup=False)


def print_error(message: str) -> None:
    """Tell on stderr what went wrong."""
    stderr.print(f"[bold red]Error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """Keep square brackets from being read as markup."""
    return text.replace("[", r"\[")
