"""What the benchmark scripts share: interleaved timing, and a machine described in words."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def interleaved(methods: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each method; the methods take turns, so that a slow minute of the machine hits all alike.

    On a CPU seconds are processor seconds of this process (all threads), on a GPU wall-clock.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats + 1):
        for name, run in methods.items():
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first turn warms up
                seconds[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def machine(device: torch.device) -> dict[str, Any]:
    """Say on what the figures were measured."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def settings_of(arguments: argparse.Namespace) -> dict[str, str]:
    """What was asked for on the command line, without the places of this machine."""
    return {name: str(value) for name, value in vars(arguments).items() if not isinstance(value, Path)}


def matmul_rate(device: torch.device, size: int = 1024) -> float:
    """Measured floating-point operations per second of a float32 matrix product."""
    left, right = torch.randn(2, size, size, device=device)
    taken = interleaved({"product": lambda: left @ right}, 20, device)["product"]
    return 2 * size**3 / taken
