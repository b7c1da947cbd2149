"""Draw the charts of README from the figures that other commands have left.

    python benchmarks/charts.py

``benchmarks/results/kernel.svg`` shows what one kernel costs by each method (``kernel-darts_fewshot.json``),
``results/fewshot_bench/presets.svg`` how well ranking rules foretell few-shot accuracy (``all_cells.csv``).
"""

import json
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk_nas.report.plots import LIGHT, make_figure

ROOT = Path(__file__).parents[1]

METHODS = {
    "forward + backward": "a training step's forward\nand backward pass",
    "ours": "our kernel",
    "one backward a row": "one backward a row",
    "opacus": "Opacus",
    "vmap(grad)": "torch.func: vmap(grad)",
}
"""Names in the file, and in the chart."""

RULES = {
    "few-shot": "default, few-shot",
    "few-shot-nb201": "few-shot-nb201",
    "params": "parameters",
    "synflow": "SynFlow",
    "metantk-nas": "MetaNTK-NAS' rule",
    "naswot": "NASWOT",
    "zen_score": "Zen-score",
    "metantk": "condition number + trace",
}
BAR = "#c9ced6"
TRUTHS = {
    "cifar_fs": "NAS-Bench-201,\nCIFAR-FS",
    "omniglot": "NAS-Bench-201,\nOmniglot",
    "darts": "few-shot DARTS,\nCIFAR-FS",
}


def draw_kernel() -> Figure:
    """Bars of milliseconds."""
    found = json.loads((ROOT / "benchmarks/results/kernel-darts_fewshot.json").read_text())
    milliseconds = {label: 1e3 * found["seconds"][name] for name, label in METHODS.items()}
    figure, (axes,) = make_figure(LIGHT, height=2.4)
    draw_bars(axes, milliseconds, METHODS["ours"])
    axes.set_xlim(0, 1.1 * max(milliseconds.values()))
    axes.set_xlabel("milliseconds of one core, 30 images, the paper's network")
    for place, value in enumerate(milliseconds.values()):
        axes.annotate(f"{value:,.0f}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    return figure


def draw_presets() -> Figure:
    """Bars of Kendall's τ with intervals, a panel for each truth."""
    table = pd.read_csv(ROOT / "results/fewshot_bench/all_cells.csv").set_index(["truth", "rule"])
    figure, panels = make_figure(LIGHT, n_panels=len(TRUTHS), height=3.1)
    for axes, (truth, title) in zip(panels, TRUTHS.items(), strict=True):
        rows = table.loc[truth].loc[list(RULES)]
        draw_bars(axes, dict(zip(RULES.values(), rows["kendall"], strict=True)), RULES["few-shot"])
        axes.hlines(range(len(rows)), rows["kendall_low"], rows["kendall_high"], color=LIGHT.muted, linewidth=1.2)
        axes.set_title(title, fontsize=10, color=LIGHT.ink)
        axes.set_xlim(-0.2, 0.9)
    panels[1].set_xlabel("Kendall's τ with few-shot accuracy, 95 % interval")
    for axes in panels[1:]:
        axes.set_yticklabels([])
    return figure


def draw_bars(axes: Axes, values: dict[str, float], ours: str) -> None:
    """Horizontal bars, the first on top, one of them in colour."""
    colours = [LIGHT.palette[0] if name == ours else BAR for name in values]
    axes.barh(list(values), list(values.values()), color=colours, height=0.7)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "metantk-nas"  # the same figures make the same file
    for path, figure in {
        ROOT / "benchmarks/results/kernel.svg": draw_kernel(),
        ROOT / "results/fewshot_bench/presets.svg": draw_presets(),
    }.items():
        figure.savefig(path, metadata={"Date": None})
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
