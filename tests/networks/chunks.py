"""Small networks for tests: the shipped spaces on a small skeleton, and a chunk's candidates built alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from metantk_nas.networks.build import resize
from metantk_nas.networks.init import initialise
from metantk_nas.networks.network import CellNetwork, route
from metantk_nas.networks.norms import NormKind
from metantk_nas.rng import child_seed
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

SPACES = ("nas_bench_201", "darts", "darts_fewshot")
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
"""The cell of NAS-Bench-201 without any path from input to output."""


def small(name: str) -> Space:
    return resize(load_space(name), init_channels=4, n_cells=3)


def images(n_rows: int, *, channels: int = 2, size: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, channels, size, size, generator=generator, dtype=torch.float64)


def build_alone(
    space: Space,
    genotype: Genotype,
    *,
    seed: int = 0,
    norm: NormKind = "group",
    n_outputs: int = 3,
    in_channels: int = 2,
) -> CellNetwork:
    """The network that scores one candidate and holds no operation of any other."""
    own = route(space, [genotype])
    choices = {cell_type: list(routing.users) for cell_type, routing in own.items()}
    scored = replace(space, skeleton=replace(space.skeleton, final_norm=True))
    network = CellNetwork(scored, choices, n_outputs=n_outputs, in_channels=in_channels, norm=norm, default_route=own)
    initialise(network, seed, kaiming_head=True)
    return network.eval()


def as_if_trained(network: nn.Module) -> nn.Module:
    """Move every bias and every scale away from where it starts, by the parameter's name."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            generator = torch.Generator().manual_seed(child_seed(0, name))
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return network
