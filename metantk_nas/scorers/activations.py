"""Scores from the activation patterns of ReLUs: which units are on, for which inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from metantk_nas.errors import UsageError
from metantk_nas.kernels.spectrum import spectra
from metantk_nas.networks.build import build_shared
from metantk_nas.networks.network import CellNetwork
from metantk_nas.networks.own import OwnModule
from metantk_nas.rng import child_seed
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.setup import ScoredNetwork, ScoringSetup
from metantk_nas.spaces.space import Skeleton
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric

Receive = Callable[[str, Tensor, Tensor], None]
"""(name of the ReLU, what comes out of it ``[candidate, row, unit]``, indices of the candidates) → nothing."""


def run_with_activations(
    network: ScoredNetwork, architectures: Sequence[Architecture], images: Tensor, receive: Receive
) -> None:
    """Run a chunk forward and hand over what comes out of every ReLU: 0 where a unit is off.

    Args:
        network: weight-shared network.
        architectures: the chunk.
        images: ``[row, channel, height, width]``.
        receive: called once per ReLU that runs.
    """
    chunk: Any = network.route(architectures, images.device)
    everybody = torch.arange(len(architectures), device=images.device)
    with _watching(network, dict(network.users(chunk)), everybody, receive), torch.no_grad():
        network(images, chunk)


@contextmanager
def _watching(
    network: nn.Module, users: Mapping[nn.Module, Tensor], everybody: Tensor, receive: Receive
) -> Iterator[None]:
    def watcher(name: str, module: nn.Module) -> Callable[[nn.Module, object, Tensor], None]:
        seen_by = users.get(module, everybody)

        def watch(_: nn.Module, __: object, output: Tensor) -> None:
            receive(name, _units(output).unflatten(0, (len(seen_by), -1)), seen_by)

        return watch

    handles: list[RemovableHandle] = []
    try:
        for name, module in network.named_modules():
            if isinstance(module, nn.ReLU):
                handles.append(module.register_forward_hook(watcher(name, module)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _units(output: Tensor) -> Tensor:
    """Units of each image, ``[image, unit]``, as they lie in memory: no pattern depends on their order."""
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        output = output.permute(0, 2, 3, 1)
    return output.flatten(1)


class ActivationOverlapScorer(AbstractScorer):
    """NASWOT: the log-determinant of how much the activation patterns of images overlap.

    ``ln |det K_H|`` with ``K_H[i, j] = N − d_H(c_i, c_j)``, N units, d_H the Hamming distance of the
    patterns of images i and j (Mellor et al., ICML 2021, arXiv 2006.04647, eq. 2). The images are
    the distinct ones of the repeat's episodes.
    """

    name = "activation_overlap"
    metrics = (
        Metric(
            "naswot", True, "log-determinant of the overlap of activation patterns", "NASWOT, arXiv 2006.04647, eq. 2"
        ),
    )

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward pass."""
        rows = self._setup.rows(repeat)
        images = rows.images[rows.distinct]
        overlap = torch.zeros(len(architectures), len(images), len(images), dtype=torch.float64, device=images.device)

        def receive(_: str, activations: Tensor, users: Tensor) -> None:
            on = activations.sign()  # 1 or 0, and whole numbers are summed exactly
            both = (on @ on.mT).double()
            n_on = both.diagonal(dim1=-2, dim2=-1)
            differing = n_on[:, :, None] + n_on[:, None, :] - 2 * both
            overlap.index_add_(0, users, on.shape[-1] - differing)

        run_with_activations(self._setup.network(repeat), architectures, images, receive)
        found = spectra(overlap, compute_dtype=torch.float64)  # its entries are whole numbers, so exact
        log_determinants = found.eigenvalues.clamp_min(0).log().sum(-1).tolist()
        verdicts = zip(log_determinants, found.status, found.reason, strict=True)
        return [Finding({"naswot": value}, status, reason) for value, status, reason in verdicts]


class LinearRegionScorer(AbstractScorer):
    """Number of linear regions that random inputs fall into, on a thin copy of the network.

    As in TE-NAS (Chen et al., ICLR 2021, arXiv 2102.11535, section 3.1.2) and MetaNTK-NAS: one channel,
    one cell of each type, no image stem, 3×3 inputs with one channel drawn from a normal distribution;
    the mean over three draws of 1,000 inputs. There is no normalisation, so that the network is
    piecewise linear and its regions are well defined.
    """

    name = "linear_regions"
    metrics = (
        Metric(
            "n_linear_regions", True, "distinct activation patterns of 1,000 random inputs", "TE-NAS, arXiv 2102.11535"
        ),
    )
    n_draws = 3
    n_samples = 1000
    side = 3

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup
        self._network = cache(self._thin_network)

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward pass per draw."""
        counts = torch.zeros(len(architectures))
        for draw in range(self.n_draws):
            seed = child_seed(self._setup.seed, "linear_regions", repeat, draw)
            counts += self._count(architectures, seed)
        return [Finding({"n_linear_regions": count}) for count in (counts / self.n_draws).tolist()]

    def _count(self, architectures: Sequence[Architecture], seed: int) -> Tensor:
        """Count the distinct patterns of one draw, ``[candidate]``."""
        network = self._network(seed)
        generator = torch.Generator().manual_seed(child_seed(seed, "inputs"))
        shape = (self.n_samples, 1, self.side, self.side)
        images = torch.randn(shape, generator=generator).to(self._setup.device)
        codes = torch.zeros(len(architectures), self.n_samples, dtype=torch.int64, device=images.device)

        def receive(name: str, activations: Tensor, users: Tensor) -> None:
            on = activations > 0
            key = torch.Generator().manual_seed(child_seed(seed, "code", name))
            weights = torch.randint(2**62, (on.shape[-1],), generator=key).to(on.device)
            codes.index_add_(0, users, (on * weights).sum(-1))

        run_with_activations(network, architectures, images, receive)
        return torch.tensor([len(code.unique()) for code in codes], dtype=torch.float32)

    def _thin_network(self, seed: int) -> CellNetwork:
        space = self._setup.space
        if isinstance(space, OwnModule):
            raise UsageError(
                f"n_linear_regions is counted on a thin copy of a network of cells, and module {space.name!r} has "
                "none; leave this metric out, for example with --rank-by few-shot."
            )
        n_types = len(space.cell_types)
        reduce_at = (Fraction(1, 2),) if n_types > 1 else ()
        thin = replace(space, skeleton=Skeleton(init_channels=1, n_cells=n_types, reduce_at=reduce_at))
        network = build_shared(thin, n_outputs=1, in_channels=1, seed=seed, norm="none", device=self._setup.device)
        network.stem = nn.Sequential()
        return network
