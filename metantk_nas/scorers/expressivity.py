"""Zen-score: how strongly features react to a small change of the image, without what normalisation hides."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from metantk_nas.rng import child_seed
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.findings import findings
from metantk_nas.scorers.setup import ScoredNetwork, ScoringSetup
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric


class ZenScorer(AbstractScorer):
    """Zen-score (Lin et al., ICCV 2021, arXiv 2102.01063, algorithm 1).

    ``ln E ‖f(x) − f(x + αε)‖ + Σ_k ln σ̄_k``: f is the feature map before pooling; weights, images x and noise ε are
    drawn from N(0, 1); σ̄_k is the root mean square, over channels, of the deviations by which normalisation layer k
    divides. Normalisation is batch normalisation, as in the paper: among group norms σ̄ would be a matter of the image.
    Each candidate has the statistics of its own rows, so a chunk finds what each finds alone.

    x and x + αε are one batch with common statistics: both pass the same function, as the paper's definition has it
    (its code normalises them apart, and takes an L1 norm). Every layer that runs counts, in all branches; a layer
    that only zeros reach, behind a dead branch, divides by nothing and adds nothing.
    """

    name = "zen"
    metrics = (
        Metric(
            "zen_score",
            True,
            "log size of the features' reaction to a small change of the image, batch normalisation compensated",
            "Zen-NAS, arXiv 2102.01063, algorithm 1",
        ),
    )
    own_weight_bytes = 4
    n_images = 16
    """Batch size of the paper's code."""
    step = 0.01
    """α, the size of the change, as in the paper's code."""

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup
        self._network = cache(self._gaussian_network)

    @torch.no_grad()
    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward pass."""
        network, device = self._network(repeat), self._setup.device
        chunk: Any = network.route(architectures, device)
        users = dict(network.users(chunk))
        everybody = torch.arange(len(architectures), device=device)
        log_scale = torch.zeros(len(architectures), dtype=torch.float64, device=device)
        maps: list[Tensor] = []

        def add(layer: "_OwnStatistics", _: object, __: object) -> None:
            log_scale.index_add_(0, users.get(layer, everybody), layer.log_scale)

        norms = [layer for layer in network.modules() if isinstance(layer, _OwnStatistics)]
        handles = [layer.register_forward_hook(add) for layer in norms]
        handles.append(network.final.register_forward_hook(lambda *call: maps.append(call[2])))
        try:
            network.features(self._images(repeat), chunk)
        finally:
            for handle in handles:
                handle.remove()
        images, moved = maps[-1].double().unflatten(0, (len(architectures), 2, -1)).unbind(1)
        reaction = (moved - images).flatten(2).norm(dim=2).mean(1)
        return findings({"zen_score": reaction.log() + log_scale}, reaction)

    def _images(self, repeat: int) -> Tensor:
        """Draw the images, and the same moved by αε: ``[2 * n_images, channel, height, width]``."""
        data = self._setup.dataset
        generator = torch.Generator().manual_seed(child_seed(self._setup.seed, "zen", repeat, "images"))
        shape = (2, self.n_images, data.n_channels, data.image_size, data.image_size)
        images, noise = torch.randn(shape, generator=generator)
        rows = torch.cat([images, images + self.step * noise])
        return rows.to(self._setup.device, self._setup.dtype, memory_format=torch.channels_last)

    def _gaussian_network(self, repeat: int) -> ScoredNetwork:
        """Build a network with weights from N(0, 1) and batch normalisation, candidate by candidate."""
        seed = child_seed(self._setup.seed, "zen", repeat)
        network = self._setup.build(seed, norm="batch_stats")
        for name, module in list(network.body.named_modules()):
            if isinstance(module, nn.Conv2d):
                generator = torch.Generator().manual_seed(child_seed(seed, name))
                module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
            elif isinstance(module, nn.BatchNorm2d):
                network.body.set_submodule(name, _OwnStatistics(2 * self.n_images, module.eps))
        return network.to(self._setup.dtype)


class _OwnStatistics(nn.Module):
    """Batch normalisation of each candidate by its own rows.

    After a pass, ``log_scale [candidate]`` is ln σ̄, or 0 where every input was the same.
    """

    def __init__(self, n_rows: int, eps: float) -> None:
        super().__init__()
        self.n_rows, self.eps = n_rows, eps
        self.log_scale = torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise ``[candidate * row, channel, height, width]``."""
        own = images.movedim(1, -1).unflatten(0, (-1, self.n_rows))
        variance, mean = torch.var_mean(own, dim=(1, 2, 3), keepdim=True, correction=0)
        total = variance.double().mean(-1).flatten()
        self.log_scale = torch.where(total == 0, 0, total.log() / 2)
        normalised: Tensor = (own - mean) * (variance + self.eps).rsqrt()
        return normalised.flatten(0, 1).movedim(-1, 1)
