"""What a run is: plain values, as they stand on the command line, in the manifest and in the Python call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metantk_nas.errors import UsageError
from metantk_nas.networks.build import resize
from metantk_nas.scorers.registry import rank_rule
from metantk_nas.scorers.setup import KernelSettings
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.types import RankRule

DEFAULT_BUDGET = 48
"""Architectures that a random search scores when no budget is given."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec(KernelSettings):
    """A search: what is scored, on which data, how, and how it is ranked.

    How episodes are drawn and how the kernel adapts stands in `KernelSettings`.

    Args:
        space: name of a search space, or path of a TOML file.
        data: name of a data set, or path of a folder of images.
        data_root: where the data set's originals are.
        rotations: Omniglot only: base classes rotated by 90°, 180° and 270° become classes too.
        searcher: name of a searcher.
        budget: most architectures to score; None: all of them (exhaustive), else `DEFAULT_BUDGET`.
        repeats: re-initialisations, each with episodes of its own.
        init_channels: channels of the first cells; the space's own where None.
        n_cells: stacked cells; the space's own where None.
        image_size: height and width in pixels.
        rank_by: a ranking preset, or comma-separated metrics.
        metrics: further metrics to compute, comma-separated.
        max_params: architectures with more parameters are never scored.
        max_macs: architectures with more multiply–accumulates are never scored.
        seed: seed of everything.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        chunk: candidates evaluated at once; chosen by memory where None. Does not change the result.
    """

    space: str = "darts"
    data: str = "glyphs"
    data_root: Path | None = None
    rotations: bool = False
    searcher: str = "random"
    budget: int | None = None
    repeats: int = 3
    init_channels: int | None = None
    n_cells: int | None = None
    image_size: int = 32
    rank_by: str = "metantk"
    metrics: str = ""
    max_params: int | None = None
    max_macs: int | None = None
    seed: int = 0
    device: str = "auto"
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_episodes", "repeats", "image_size", "chunk", "init_channels", "n_cells"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)} is {value}; expected at least 1.")

    @property
    def rule(self) -> RankRule:
        """How candidates are ranked."""
        return rank_rule(self.rank_by)

    def load_space(self) -> Space:
        """Load the search space, with the skeleton of this spec."""
        return resize(load_space(self.space), init_channels=self.init_channels, n_cells=self.n_cells)

    @property
    def candidate_budget(self) -> int | None:
        """Most architectures to score, None for all."""
        return DEFAULT_BUDGET if self.budget is None and self.searcher != "exhaustive" else self.budget

    def default_out(self, results: Path = Path("results")) -> Path:
        """Directory of the run where none is given: ``results/<space>-<data>-seed<k>``."""
        return results / f"{Path(self.space).stem}-{Path(self.data).name}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A few-shot training: which learner, on which episodes, for how long, and how it is judged.

    Args:
        learner: name of a learner.
        n_way: classes of an episode, in training and in evaluation.
        n_shot: support images per class.
        n_query: query images per class of a training episode.
        train_budget: training episodes (batches of images for learners that train on images); the
            learner's default where None.
        task_weighting: how the episodes of a meta-batch weigh.
        settings: further settings of the learner or of the outer loop, by name.
        batch_size: images of a batch, for learners that train on images.
        eval_episodes: novel-class episodes, always the same ones.
        eval_query: query images per class of an evaluation episode.
        seed: seed of weights and episodes.
        device: as in `SearchSpec`.
    """

    learner: str = "protonet"
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 5
    train_budget: int | None = None
    task_weighting: Literal["none", "agreement"] | None = None
    settings: Mapping[str, Any] | None = None
    batch_size: int = 64
    eval_episodes: int = 600
    eval_query: int = 15
    seed: int = 0
    device: str = "auto"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
