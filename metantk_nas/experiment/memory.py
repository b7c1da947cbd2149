"""How much memory there is, and how many candidates fit into it."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path

import torch

from metantk_nas.errors import UsageError, brief

BYTES_PER_ACTIVATION = {"cpu": 5.0, "cuda": 4.5}
"""Peak memory of the kernel scorer over the activations of its chunk, in float32, by type of device.

Every layer's output is kept once for the backward pass (4 bytes each), less what is summed and dropped, plus the
copies that gather each operation's candidates, plus gradients on their way: 4.0 to 4.6 bytes of tensors at a time,
measured on chunks of DARTS, few-shot DARTS and NAS-Bench-201. On a CPU the C library's allocator adds up to a third.
`benchmarks/memory.py` measures it again.
"""

LIBRARY_BYTES = 96 * 2**20
"""Memory that libraries and a fragmented heap come to hold on a CPU beside a chunk, as chunks of many sizes go by."""

CHUNK_BYTES = 2 * 2**30
"""Memory that the chunks of all CPU workers take where ``--memory`` is not given."""

MAX_CHUNK = {"cpu": 1, "cuda": 512}
"""Candidates of a chunk at most where ``--memory`` is not given.

A GPU wants few large launches. On a CPU one architecture alone stays in the caches: in chunks of 16 a DARTS cell takes
0.66 s instead of 0.38 s on one thread, 0.54 s instead of 0.25 s on two.
"""

CUDA_SHARE = 0.8
"""Share of a GPU's free memory that is used where ``--memory`` is not given."""

CLUSTER_GPU_BYTES = 12 * 2**30
"""Memory of a cluster's GPU that is used where ``--memory`` is not given; where it runs out, chunks are halved."""

FLOAT_BYTES = 4

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_memory(text: str) -> int:
    """Read an amount of memory such as ``512MiB``, ``4GiB`` or ``1.5G``, in bytes; units are powers of 1024.

    Raises:
        UsageError: the text is no amount, or less than a mebibyte.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if not found:
        raise UsageError(f"--memory {brief(text)} is no amount of memory; expected for example 512MiB, 4GiB or 1.5G.")
    amount = int(min(float(found[1]) * _UNITS[found[2].upper()], 2**62))
    if amount < 2**20:
        raise UsageError(f"--memory {brief(text)} is {amount:,} bytes; expected at least 1MiB, for example 4GiB.")
    return amount


def show_bytes(amount: float) -> str:
    """Write an amount of memory for a reader."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def resident_bytes() -> int:
    """Memory that this process holds now; its peak so far where the system tells no more; 0 where it tells nothing."""
    statm = Path("/proc/self/statm")  # Linux
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else peak_bytes()


def peak_bytes() -> int:
    """Memory that this process has held at most; 0 where the system does not tell."""
    status = Path("/proc/self/status")  # Linux, where getrusage would count the parent's peak too
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 2**10
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


@dataclass
class Limit:
    """How large a chunk may be.

    Args:
        capacity: most that the sizes of its items may add up to.
        most: most items.
    """

    capacity: float
    most: int

    def allows(self, size: float, n_items: int) -> bool:
        """Whether items of this size together make a chunk; one item always does, however large."""
        return n_items == 1 or (size <= self.capacity and n_items <= self.most)

    def n_fitting(self, sizes: Iterable[float]) -> int:
        """How many of the first items make a chunk."""
        totals = enumerate(accumulate(sizes), start=1)
        return sum(1 for _ in takewhile(lambda found: self.allows(found[1], found[0]), totals))

    def halve(self, size: float) -> bool:
        """Allow half of a size that was too large; False where no more than that is allowed already."""
        if self.capacity <= size / 2:
            return False
        self.capacity = size / 2
        return True


def chunk_activations(
    devices: Sequence[torch.device], asked: int | None, weights: int, *, n_rows: int, spawned: bool
) -> tuple[float, int]:
    """Activations per image that a chunk may hold on any of the devices, and how many candidates.

    ``asked`` is the memory of all CPU processes together and of each GPU. The weights, and what is resident on a
    CPU already (interpreter, libraries, images), are subtracted, in a worker as much as in this process.

    Args:
        devices: one entry per process that scores; a device may stand there several times.
        asked: bytes of ``--memory``; None chooses.
        weights: bytes of the networks of all repeats.
        n_rows: images a candidate is run on.
        spawned: whether the processes are workers beside this one.

    Returns:
        Capacity, below which every candidate stands alone if it is not positive, and most candidates.
    """
    capacities, most = [], []
    for device in set(devices):
        n_sharing = list(devices).count(device)
        if device.type == "cpu":
            resident = resident_bytes() if asked else 0
            total = asked or CHUNK_BYTES
            own = resident + weights + LIBRARY_BYTES if asked else 0
            free = (total - resident * spawned) / n_sharing - own
        else:
            total = asked or int(CUDA_SHARE * torch.cuda.mem_get_info(device)[0])
            free = total / n_sharing - weights
        capacities.append(free / (n_rows * BYTES_PER_ACTIVATION[device.type]))
        most.append(sys.maxsize if asked else MAX_CHUNK[device.type])
    return min(capacities), min(most)
