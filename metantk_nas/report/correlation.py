"""Draw and write how well scores agree with a truth: one plot of intervals, one scatter, one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from metantk_nas.report.html import make_environment
from metantk_nas.report.plots import DARK, LIGHT, Plot, Theme, make_figure, plain, set_scale, to_png
from metantk_nas.report.words import fixed, metric_name

MAX_BARS = 40
STATISTIC_NOTES = {  # column: (heading, meaning); {k} is the size of the head
    "kendall": ("Kendall τ", "Pairs of architectures in the right order less those in the wrong one, −1 … 1 (τ-b)."),
    "spearman": ("Spearman ρ", "Correlation of the ranks, −1 … 1."),
    "ndcg": (
        "nDCG@{k}",
        "Truth of the score's best {k}, first places counting most, as a share of the possible.",
    ),
    "top_k_recall": ("recall@{k}", "Share of the score's best {k} that are among the true best {k}."),
    "regret": ("regret@{k} ↓", "How far the best of the score's best {k} stays behind the best of all, as the truth."),
    "over_baseline": ("τ − best baseline", "Kendall τ less that of the best baseline, on the same resamples."),
}


@dataclass(frozen=True, eq=False)
class Findings:
    """What a page on agreement tells.

    Args:
        title: its heading.
        summary: sentences for its top.
        table: one row a score, best first: ``score``, ``higher_is_better``, ``baseline``, ``n``, ``n_missing``,
            ``top_k`` and the statistics with their ``_low`` and ``_high``.
        points: raw values of the best score, ``x``, and the truth, ``y``, one row an architecture.
        labels: of the axes of ``points``.
        command: command line that made it, empty if not known.
        facts: name and text of what else should be known.
    """

    title: str
    summary: Sequence[str]
    table: pd.DataFrame
    points: pd.DataFrame
    labels: tuple[str, str]
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def draw_findings(findings: Findings) -> list[Plot]:
    """Draw agreement of all scores, and the best score against the truth."""
    bars = [to_png(draw_agreement(findings.table, findings.labels[1], theme)) for theme in (LIGHT, DARK)]
    points = [to_png(draw_points(findings.points, findings.labels, theme)) for theme in (LIGHT, DARK)]
    caption = "Kendall τ with the truth; lines are 95 % bootstrap intervals. Baselines are grey."
    return [
        Plot("agreement", "Agreement with the truth", caption, bars[0], bars[1]),
        Plot("best_score", "The best score against the truth", "Each dot is an architecture.", points[0], points[1]),
    ]


def draw_agreement(table: pd.DataFrame, truth: str, theme: Theme) -> Figure:
    """Bars of Kendall τ with their intervals, the best on top; baselines muted."""
    frame = table[np.isfinite(table["kendall"])].head(MAX_BARS)
    figure, (axes,) = make_figure(theme, height=1.3 + 0.22 * max(len(frame), 1))
    places = np.arange(len(frame))
    tau, low, high = (frame[name].to_numpy(float) for name in ("kendall", "kendall_low", "kendall_high"))
    colours = [theme.muted if baseline else theme.palette[0] for baseline in frame["baseline"]]
    axes.barh(places, tau, color=colours, height=0.62, alpha=0.75)
    axes.hlines(places, low, high, color=theme.ink, linewidth=1.4)
    for place, value, ends in zip(places, tau, np.column_stack([tau, low, high]), strict=True):
        side, end = ("left", ends.max()) if value >= 0 else ("right", ends.min())
        text = f"  {value:.2f}  ".replace("-", "−")
        axes.text(float(end), float(place), text, ha=side, va="center", color=theme.ink, fontsize=8.5)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    labels = map(score_label, frame["score"], frame["higher_is_better"])
    axes.set_yticks(places, [plain(label) for label in labels])
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.margins(x=0.16)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"Kendall τ with {plain(truth)}, {table['n'].max():,} architectures")
    if len(set(colours)) > 1:
        kinds = [Patch(color=theme.palette[0], label="score"), Patch(color=theme.muted, label="baseline")]
        style = {"frameon": False, "fontsize": 8.5, "labelcolor": theme.ink}
        figure.legend(handles=kinds, loc="outside upper right", ncols=2, **style)
    return figure


def draw_points(points: pd.DataFrame, labels: tuple[str, str], theme: Theme) -> Figure:
    """Scatter of one score against the truth; values that are not finite have no place in it."""
    finite = points[np.isfinite(points[["x", "y"]].to_numpy(float)).all(axis=1)]
    figure, (axes,) = make_figure(theme)
    size, alpha = (4, 0.35) if len(finite) > 1000 else (14, 0.55)
    axes.scatter(finite["x"], finite["y"], s=size, alpha=alpha, color=theme.palette[0], linewidths=0)
    if len(finite):
        set_scale(axes, "x", finite["x"].to_numpy(float))
    axes.set_xlabel(plain(labels[0]))
    axes.set_ylabel(plain(labels[1]))
    return figure


def render_findings(findings: Findings, plots: Sequence[Plot]) -> str:
    """Text of the page; everything that comes from files is escaped."""
    size = int(findings.table["top_k"].iloc[0])
    notes = {name: tuple(text.format(k=size) for text in note) for name, note in STATISTIC_NOTES.items()}
    rows = [{str(name): value for name, value in row.items()} for row in findings.table.to_dict("records")]
    return (
        make_environment()
        .get_template("correlation.html.j2")
        .render(findings=findings, rows=rows, notes=notes, plots=plots, score_label=score_label, fixed=fixed)
    )


def score_label(name: str, higher_is_better: bool) -> str:
    """Name of a score as words; an arrow tells that lower is better."""
    return metric_name(name) if higher_is_better else f"{metric_name(name)} ↓"
