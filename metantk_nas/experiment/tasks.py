"""The unit of work: one call of one scorer, in this process or in a worker."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from metantk_nas.experiment.workbench import Workbench
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.types import Score

OUT_OF_MEMORY = "out_of_memory"
"""Status of a candidate that did not fit into memory even alone."""

_ALLOCATION_FAILED = ("DefaultCPUAllocator", "ALLOC_FAILED")
"""How PyTorch's CPU allocator and NVIDIA's libraries name their failures, which have no type of their own."""


@dataclass(frozen=True)
class Item:
    """One architecture to score.

    Args:
        key: its canonical key.
        text: the member of the key that is scored.
        size: what it adds to a chunk, in the units of the chunk's limit.
    """

    key: str
    text: str
    size: float


@dataclass(frozen=True)
class Task:
    """What one call of one scorer computes.

    Args:
        scorer: name of the scorer.
        repeat: index of the repeat.
        items: what to score; no key has a score of this scorer and repeat yet.
    """

    scorer: str
    repeat: int
    items: tuple[Item, ...]

    @property
    def size(self) -> float:
        """Size of all items together."""
        return math.fsum(item.size for item in self.items)

    @property
    def title(self) -> str:
        """What it is about, for messages."""
        return f"{len(self.items)} architecture{'s' * (len(self.items) > 1)}, the first of them {self.items[0].text}"


Answer = list[Score] | None
"""Scores of a task; None where memory ran out."""


def worker(bench: Callable[[], Workbench]) -> Callable[[Task], Answer]:
    """Build a workbench, and return what carries out tasks with it."""
    return partial(compute, bench())


def compute(bench: Workbench, task: Task) -> Answer:
    """Carry out a task; None says that memory ran out."""
    scorer = _scorer(bench, task)
    start = time.perf_counter()
    findings = _score(scorer, bench, task)
    if findings is None:  # only now has the error gone, and with it the frames that held the memory
        _release(bench.device)
        return None
    seconds = (time.perf_counter() - start) / len(task.items)
    return [
        Score(item.key, task.repeat, task.scorer, finding.values, finding.status, finding.reason, seconds)
        for item, finding in zip(task.items, findings, strict=True)
    ]


def give_up(bench: Workbench, task: Task) -> list[Score]:
    """Scores of a task that does not fit into memory: none of its metrics is known."""
    unknown = dict.fromkeys((metric.name for metric in _scorer(bench, task).metrics), math.nan)
    reason = (
        "memory ran out even for this architecture alone; free some, or take a larger device: "
        "the same command tries it again"
    )
    return [Score(item.key, task.repeat, task.scorer, unknown, OUT_OF_MEMORY, reason) for item in task.items]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in _ALLOCATION_FAILED)


def _scorer(bench: Workbench, task: Task) -> AbstractScorer:
    return next(scorer for scorer in bench.scorers if scorer.name == task.scorer)


def _score(scorer: AbstractScorer, bench: Workbench, task: Task) -> Sequence[Finding] | None:
    try:
        return scorer.score([bench.space.read(item.text) for item in task.items], task.repeat)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _release(device: torch.device) -> None:
    """Give back what a failed call left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
