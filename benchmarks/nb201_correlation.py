"""How well do a run's metrics order NAS-Bench-201 cells by their trained accuracy?

    python benchmarks/nb201_correlation.py RUN --truth nas_bench_201_cifar10.csv --out TABLE.csv

RUN is the directory of `metantk-nas search --space nas_bench_201`; the truth is a CSV with the columns
arch_str and the accuracies. Spearman's ρ and Kendall's τ are signed so that positive means "the metric's
better direction has the higher accuracy"; intervals are 95 % bootstrap percentiles over cells.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from metantk_nas.results import Ranking
from metantk_nas.scorers.registry import METRICS

N_RESAMPLES = 1000


def correlate(metric: pd.Series, truth: pd.Series, sign: int, rng: np.random.Generator) -> dict[str, float]:
    """ρ and τ of one metric with the truth, and the interval of ρ."""
    places = rng.integers(len(metric), size=(N_RESAMPLES, len(metric)))
    resampled = [sign * spearmanr(metric.to_numpy()[p], truth.to_numpy()[p]).statistic for p in places]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "spearman": sign * spearmanr(metric, truth).statistic,
        "spearman_low": low,
        "spearman_high": high,
        "kendall": sign * kendalltau(metric, truth).statistic,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--column", default="cifar10_test200")
    parser.add_argument("--limit", type=int, help="use the first N connected cells, in the order of the ranking's keys")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    frame = Ranking.load(arguments.run / "ranking.csv").frame
    frame = frame[frame["status"] == "ok"].sort_values("key").head(arguments.limit or len(frame))
    truth = pd.read_csv(arguments.truth).set_index("arch_str")[arguments.column]
    frame = frame.assign(truth=truth.reindex(frame["arch"]).to_numpy())
    rng = np.random.default_rng(0)
    rows = []
    for name, metric in METRICS.items():
        if name in frame and frame[name].notna().all():
            sign = 1 if metric.higher_is_better else -1
            rows.append({"metric": name, **correlate(frame[name].astype(float), frame["truth"], sign, rng)})
    table = pd.DataFrame(rows).sort_values("spearman", ascending=False).round(4)
    print(f"{len(frame)} cells, {arguments.column}")
    print(table.to_string(index=False))
    if arguments.out:
        table.to_csv(arguments.out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
