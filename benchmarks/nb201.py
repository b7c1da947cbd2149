"""How many NAS-Bench-201 cells a second? A search over the whole space, or the first part of it.

    python benchmarks/nb201.py --devices cpu,cpu --json benchmarks/results/nb201.json
    python benchmarks/nb201.py --device cuda --json benchmarks/results/nb201-gpu.json

16 channels, one cell a stage, 30 rows, one repeat: all 15,625 cells by their canonical keys, with everything a search
does (workers, store, ranking, report). Wall-clock seconds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from timing import machine, settings_of

from metantk_nas.experiment.scoring import search
from metantk_nas.experiment.spec import SearchSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, help="the first cells only")
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--rank-by", default=SearchSpec.rank_by, help="which scores are computed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--devices")
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--out", type=Path, help="keep the run here")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    spec = SearchSpec(
        space="nas_bench_201",
        data=arguments.data,
        data_root=arguments.data_root,
        init_channels=16,
        n_cells=3,
        repeats=1,
        searcher="exhaustive",
        budget=arguments.budget,
        rank_by=arguments.rank_by,
        device=arguments.device,
        devices=arguments.devices,
        chunk=arguments.chunk,
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        frame = search(spec, arguments.out or Path(folder) / "run").frame
        seconds = time.perf_counter() - start
    keys = frame["key"].nunique()
    print(f"{len(frame):,} cells, {keys:,} keys: {seconds:.1f} s, {len(frame) / seconds:.1f} cells a second")
    print(f"{(frame['status'] == 'ok').sum():,} could be scored")
    if arguments.json:
        used = torch.device(arguments.device if arguments.device != "auto" else "cpu")
        settings = settings_of(arguments)
        record = {
            "settings": settings,
            "machine": machine(used),
            "cells": len(frame),
            "keys": int(keys),
            "seconds": seconds,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
