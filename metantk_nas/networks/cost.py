"""Parameters and multiply–accumulate operations of an architecture, without building it.

A network's cost is a sum over its parts, and each part is measured once on shapes alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from metantk_nas.networks.network import CellNetwork, all_choices, route
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Args:
        params: trainable parameters, normalisation and head included.
        macs: multiply–accumulate operations of convolutions and linear layers for one image.
        activations: numbers that all layers together put out for one image.
    """

    params: int
    macs: int
    activations: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs, self.activations + other.activations)


FREE = Cost(0, 0, 0)
"""What nothing costs."""


class CostModel:
    """Costs of all architectures of a space.

    Args:
        space: the search space, with the skeleton to count.
        n_outputs: logits of the head.
        in_channels: channels of the images.
        image_size: height and width in pixels.
    """

    def __init__(self, space: Space, *, n_outputs: int, in_channels: int, image_size: int) -> None:
        self.space = space
        self._image = (1, in_channels, image_size, image_size)
        with torch.device("meta"):
            self._network = CellNetwork(
                space, all_choices(space), n_outputs=n_outputs, in_channels=in_channels, norm="batch"
            ).eval()

    def __call__(self, architecture: Architecture) -> Cost:
        """Cost of a genotype's stand-alone model, dead branches included, or of a subspace with all its operations."""
        cost = self._tables[None]
        for cell_type in self.space.cell_types:
            for choice in architecture.choices(cell_type):
                cost += self._tables[cell_type, *choice]
        return cost

    def live(self, architecture: Architecture) -> Cost:
        """Cost of what reaches the output: of a genotype the cost of the member of its key that is scored.

        So genotypes of one function have one size, and weights that nothing depends on make nobody larger.
        """
        alone = self.space.representative(architecture) if isinstance(architecture, Genotype) else architecture
        return self(alone)

    @cached_property
    def _tables(self) -> dict[tuple[str, int, int, str] | None, Cost]:
        """Cost of each choice, summed over the cells of its type; ``None`` holds what every architecture has."""
        everything = route(self.space, [self.space.subspace()])
        costs = layer_costs(self._network, lambda: self._network(torch.empty(self._image, device="meta"), everything))
        tables: dict[tuple[str, int, int, str] | None, Cost] = {}
        in_choices: set[nn.Module] = set()
        for cell, cell_type in zip(self._network.cells_in_order, self._network.cell_types, strict=True):
            for (node, source, op), operation in cell.operations():
                layers = [layer for layer in operation.modules() if layer in costs]
                choice = (cell_type, node, source, op)
                tables[choice] = sum((costs[layer] for layer in layers), start=tables.get(choice, FREE))
                in_choices.update(layers)
        tables[None] = sum((cost for layer, cost in costs.items() if layer not in in_choices), start=FREE)
        return tables


def layer_costs(network: nn.Module, run: Callable[[], Tensor]) -> dict[nn.Module, Cost]:
    """Cost of each layer that runs; a layer that runs twice has its parameters once.

    Args:
        network: holds the layers.
        run: runs the network on one image.
    """
    costs: dict[nn.Module, Cost] = {}

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        params = sum(parameter.numel() for parameter in layer.parameters())
        macs = 0
        if isinstance(layer, nn.Conv2d | nn.Linear):
            macs = layer.weight.numel() * output.numel() // layer.weight.shape[0]
        before = costs.get(layer, FREE)
        costs[layer] = Cost(params, before.macs + macs, before.activations + output.numel())

    layers = [module for module in network.modules() if next(module.children(), None) is None]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return costs
