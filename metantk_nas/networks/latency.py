"""How long a network takes for a batch of images here and now: measured, so no two runs agree to the last digit."""

import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import nn

WARM_UP = 3
"""Passes before the first that counts: caches fill, and a GPU's libraries choose their algorithms."""

TIMINGS = 15
"""Passes of which the median is taken, so that what else the machine does in between matters little."""


class Latency(NamedTuple):
    """Time of a forward pass.

    Args:
        ms: median of the timings, in milliseconds.
        sd: their sample standard deviation, in milliseconds: large where the machine did other things in between.
    """

    ms: float
    sd: float


@torch.inference_mode()
def latency(network: nn.Module, shape: tuple[int, int, int, int], device: torch.device) -> Latency:
    """Measure the time of a forward pass; the network is left on ``device``.

    Args:
        network: in evaluation mode.
        shape: of the batch, ``[row, channel, height, width]``.
        device: where it runs, with as many threads as PyTorch has in this process.
    """
    network = network.to(device)
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    timings = []
    for _ in range(WARM_UP + TIMINGS):
        start = _now(device)
        network(images)
        timings.append(1000 * (_now(device) - start))
    counted = timings[WARM_UP:]
    return Latency(statistics.median(counted), statistics.stdev(counted))


def measuring_facts(device: torch.device, batch: int) -> dict[str, Any]:
    """What a latency was measured with, for manifests."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "warm_up": WARM_UP,
        "timings": TIMINGS,
        "statistic": "median",
        "spread": "standard deviation of the timings",
        "unit": "ms",
        "network": "alone, as it is trained: batch normalisation, evaluation mode, float32",
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
