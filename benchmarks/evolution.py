"""Does evolution find better cells than random search for the same number of scores?

    python benchmarks/evolution.py                      # trained accuracies of NAS-Bench-201, 500 looked up
    python benchmarks/evolution.py --told cifar10_valid200
    python benchmarks/evolution.py --table ranking.csv --column condition_number --lower-is-better

No network runs. Without --table a searcher is told a cell's tabulated accuracy (--told), the best told is its pick,
and the picks are judged by their test accuracy after 200 epochs; both searchers draw the same first cells. The
accuracies are looked for in METANTK_DATA, or in ../shared/data beside the checkout. With --table a searcher is told a
column of an exhaustive run's ranking, whose canonical keys share values, and the better pick wins.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from metantk_nas.results import Ranking
from metantk_nas.searchers.base import SearchProblem
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space

SPACE = load_space("nas_bench_201")
DATA = Path(os.environ.get("METANTK_DATA", Path(__file__).parents[2] / "shared" / "data"))
ASK = 64


def pick(name: str, seed: int, cost: Callable[[Genotype], float | None], arguments: argparse.Namespace) -> Genotype:
    """Search, lower cost is better, and return the best that was told."""
    problem = SearchProblem(
        SPACE, arguments.budget, seed, lambda _: True, lambda group: [float(found.mean()) for found in group]
    )
    settings = dict(text.split("=") for text in arguments.set) if name == "evolution" else {}
    searcher = make_searcher(name, problem, {setting: int(value) for setting, value in settings.items()})
    told: dict[Genotype, float] = {}
    while asked := searcher.ask(ASK):
        for genotype in asked:
            assert isinstance(genotype, Genotype)
            value = cost(genotype)
            searcher.tell(genotype, None if value is None else np.full((1, 1), value))
            told |= {} if value is None else {genotype: value}
    return min(told, key=told.__getitem__)


def accuracies(arguments: argparse.Namespace) -> pd.DataFrame:
    """Test accuracies of what each searcher picks by tabulated accuracy."""
    table = pd.read_csv(DATA / "nas_bench_201_cifar10.csv").set_index("arch_str")
    told, test = table[arguments.told].to_dict(), table["cifar10_test200"].to_dict()
    rows = []
    for name in ("random", "evolution"):
        picks = [pick(name, seed, lambda cell: -told[SPACE.format(cell)], arguments) for seed in range(arguments.seeds)]
        found = pd.Series([test[SPACE.format(cell)] for cell in picks])
        rows.append({"searcher": name, "mean": found.mean(), "sd": found.std(), "min": found.min(), "max": found.max()})
    return pd.DataFrame(rows).round(3)


def wins(arguments: argparse.Namespace) -> pd.DataFrame:
    """How often each searcher's pick beats the other's in a column of a ranking."""
    frame = Ranking.load(arguments.table).frame
    sign = 1 if arguments.lower_is_better else -1
    values: dict[str, float] = (
        sign * frame[frame["status"] == "ok"].groupby("key")[arguments.column].first()
    ).to_dict()
    missing = SPACE.size - len(frame)
    if missing:
        raise SystemExit(f"{arguments.table} lacks {missing:,} cells; expected the ranking of --searcher exhaustive.")

    def cost(cell: Genotype) -> float | None:
        return values.get(SPACE.key(cell))

    found = {
        name: np.array([cost(pick(name, seed, cost, arguments)) for seed in range(arguments.seeds)], dtype=float)
        for name in ("random", "evolution")
    }
    rows = [
        {
            "searcher": name,
            "wins": int((found[name] < found[other]).sum()),
            "median": sign * float(np.median(found[name])),
            "best_of_all": int((found[name] == min(values.values())).sum()),
        }
        for name, other in (("random", "evolution"), ("evolution", "random"))
    ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--told", default="cifar10_valid12", help="column of accuracies that the searchers are told")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of evolution")
    parser.add_argument("--table", type=Path, help="ranking.csv of an exhaustive run of nas_bench_201")
    parser.add_argument("--column", default="condition_number")
    parser.add_argument("--lower-is-better", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    table = wins(arguments) if arguments.table else accuracies(arguments)
    if arguments.json:
        print(json.dumps(table.to_dict("records"), indent=2))
    else:
        told = arguments.column if arguments.table else f"{arguments.told} → cifar10_test200"
        print(f"nas_bench_201, {arguments.budget} evaluations, {arguments.seeds} seeds, {told}")
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
