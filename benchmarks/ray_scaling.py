"""What does a Ray cluster cost a search, against workers of this machine?

    python benchmarks/ray_scaling.py --workers 1,2 --json benchmarks/results/ray_scaling.json

Overhead: jobs of the form of a search's (one architecture, one score) that cost nothing are sent to one worker,
one after the other (round trip), and to all workers as fast as they go (per chunk; its processor time is what the
process that holds the store spends, whatever else the machine does). Start: until the first answer. Scaling: the same
search with `--devices cpu,…` and with `--engine ray`, in turns, one thread a worker, by the candidates a second between
the first and the last that is scored; the rankings must be identical. Ray makes its workers yield to other programs
(nice 15); here they do not, as those of `--devices` do not.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from timing import machine, settings_of

import metantk_nas
from metantk_nas.experiment.cluster import RayCrew
from metantk_nas.experiment.tasks import Answer, Item, Task
from metantk_nas.experiment.workers import AbstractCrew, SpawnedCrew
from metantk_nas.types import Score

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"


def answers_at_once() -> Callable[[Task], Answer]:
    """A recipe."""
    return _answer


def _answer(task: Task) -> Answer:
    values = {"condition_number": 123.4, "trace": 5678.9}
    return [Score(item.key, task.repeat, task.scorer, values, seconds=0.1) for item in task.items]


@contextmanager
def crew_of(kind: str, n_workers: int) -> Iterator[AbstractCrew[Task, Answer]]:
    """Workers that answer at once."""
    crew: AbstractCrew[Task, Answer]
    if kind == "local":
        crew = SpawnedCrew([answers_at_once] * n_workers, print)
    else:
        crew = RayCrew(answers_at_once, print, n_workers=n_workers)
    try:
        yield crew
    finally:
        crew.close()


def overhead(kind: str, n_workers: int, n_jobs: int) -> dict[str, float]:
    """Seconds until the first answer, of a round trip (median, quartiles), and per chunk with all workers at it."""
    tasks = [Task("kernel", 0, (Item(f"{ARCH}{number}", ARCH, 1.0),)) for number in range(n_jobs)]
    start = time.perf_counter()
    with crew_of(kind, 1) as crew:
        trips = [round_trip(crew, task) for task in tasks]
        first = trips.pop(0)
    begun = time.perf_counter() - start
    with crew_of(kind, n_workers) as crew:
        work_off(crew, tasks[: 4 * n_workers])  # all workers are there
        start, start_cpu = time.perf_counter(), time.process_time()
        work_off(crew, tasks)
        each, cpu = (time.perf_counter() - start) / n_jobs, (time.process_time() - start_cpu) / n_jobs
    low, median, high = statistics.quantiles(trips, n=4)
    return {
        "start_s": begun - sum(trips),
        "first_answer_s": first,
        "round_trip_ms": 1e3 * median,
        "round_trip_low_quartile_ms": 1e3 * low,
        "round_trip_high_quartile_ms": 1e3 * high,
        "per_chunk_ms": 1e3 * each,
        "per_chunk_cpu_ms": 1e3 * cpu,
    }


def round_trip(crew: AbstractCrew[Task, Answer], task: Task) -> float:
    """Seconds between a job and its answer."""
    start = time.perf_counter()
    work_off(crew, [task])
    return time.perf_counter() - start


def work_off(crew: AbstractCrew[Task, Answer], tasks: list[Task]) -> None:
    """Do jobs as the engine does."""
    waiting, n_open = iter(tasks), 0
    for task in waiting:
        crew.begin(task)
        n_open += 1
        if not crew.is_free:
            n_open -= len(crew.finish())
    while n_open:
        n_open -= len(crew.finish())


def search(kind: str, n_workers: int, settings: dict[str, Any]) -> tuple[dict[str, float], str]:
    """Candidates a second between the first and the last that was scored, whole seconds, and the ranking."""
    times: list[tuple[float, int]] = []

    def look(label: str, done: int, _: int) -> None:
        if label == "scoring":
            times.append((time.perf_counter(), done))

    torch.set_num_threads(n_workers)  # one for each worker
    where = {"devices": ",".join(["cpu"] * n_workers)} if kind == "local" else {}
    where |= {"engine": "ray", "ray_workers": n_workers} if kind == "ray" else {}
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        ranking = metantk_nas.search(out=Path(folder) / "run", progress=look, **where, **settings)
        whole = time.perf_counter() - start
    (first, n_first), (last, n_last) = times[0], times[-1]
    rate = (n_last - n_first) / (last - first)
    return {"whole_s": whole, "candidates_per_s": rate}, ranking.frame.drop(columns="seconds").to_csv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2", help="numbers of workers to compare")
    parser.add_argument("--jobs", type=int, default=1000, help="chunks to measure the overhead with")
    parser.add_argument("--turns", type=int, default=3, help="how often each search is made; the fastest counts")
    parser.add_argument("--budget", type=int, default=200, help="architectures of a search; 0 leaves searches out")
    parser.add_argument("--init-channels", type=int, default=16)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    numbers = [int(text) for text in arguments.workers.split(",")]
    os.environ |= {"RAY_worker_niceness": "0"}
    found: dict[str, dict[str, float]] = {}
    for kind in ("local", "ray"):
        found[f"{kind}, overhead"] = overhead(kind, max(numbers), arguments.jobs)
    settings = {
        "space": "nas_bench_201",
        "init_channels": arguments.init_channels,
        "n_cells": 3,
        "repeats": 1,
        "chunk": 1,
    }
    rankings = set()
    for _ in range(arguments.turns if arguments.budget else 0):
        for n_workers in numbers:
            for kind in ("local", "ray"):
                name = f"{kind}, {n_workers} workers"
                figures, ranking = search(kind, n_workers, {**settings, "budget": arguments.budget})
                rankings.add(ranking)
                found[name] = max(figures, found.get(name, figures), key=lambda each: each["candidates_per_s"])
    if len(rankings) > 1:
        raise SystemExit("the rankings differ")
    for name, figures in found.items():
        print(f"{name:16}", "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    if arguments.json:
        chosen = settings_of(arguments)
        record = {"settings": chosen, "machine": machine(torch.device("cpu")), "figures": found}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
