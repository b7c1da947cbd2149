"""Parameters and multiply–accumulate operations of an architecture, without building it.

A network's cost is a sum over its parts, and each part is measured once on shapes alone.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from metantk_nas.networks.cell import Routing
from metantk_nas.networks.network import CellNetwork, all_choices
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Skeleton, Space


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Args:
        params: trainable parameters, normalisation and head included.
        macs: multiply–accumulate operations of convolutions and linear layers for one image.
    """

    params: int
    macs: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs)


class CostModel:
    """Costs of all architectures of a space under one skeleton.

    Args:
        space: the search space.
        n_outputs: logits of the head.
        in_channels: channels of the images.
        image_size: height and width in pixels.
        skeleton: how cells are stacked; the space's own where absent.
    """

    def __init__(
        self, space: Space, *, n_outputs: int, in_channels: int, image_size: int, skeleton: Skeleton | None = None
    ) -> None:
        self.space = space
        self._choices = all_choices(space)
        self._image = (1, in_channels, image_size, image_size)
        with torch.device("meta"):
            self._network = CellNetwork(
                space,
                self._choices,
                n_outputs=n_outputs,
                in_channels=in_channels,
                norm="batch",
                skeleton=skeleton,
            ).eval()

    def __call__(self, genotype: Genotype) -> Cost:
        """Cost of the stand-alone model of ``genotype``, operations on dead branches included."""
        cost = self._tables[None]
        for cell_type in self.space.cell_types:
            for node, edges in enumerate(genotype.cell(cell_type)):
                for op, source in edges:
                    cost += self._tables.get((cell_type, node, source, op), Cost(0, 0))
        return cost

    @cached_property
    def _tables(self) -> dict[tuple[str, int, int, str] | None, Cost]:
        """Cost of each choice, summed over the cells of its type; ``None`` holds what every architecture has."""
        macs = self._macs()
        tables: dict[tuple[str, int, int, str] | None, Cost] = {}
        rest = Cost(sum(p.numel() for p in self._network.parameters()), sum(macs.values()))
        for cell, cell_type in zip(self._network.cells_in_order, self._network.cell_types, strict=True):
            for (node, source, op), module in cell.operations():
                own = Cost(sum(p.numel() for p in module.parameters()), sum(macs.get(m, 0) for m in module.modules()))
                choice = (cell_type, node, source, op)
                tables[choice] = tables.get(choice, Cost(0, 0)) + own
                rest = Cost(rest.params - own.params, rest.macs - own.macs)
        tables[None] = rest
        return tables

    def _macs(self) -> dict[nn.Module, int]:
        """Multiply–accumulates of each layer when every operation runs once."""
        counted: dict[nn.Module, int] = {}

        def count(layer: nn.Module, _: object, output: Tensor) -> None:
            positions = output.shape[2:].numel() if output.ndim == 4 else 1
            counted[layer] = next(layer.parameters()).numel() * positions

        layers = [m for m in self._network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        handles = [layer.register_forward_hook(count) for layer in layers]
        everything = {cell_type: Routing(1, dict.fromkeys(used, (0,))) for cell_type, used in self._choices.items()}
        with torch.no_grad():
            self._network(torch.empty(self._image, device="meta"), everything)
        for handle in handles:
            handle.remove()
        return counted


