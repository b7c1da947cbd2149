"""Does a search stay within its --memory? Asked, predicted and measured peak, a fresh process for each setting.

    python benchmarks/memory.py --json benchmarks/results/memory.json

Each search scores just enough candidates for four chunks of the memory it may take, on one CPU, with one repeat. A
constant that fits badly is `BYTES_PER_ACTIVATION` of metantk_nas/experiment/memory.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import machine

from metantk_nas.experiment.engine import chunk_limit
from metantk_nas.experiment.memory import BYTES_PER_ACTIVATION, LIBRARY_BYTES, parse_memory, peak_bytes, resident_bytes
from metantk_nas.experiment.scoring import score
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.rng import python_generator

SETTINGS = ("darts 16 8", "darts_fewshot 48 5", "nas_bench_201 16 3")
ASKED = ("1GiB", "4GiB")
N_ROWS = 30
N_CHUNKS = 4


def measure(space: str, init_channels: int, n_cells: int, asked: str) -> dict[str, Any]:
    """Search in this process, and compare its peak with what was asked for and with what the engine predicted."""
    spec = SearchSpec(
        space=space, init_channels=init_channels, n_cells=n_cells, repeats=1, device="cpu", memory=asked, seed=0
    )
    bench = Workbench.of(spec)
    rng = python_generator(spec.seed, "benchmark")
    limit = chunk_limit(bench)
    resident = resident_bytes()
    genotypes, sizes = [], []
    while sum(sizes) < N_CHUNKS * limit.capacity or len(sizes) < N_CHUNKS:
        genotypes.append(bench.space.sample(rng))
        sizes.append(float(bench.cost(bench.space.representative(genotypes[-1])).activations))
    chunks, rest = list[list[float]](), sizes
    while rest:
        n_fitting = limit.n_fitting(rest)
        chunks.append(rest[:n_fitting])
        rest = rest[n_fitting:]
    own = resident + LIBRARY_BYTES + 4 * bench.cost(bench.space.subspace()).params
    with tempfile.TemporaryDirectory() as folder:
        ranking = score([bench.space.format(each) for each in genotypes], spec, Path(folder) / "run")
    return {
        "space": space,
        "init_channels": init_channels,
        "n_cells": n_cells,
        "asked_mib": parse_memory(asked) // 2**20,
        "resident_mib": round(resident / 2**20),
        "predicted_mib": round((own + N_ROWS * BYTES_PER_ACTIVATION["cpu"] * max(map(sum, chunks))) / 2**20),
        "measured_mib": round(peak_bytes() / 2**20),
        "candidates": len(ranking),
        "first_chunk": len(chunks[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asked", nargs="+", default=ASKED)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="'SPACE CHANNELS CELLS' …")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        space, channels, cells, asked = arguments.one
        print(json.dumps(measure(space, int(channels), int(cells), asked)))
        return
    rows = []
    print(f"{'space':<15}{'asked':>9}{'predicted':>11}{'measured':>10}{'/ asked':>9}{'chunk':>7}   MiB")
    for setting in arguments.settings:
        for asked in arguments.asked:
            command = [sys.executable, __file__, "--one", *setting.split(), asked]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            print(
                f"{row['space']:<15}{row['asked_mib']:>9.0f}{row['predicted_mib']:>11}{row['measured_mib']:>10}"
                f"{row['measured_mib'] / row['asked_mib']:>9.2f}{row['first_chunk']:>7}",
                flush=True,
            )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": machine(torch.device("cpu")), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
