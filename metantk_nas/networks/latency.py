"""How long a network takes for a batch of images here and now: measured, so no two runs agree to the last digit."""

import statistics
import time
from typing import Any

import torch
from torch import nn

WARM_UP = 3
"""Passes before the first that counts: caches fill, and a GPU's libraries choose their algorithms."""

TIMINGS = 15
"""Passes of which the median is taken, so that what else the machine does in between matters little."""


@torch.inference_mode()
def latency_ms(network: nn.Module, shape: tuple[int, int, int, int], device: torch.device) -> float:
    """Measure the median time of a forward pass, in milliseconds; the network is left on ``device``.

    Args:
        network: in evaluation mode.
        shape: of the batch, ``[row, channel, height, width]``.
        device: where it runs, with as many threads as PyTorch has in this process.
    """
    network = network.to(device)
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(WARM_UP + TIMINGS):
        start = _now(device)
        network(images)
        seconds.append(_now(device) - start)
    return 1000 * statistics.median(seconds[WARM_UP:])


def measuring_facts(device: torch.device, batch: int) -> dict[str, Any]:
    """What a latency was measured with, for manifests."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "warm_up": WARM_UP,
        "timings": TIMINGS,
        "statistic": "median",
        "unit": "ms",
        "network": "alone, as it is trained: batch normalisation, evaluation mode, float32",
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
