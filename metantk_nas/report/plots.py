"""The plots of a run, each drawn for light and for dark pages.

A plot whose data are absent is left out, and so is one that would compare a lone candidate with nothing.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from metantk_nas.ordering import fronts

TOP = 10  # candidates highlighted in scatter plots
N_INTERVALS = 20  # candidates whose rank intervals are drawn
N_CURVES = 6  # colours of a palette
N_ACCURACIES = 30
DPI = 160
WIDTH, HEIGHT = 6.2, 3.8  # inches
COSTS = {"params": "parameters", "latency_ms": "latency [ms]", "macs": "multiply–adds"}  # the first are drawn
MAX_PANELS = 2
LOG_SPAN = 20.0  # positive values that span this factor get a logarithmic axis
LARGE = 1e4  # beyond it numbers get a unit: 250 k, not 2.5 above an axis with 1e5 at its end


@dataclass(frozen=True)
class Theme:
    """Colours of a page; the palette is Okabe & Ito's, which colour-blind readers tell apart, tuned to the page."""

    background: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1f2937", "#5b6470", "#e5e7eb", ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#b07d00", "#3d9bd1")
)
DARK = Theme(
    "#171a20", "#e5e7eb", "#a3aab5", "#333944", ("#56b4e9", "#f28e4b", "#35c79a", "#e39bc5", "#e8bb43", "#a5b4fc")
)


@dataclass(frozen=True)
class Tables:
    """What a run directory holds, as tables.

    Args:
        ranking: rows of ``ranking.csv``, best first; empty if nothing was searched.
        evaluation: rows of ``evaluation.csv``, empty if nothing was trained.
        curves: learning curves by file stem.
        pruning: rows of ``pruning.csv``, empty if the search did not prune.
    """

    ranking: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["key", "status"]))
    evaluation: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    pruning: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Plot:
    """A finished plot as PNG for light and for dark pages."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes


Drawer = Callable[[Tables, Theme], Figure | None]


def draw_plots(tables: Tables) -> list[Plot]:
    """Draw every plot that the run has data for."""
    plots = []
    for name, (title, caption, drawer) in PLOTS.items():
        light, dark = (drawer(tables, theme) for theme in (LIGHT, DARK))
        if light is not None and dark is not None:
            plots.append(Plot(name, title, caption, to_png(light), to_png(dark)))
    return plots


def draw_condition_number_and_trace(tables: Tables, theme: Theme) -> Figure | None:
    """Scatter of the two spectral metrics of the kernel."""
    labels = ("condition number", "trace")  # which way is better, the table says: that is up to the ranking rule
    return _scatter(tables, theme, ("condition_number", "trace"), labels)


def draw_pareto(tables: Tables, theme: Theme) -> Figure | None:
    """Score against what a network costs, with the candidates that none beats in both; a panel for each cost."""
    candidates = _candidates(tables)
    frames = {label: _finite(candidates, ["rank", "score", cost]) for cost, label in COSTS.items()}
    panels = [(label, frame) for label, frame in frames.items() if len(frame) > 1][:MAX_PANELS]
    if not panels:
        return None
    figure, all_axes = make_figure(theme, n_panels=len(panels))
    for axes, (label, frame) in zip(all_axes, panels, strict=True):
        cost = next(name for name, text in COSTS.items() if text == label)
        _draw_front(axes, frame[cost].to_numpy(float), frame["score"].to_numpy(float), theme)
        axes.set_xlabel(label)
    all_axes[0].set_ylabel("score  (lower is better)")
    return figure


def draw_rank_intervals(tables: Tables, theme: Theme) -> Figure | None:
    """Interval of the rank over repeats, for the head of the ranking."""
    frame = _finite(_candidates(tables), ["rank", "rank_low", "rank_high"]).head(N_INTERVALS)
    if len(frame) < 2:
        return None
    figure, (axes,) = make_figure(theme, height=1.0 + 0.14 * len(frame))
    places = np.arange(len(frame))
    axes.hlines(places, frame["rank_low"], frame["rank_high"], color=theme.palette[0], linewidth=5, alpha=0.35)
    axes.plot(frame["rank"], places, "o", color=theme.palette[1], markersize=5)
    axes.set_yticks(places, [f"#{rank:.0f}" for rank in frame["rank"]])
    axes.set_ylim(len(frame) - 0.3, -0.7)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("rank over repeats")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_scale(axes, "x", frame[["rank", "rank_low", "rank_high"]].to_numpy())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    return figure


def draw_learning_curves(tables: Tables, theme: Theme) -> Figure | None:
    """Training loss and validation accuracy, or squared error, over episodes, one line a training."""
    panels = {
        "train_loss": "training loss",
        "validation_accuracy": "validation accuracy [%]",
        "validation_error": "validation squared error",
    }
    curves = {name: curve for name, curve in tables.curves.items() if "episode" in curve}
    panels = {
        column: label
        for column, label in panels.items()
        if any(len(_finite(curve, ["episode", column])) for curve in curves.values())
    }
    if not panels:
        return None
    figure, all_axes = make_figure(theme, n_panels=len(panels))
    for axes, (column, label) in zip(all_axes, panels.items(), strict=True):
        for index, (name, curve) in enumerate(list(curves.items())[:N_CURVES]):
            _draw_curve(axes, _finite(curve, ["episode", column]), column, plain(name), theme.palette[index])
        axes.set_xlabel("episodes")
        axes.set_ylabel(label)
    legend = all_axes[-1].legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    legend.set_in_layout(False)
    return figure


def draw_accuracies(tables: Tables, theme: Theme) -> Figure | None:
    """Final accuracies on novel classes with their 95 % confidence intervals."""
    frame = _finite(tables.evaluation, ["accuracy"]).head(N_ACCURACIES)
    if frame.empty:
        return None
    figure, (axes,) = make_figure(theme, height=1.2 + 0.3 * len(frame))
    places = np.arange(len(frame))
    accuracy, error = 100 * frame["accuracy"].to_numpy(float), 100 * _column(frame, "ci95").fillna(0).to_numpy(float)
    axes.errorbar(accuracy, places, xerr=error, fmt="o", color=theme.palette[0], capsize=3, linewidth=2, markersize=6)
    for place, value, margin in zip(places, accuracy, error, strict=True):
        axes.annotate(
            f"{value:.1f}", (value + margin, place), (6, 0), textcoords="offset points", va="center", color=theme.ink
        )
    axes.set_yticks(places, _trained_names(frame))
    axes.set_ylim(len(frame) - 0.3, -0.7)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    ways = set(_column(frame, "n_way").dropna())
    chance = f"  (chance: {100 / ways.pop():.3g})" if len(ways) == 1 else ""
    axes.set_xlabel(f"accuracy on novel classes [%]{chance}")
    return figure


PLOTS: dict[str, tuple[str, str, Drawer]] = {  # file stem: title, caption, drawer
    "accuracy": (
        "Accuracy of the trained architectures",
        "Mean over fixed episodes of novel classes; bars are 95 % confidence intervals.",
        draw_accuracies,
    ),
    "learning_curves": (
        "Learning curves",
        "Training loss and accuracy on validation classes while training; bands are 95 % confidence intervals.",
        draw_learning_curves,
    ),
    "condition_number_trace": (
        "Condition number against trace",
        f"Each dot is a candidate before training; the best {TOP} of the ranking are orange.",
        draw_condition_number_and_trace,
    ),
    "pareto": (
        "Score against cost",
        "The Pareto front is orange: nothing that costs less scores better. Does the ranking prefer large networks?",
        draw_pareto,
    ),
    "rank_intervals": (
        "How sure are the ranks?",
        "Dot: rank; bar: where the rank falls when the repeats (initialisations and episodes) are resampled.",
        draw_rank_intervals,
    ),
}


def _scatter(tables: Tables, theme: Theme, columns: tuple[str, str], labels: tuple[str, str]) -> Figure | None:
    """Scatter of two columns of the ranking, its head highlighted."""
    x, y = columns
    frame = _finite(_candidates(tables), ["rank", x, y])
    if len(frame) < 2:
        return None
    figure, (axes,) = make_figure(theme)
    top, rest = frame.head(TOP), frame.iloc[TOP:]
    size, alpha = (4, 0.35) if len(rest) > 1000 else (14, 0.55)
    axes.scatter(rest[x], rest[y], s=size, alpha=alpha, color=theme.palette[0], linewidths=0)
    axes.scatter(top[x], top[y], s=34, color=theme.palette[1], edgecolors=theme.background, linewidths=0.8, zorder=3)
    best = (float(top[x].iloc[0]), float(top[y].iloc[0]))
    halo = withStroke(linewidth=3, foreground=theme.background)
    axes.annotate("#1", best, (5, 5), textcoords="offset points", color=theme.ink, path_effects=[halo], zorder=4)
    for name, column in (("x", x), ("y", y)):
        set_scale(axes, name, frame[column].to_numpy())
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    return figure


def _draw_front(axes: Axes, costs: NDArray[np.float64], scores: NDArray[np.float64], theme: Theme) -> None:
    """Dots with their Pareto front, joined by a stair."""
    is_front = fronts(np.stack([costs, scores], axis=1)) == 1
    size, alpha = (4, 0.35) if len(costs) > 1000 else (14, 0.55)
    axes.scatter(costs[~is_front], scores[~is_front], s=size, alpha=alpha, color=theme.palette[0], linewidths=0)
    x, y = np.unique(np.stack([costs[is_front], scores[is_front]]), axis=1)
    axes.step(x, y, where="post", color=theme.palette[1], linewidth=1.2)
    axes.scatter(x, y, s=34, color=theme.palette[1], edgecolors=theme.background, linewidths=0.8, zorder=3)
    set_scale(axes, "x", costs)
    set_scale(axes, "y", scores)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def _draw_curve(axes: Axes, frame: pd.DataFrame, column: str, label: str, colour: str) -> None:
    """Line of one curve, with its confidence band if it has one."""
    unit = 100 if column.endswith("accuracy") else 1
    episodes, values = frame["episode"].to_numpy(float), unit * frame[column].to_numpy(float)
    axes.plot(episodes, values, label=label, color=colour, marker="o" if len(frame) == 1 else "", linewidth=1.8)
    if column.startswith("validation"):
        band = unit * _column(frame, "validation_ci").fillna(0).to_numpy(float)
        axes.fill_between(episodes, values - band, values + band, color=colour, alpha=0.15, linewidth=0)


def make_figure(theme: Theme, *, n_panels: int = 1, height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """Figure with styled axes side by side."""
    figure = Figure((WIDTH, height), layout="constrained", facecolor=theme.background)
    panels = [figure.add_subplot(1, n_panels, index + 1) for index in range(n_panels)]
    for axes in panels:
        axes.set_facecolor(theme.background)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.muted)
        axes.tick_params(which="both", colors=theme.muted, labelcolor=theme.ink, labelsize=9)
        axes.xaxis.label.set_color(theme.ink)
        axes.yaxis.label.set_color(theme.ink)
        axes.grid(color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def set_scale(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    """Use a logarithmic axis where positive values span orders of magnitude, and units such as M where large."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > LOG_SPAN:
        axes.set(**{f"{name}scale": "log"})
    elif high >= LARGE:
        (axes.xaxis if name == "x" else axes.yaxis).set_major_formatter(EngFormatter(sep=" "))


def _candidates(tables: Tables) -> pd.DataFrame:
    """Candidates that were scored, one of each canonical key, best first."""
    ranking = tables.ranking
    return ranking[ranking["status"] == "ok"].drop_duplicates("key")


def _finite(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows in which all these columns hold finite numbers, as floats; empty where a column is absent."""
    if not set(columns) <= set(frame.columns):
        return pd.DataFrame(columns=columns, dtype=float)
    numbers = frame.assign(**{column: _column(frame, column) for column in columns})
    found: pd.DataFrame = numbers[np.isfinite(numbers[columns].to_numpy(float)).all(axis=1)]
    return found


def _column(frame: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Column as floats, NaN where it is absent or not a number."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(frame[column], errors="coerce").astype("float64")


def _trained_names(frame: pd.DataFrame) -> list[str]:
    """Name each trained architecture: its rank or text, its learner, and its shots where they differ."""
    ranks, shots = _column(frame, "rank"), _column(frame, "n_shot")
    names = [f"#{rank:.0f}" if np.isfinite(rank) else arch for rank, arch in zip(ranks, frame["arch"], strict=True)]
    names = [f"{name}  {learner}" for name, learner in zip(names, frame["learner"], strict=True)]
    if len(set(shots.dropna())) > 1:
        names = [f"{name}  {shot:.0f}-shot" for name, shot in zip(names, shots, strict=True)]
    return [plain(name) for name in names]


def plain(text: str) -> str:
    """Short text in which matplotlib sees no formula."""
    short = text if len(text) <= 32 else text[:31] + "…"
    return short.replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
