"""How alike are genotypes that searches found, beside chance and beside the published ones?

    python benchmarks/genotype_agreement.py results/pruning/seed0 results/pruning/seed1 … --csv TABLE.csv

Takes the best of each run and the six published genotypes of MetaNTK-NAS, from searched_fewshot_genotypes.json in
METANTK_DATA, or in ../shared/data beside the checkout. Of two genotypes it says which share of a cell's edges (a node
reading a state) they have in common, which share of edges with their operation, and how alike the numbers of each
operation are (shared operations as multisets). Chance is the mean over pairs of 2,000 random genotypes of the space.
Ours are also shuffled, operations over the edges of a cell: if that changes nothing, only which operations are left
is alike. Then, for each run, what it has in common with the published, and the share of random genotypes that have as
much.
"""

import argparse
import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from statistics import mean

import pandas as pd

from metantk_nas.results import Ranking
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space

DATA = Path(os.environ.get("METANTK_DATA") or Path(__file__).parents[2] / "shared" / "data")
SPACE = load_space("darts_fewshot")
N_RANDOM = 2000
N_SHUFFLED = 200


def agreement(first: Genotype, second: Genotype) -> dict[str, float]:
    """Shares in [0, 1] of what two genotypes have in common."""
    shared, whole = Counter[str](), 0
    for (cell_type, mine), (_, theirs) in zip(first.cells, second.cells, strict=True):
        del cell_type
        edges, others = (
            {(node, index): op for node, part in enumerate(cell) for op, index in part} for cell in (mine, theirs)
        )
        whole += len(edges)
        common = edges.keys() & others.keys()
        shared["edges"] += len(common)
        shared["edges with operation"] += sum(edges[edge] == others[edge] for edge in common)
        shared["operations"] += (Counter(edges.values()) & Counter(others.values())).total()
    return {name: shared[name] / whole for name in ("edges", "edges with operation", "operations")}


def average(pairs: Sequence[tuple[Genotype, Genotype]]) -> dict[str, float]:
    found = [agreement(*pair) for pair in pairs]
    return {"pairs": len(found), **{name: round(mean(each[name] for each in found), 3) for name in found[0]}}


def published() -> dict[str, Genotype]:
    """The six genotypes, by data set and number of cells."""
    records = json.loads((DATA / "searched_fewshot_genotypes.json").read_text())
    return {
        f"published {index} ({record['n_cells']} cells)": Genotype(
            tuple(
                (kind, tuple(tuple((op, index) for op, index in node) for node in record[kind]))
                for kind in ("normal", "reduce")
            )
        )
        for index, record in enumerate(records, 1)
    }


def found(runs: Sequence[Path]) -> dict[str, Genotype]:
    """The best genotype of each run."""
    return {run.name: SPACE.parse(Ranking.load(run / "ranking.csv").top(1).frame["arch"].iloc[0]) for run in runs}


def against_chance(
    ours: Mapping[str, Genotype], published: Sequence[Genotype], chance: Sequence[Genotype]
) -> pd.DataFrame:
    """What each of ours has in common with the published, and the share of random genotypes that have as much."""
    by_chance = pd.DataFrame([average(list(product([each], published))) for each in chance]).drop(columns="pairs")
    rows = {}
    for name, genotype in ours.items():
        common = pd.Series(average(list(product([genotype], published)))).drop("pairs")
        rows[name] = pd.concat([common, (by_chance >= common).mean().add_suffix(", random")]).round(3)
    return pd.DataFrame(rows).T


def shuffled(genotype: Genotype, rng: random.Random) -> Genotype:
    """The same edges, and the same operations in each cell, on edges at random."""
    cells = []
    for cell_type, nodes in genotype.cells:
        ops = [op for node in nodes for op, _ in node]
        rng.shuffle(ops)
        dealt = iter(ops)
        cells.append((cell_type, tuple(tuple((next(dealt), index) for _, index in node) for node in nodes)))
    return Genotype(tuple(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path, help="write the genotypes here")
    arguments = parser.parse_args()
    ours, theirs = found(arguments.runs), published()
    rng = random.Random(0)
    chance = [SPACE.sample(rng) for _ in range(N_RANDOM)]
    groups = {
        "ours among each other": list(combinations(ours.values(), 2)),
        "ours and published": list(product(ours.values(), theirs.values())),
        "ours, operations shuffled, and published": list(
            product([shuffled(each, rng) for each in ours.values() for _ in range(N_SHUFFLED)], theirs.values())
        ),
        "published among each other": list(combinations(theirs.values(), 2)),
        "ours and chance": list(product(ours.values(), chance)),
        "chance": list(zip(chance[::2], chance[1::2], strict=True)),
    }
    print(pd.DataFrame({name: average(pairs) for name, pairs in groups.items() if pairs}).T.to_string())
    print(against_chance(ours, list(theirs.values()), chance).to_string())
    genotypes = pd.DataFrame(
        [{"search": name, "arch": SPACE.format(each)} for name, each in {**ours, **theirs}.items()]
    )
    print(genotypes.to_string(index=False))
    if arguments.csv:
        genotypes.to_csv(arguments.csv, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
