"""Does a ranking at initialisation save an Optuna study trainings? Tabulated NAS-Bench-201, no network runs.

    python benchmarks/optuna_warm_start.py --ranking results/RUN --json benchmarks/results/optuna_warm_start.json
    python benchmarks/optuna_warm_start.py --ranking results/RUN --rank-by metantk-nas --rank-by params --k 20

A study (TPE, Optuna's default sampler, as it comes) is told the CIFAR-10 validation accuracy of each cell that it
proposes. How many trials until it has one of the best 5 %, 1 % or 0.1 % of all 15,625 cells? Once from nothing, and
once after `enqueue_top` of each ranking; the enqueued trials count. Rankings: the run's own (`rank`), and anew by
--rank-by from the columns that it has. With --sample each seed ranks a random sample of the run's cells, as a search of
that budget would, so that intervals also hold the luck of what was ranked; without it all seeds begin alike. Studies
that do not get there within --trials count as one more. Medians over seeds, with percentile bootstrap intervals;
`saved` is how many trials the warm start saves, `faster` the share of pairs of a warm and a cold study in which the
warm one is faster (ties count half). Accuracies are looked for in METANTK_DATA, or in ../shared/data beside the
checkout.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from timing import machine, settings_of

from metantk_nas.integrations.optuna import enqueue_top, suggest
from metantk_nas.results import Ranking, rank, read_json
from metantk_nas.scorers.registry import rank_rule
from metantk_nas.spaces.load import load_space

SPACE = load_space("nas_bench_201")
DATA = Path(os.environ.get("METANTK_DATA", Path(__file__).parents[2] / "shared" / "data"))
N_RESAMPLES = 10_000
Array = NDArray[np.float64]


def trials_needed(
    accuracies: dict[str, float], targets: Array, ranking: Ranking | None, *, k: int, n_trials: int, seed: int
) -> Array:
    """Run one study, and count its trials until each target is reached; infinite where it is not."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    if ranking is not None:
        enqueue_top(study, ranking, k, space=SPACE)
    study.optimize(
        lambda trial: accuracies[SPACE.format(suggest(trial, SPACE))],
        n_trials=n_trials,
        callbacks=[lambda study, trial: study.stop() if trial.value >= targets.max() else None],
    )
    best = np.maximum.accumulate([trial.value for trial in study.trials if trial.value is not None])
    return np.array([1.0 + np.argmax(best >= target) if best[-1] >= target else np.inf for target in targets])


def interval(values: Array) -> list[float]:
    """95 % interval of bootstrapped values."""
    return [float(edge) for edge in np.quantile(values, [0.025, 0.975], method="inverted_cdf")]


def compare(warm: Array, cold: Array, n_trials: int) -> dict[str, object]:
    """Medians of two samples of trial counts and of their difference, with bootstrap intervals."""
    rng = np.random.default_rng(0)
    warm, cold = np.minimum(warm, n_trials + 1), np.minimum(cold, n_trials + 1)
    warm_medians, cold_medians = (
        np.median(sample[rng.integers(len(sample), size=(N_RESAMPLES, len(sample)))], axis=1) for sample in (warm, cold)
    )
    pairs = np.sign(cold[:, None] - warm[None])
    return {
        "trials": float(np.median(warm)),
        "trials_95": interval(warm_medians),
        "reached": int((warm <= n_trials).sum()),
        "saved": float(np.median(cold) - np.median(warm)),
        "saved_95": interval(cold_medians - warm_medians),
        "faster": round(float((pairs.mean() + 1) / 2), 3),
    }


def ranking_of(own: Ranking, start: str, sample: int | None, seed: int) -> Ranking | None:
    """What a study starts from: the run's own order (``"rank"``), another rule's, or nothing (``"cold"``)."""
    if start == "cold":
        return None
    frame = own.frame
    if sample is not None:
        frame = frame.iloc[np.sort(np.random.default_rng(seed).choice(len(frame), sample, replace=False))]
    return Ranking(frame if start == "rank" else rank(frame, rank_rule(start)))


def study(arguments: argparse.Namespace) -> pd.DataFrame:
    """One row for each start and target."""
    table = pd.read_csv(DATA / "nas_bench_201_cifar10.csv").set_index("arch_str")[arguments.told]
    own = Ranking.load(arguments.ranking / "ranking.csv" if arguments.ranking.is_dir() else arguments.ranking)
    shares, told = np.array(arguments.best), table.to_dict()
    targets = np.sort(table.to_numpy())[::-1][np.ceil(shares * len(table)).astype(int) - 1]
    found = {
        start: np.stack(
            [
                trials_needed(
                    told,
                    targets,
                    ranking_of(own, start, arguments.sample, seed),
                    k=arguments.k,
                    n_trials=arguments.trials,
                    seed=seed,
                )
                for seed in range(arguments.seeds)
            ]
        )
        for start in ("cold", "rank", *arguments.rank_by)
    }
    return pd.DataFrame(
        [
            {
                "start": start,
                "best": f"{share:.1%}",
                "accuracy": round(float(target), 2),
                **compare(needed[:, at], found["cold"][:, at], arguments.trials),
            }
            for start, needed in found.items()  # the cold start against itself saves 0, give or take its interval
            for at, (share, target) in enumerate(zip(shares, targets, strict=True))
        ]
    )


def about(path: Path) -> dict[str, object]:
    """What the manifest beside a ranking says of it."""
    manifest = (path if path.is_dir() else path.parent) / "manifest.json"
    if not manifest.exists():
        return {"file": path.name}
    facts = read_json(manifest)
    told = (
        "space",
        "data",
        "searcher",
        "budget",
        "init_channels",
        "n_cells",
        "image_size",
        "repeats",
        "rank_by",
        "seed",
    )
    return {**{name: facts["spec"].get(name) for name in told}, "git_commit": facts["git_commit"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranking", type=Path, required=True, help="a run on nas_bench_201, or its ranking.csv")
    parser.add_argument("--rank-by", action="append", default=[], help="also rank anew by a preset or metrics")
    parser.add_argument("--sample", type=int, help="cells of the ranking that each seed draws; all where not given")
    parser.add_argument("--k", type=int, default=10, help="architectures that are enqueued")
    parser.add_argument(
        "--best", type=float, nargs="+", default=[0.05, 0.01, 0.001], help="targets: shares of all cells"
    )
    parser.add_argument("--told", default="cifar10_valid200", help="column of accuracies that studies are told")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    start = time.perf_counter()
    table = study(arguments)
    print(
        f"nas_bench_201, {arguments.told}, {arguments.k} enqueued, {arguments.seeds} seeds, {arguments.trials} trials"
    )
    print(table.to_string(index=False))
    if arguments.json:
        settings = settings_of(arguments)
        record = {
            "settings": settings,
            "ranking": about(arguments.ranking),
            "machine": {**machine(torch.device("cpu")), "optuna": optuna.__version__},
            "seconds": round(time.perf_counter() - start, 1),
            "starts": table.to_dict("records"),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
