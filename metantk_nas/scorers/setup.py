"""What all scorers share: the weight-shared networks and the episodes of each repeat."""

from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.episode import Episode, EpisodeSampler, kernel_rows
from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.networks.build import build_shared
from metantk_nas.networks.network import CellNetwork
from metantk_nas.networks.norms import NormKind
from metantk_nas.networks.own import OwnModule, OwnNetwork
from metantk_nas.rng import child_seed
from metantk_nas.spaces.space import Space
from metantk_nas.types import Adaptation, EpisodeLayout, OutputReduction

ScoredNetwork = CellNetwork | OwnNetwork
"""A network whose layers scorers watch."""

MAX_REDRAWS = 20
"""How often an episode that shares an image with another is drawn again."""


@dataclass(frozen=True)
class KernelSettings:
    """How episodes are drawn and how the kernel adapts; the defaults are MetaNTK-NAS's for five cells.

    Args:
        n_way: classes per episode.
        n_shot: support images per class.
        n_query: query images per class.
        n_episodes: episodes per repeat.
        adaptation: ``"maml"`` adapts all weights, ``"anil"`` the head alone.
        inner_time: inner learning rate × steps, dimensionless; ``inf`` solves the inner loop exactly.
        inner_reg: ridge of the inner loop, absolute, in units of the kernel.
        output_reduction: ``"sum"`` or ``"trace"`` over logits.

    Raises:
        UsageError: an unknown adaptation or reduction, or an inner loop that is no number of at least 0.
    """

    n_way: int = 5
    n_shot: int = 1
    n_query: int = 1
    n_episodes: int = 3
    adaptation: Adaptation = "maml"
    inner_time: float = float("inf")
    inner_reg: float = 1e-3
    output_reduction: OutputReduction = "sum"

    def __post_init__(self) -> None:
        for name, choices in (("adaptation", get_args(Adaptation)), ("output_reduction", get_args(OutputReduction))):
            if getattr(self, name) not in choices:
                raise unknown_name(name, getattr(self, name), choices)
        if not self.inner_time >= 0 or not self.inner_reg >= 0:
            raise UsageError(
                f"the inner loop got inner_time={self.inner_time}, inner_reg={self.inner_reg}; "
                "expected both at least 0."
            )


@dataclass(frozen=True)
class Rows:
    """Images of one repeat's episodes as kernel rows.

    Args:
        images: ``[row, channel, height, width]``, all query rows first, then all support rows.
        layout: how rows fall into episodes.
        support_labels: ``[episode, support]``.
        query_labels: ``[episode, query]``.
        distinct: indices of the rows whose image does not stand in an earlier row.
    """

    images: Tensor
    layout: EpisodeLayout
    support_labels: Tensor
    query_labels: Tensor
    distinct: Tensor


@dataclass(frozen=True, eq=False)
class ScoringSetup:
    """Everything a scorer needs beside the architectures; each repeat has its own weights and episodes.

    Args:
        space: the search space, with the skeleton to score; or a module of one's own in its place.
        dataset: images by class; episodes are drawn from its base classes.
        kernel: episodes and adaptation.
        seed: seed of weights and episodes.
        device: where networks run.
        dtype: type in which networks run.
    """

    space: Space | OwnModule
    dataset: FewShotDataset
    kernel: KernelSettings
    seed: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    _networks: dict[int, ScoredNetwork] = field(default_factory=dict, repr=False)
    _rows: dict[int, Rows] = field(default_factory=dict, repr=False)

    def network(self, repeat: int) -> ScoredNetwork:
        """Weight-shared network of one repeat, built once."""
        if repeat not in self._networks:
            self._networks[repeat] = self.build(child_seed(self.seed, "repeat", repeat)).to(self.dtype)
        return self._networks[repeat]

    def build(self, seed: int, *, norm: NormKind = "group") -> ScoredNetwork:
        """Build a network in float32, for scorers that want weights or a normalisation of their own."""
        if isinstance(self.space, OwnModule):
            return self.space.build(seed, norm, self.device)
        return build_shared(
            self.space,
            n_outputs=self.kernel.n_way,
            in_channels=self.dataset.n_channels,
            seed=seed,
            norm=norm,
            device=self.device,
        )

    def rows(self, repeat: int) -> Rows:
        """Episodes of one repeat as kernel rows, drawn once."""
        if repeat not in self._rows:
            images, layout, labels = kernel_rows(self._episodes(repeat))
            on_device = (
                labels.support.to(self.device),
                labels.query.to(self.device),
                _distinct(images).to(self.device),
            )
            on_device_images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
            self._rows[repeat] = Rows(on_device_images, layout, *on_device)
        return self._rows[repeat]

    def _episodes(self, repeat: int) -> list[Episode]:
        """Draw one repeat's episodes.

        An episode that shows an image again is drawn anew, `MAX_REDRAWS` times at most: equal rows say nothing
        new, and within one episode they make the kernel singular whatever the network. A tiny data set may have
        no images to spare.
        """
        k = self.kernel
        sampler = EpisodeSampler(
            self.dataset,
            "base",
            n_way=k.n_way,
            n_shot=k.n_shot,
            n_query=k.n_query,
            seed=child_seed(self.seed, "repeat", repeat),
            name="score",
        )
        drawn: list[Episode] = []
        index = 0
        while len(drawn) < k.n_episodes:
            with_next = [*drawn, sampler(index)]
            images, _, _ = kernel_rows(with_next)
            n_redraws = index - len(drawn)
            if n_redraws == MAX_REDRAWS or len(_distinct(images)) == len(images):
                drawn = with_next
            index += 1
        return drawn


def _distinct(images: Tensor) -> Tensor:
    """Indices of the rows whose image does not stand in an earlier row, ascending."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images.cpu().numpy()):
        first.setdefault(image.tobytes(), index)
    return torch.tensor(sorted(first.values()))
