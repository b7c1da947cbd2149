"""The layers of a network, run as a person would write it down: one genotype, no routing, no dead nodes.

The network that trains evaluates many candidates at once; a program traced from it would carry what that needs.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from metantk_nas.networks.cell import Cell as CellLayers
from metantk_nas.networks.network import CellNetwork
from metantk_nas.spaces.genotype import Cell, Edge, Genotype


class StraightNetwork(nn.Module):
    """Shares the layers of a `CellNetwork`, so that every weight keeps its name, and equals it in evaluation mode.

    Args:
        network: the stand-alone network of ``genotype``.
        genotype: which operations there are.
    """

    drop_path_prob = 0.0

    def __init__(self, network: CellNetwork, genotype: Genotype) -> None:
        super().__init__()
        self.stem, self.bridges, self.cells = network.stem, network.bridges, network.cells
        self.final, self.head = network.final, network.head
        self.n_features, self.cell_types = network.n_features, network.cell_types
        self.n_inputs, self.genotype = network.space.n_inputs, genotype

    def features(self, images: Tensor) -> Tensor:
        """Compute pooled features ``[row, n_features]`` of images ``[row, channel, height, width]``."""
        inputs = [self.stem(images)] * self.n_inputs
        for index, (layers, cell_type) in enumerate(zip(self.cells, self.cell_types, strict=True)):
            if str(index) in self.bridges:
                inputs[-1] = self.bridges[str(index)](inputs[-1])
            inputs = [*inputs[1:], _run(layers, self.genotype.cell(cell_type), inputs)]  # type: ignore[arg-type]
        pooled: Tensor = self.final(inputs[-1]).mean(dim=(-2, -1))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``[row, n_outputs]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def straighten(network: nn.Module, genotype: Genotype | None) -> nn.Module:
    """Return a network without routing; networks without cells have none."""
    if isinstance(network, CellNetwork) and genotype is not None:
        return StraightNetwork(network, genotype).eval()
    return network


def live_nodes(cell: Cell, n_inputs: int, output: str) -> list[int]:
    """Return the nodes that reach the output of a cell, in order; the weights of the others never matter.

    Args:
        cell: the nodes.
        n_inputs: inputs of the cell.
        output: ``"concat"`` or ``"last"``.
    """
    live = set(range(len(cell))) if output == "concat" else {len(cell) - 1}
    for node in reversed(range(len(cell))):
        if node in live:
            live |= {source - n_inputs for _, source in present(cell[node]) if source >= n_inputs}
    return sorted(live)


def present(node: Sequence[Edge]) -> list[Edge]:
    """Return the edges of a node that hold an operation; ``none`` is the absence of one."""
    return [(op, source) for op, source in node if op != "none"]


def _run(layers: CellLayers, cell: Cell, inputs: Sequence[Tensor]) -> Tensor:
    """Run one cell on its inputs, oldest first."""
    states = {
        index: module(signal) for index, (module, signal) in enumerate(zip(layers.preprocess, inputs, strict=True))
    }
    for node in live_nodes(cell, layers.n_inputs, layers.output):
        parts = [layers.ops[f"{node}_{source}_{op}"](states[source]) for op, source in present(cell[node])]
        states[layers.n_inputs + node] = reduce(add, parts) if parts else _silence(states[0], layers.stride)
    nodes = [state for index, state in states.items() if index >= layers.n_inputs]
    return torch.cat(nodes, dim=1) if layers.output == "concat" else nodes[-1]


def _silence(like: Tensor, stride: int) -> Tensor:
    """A node that no edge reaches."""
    return torch.zeros_like(like[:, :, ::stride, ::stride])
