"""One cell of a network, evaluated for many candidate architectures at once.

The rows of a tensor are grouped by candidate: ``[candidate * row, channel, height, width]``. Each
operation is applied once, to the rows of exactly those candidates that use it, so a chunk costs a
few large launches instead of many small ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metantk_nas.networks.layout import dense_gradient
from metantk_nas.networks.norms import NormKind
from metantk_nas.networks.ops import FactorizedReduction, make_op, relu_conv_norm
from metantk_nas.spaces.genotype import Choice
from metantk_nas.spaces.space import Space


@dataclass(frozen=True)
class Signal:
    """A feature map on its way through the network: its channels, and how often it was halved."""

    channels: int
    halvings: int


@dataclass(frozen=True)
class Routing:
    """Which candidates use which choice, for one cell type.

    Args:
        n_candidates: candidates in the chunk.
        users: for each choice in use, the indices of its candidates in ascending order, int64, on the
            network's device.
    """

    n_candidates: int
    users: Mapping[Choice, Tensor]


class Cell(nn.Module):
    """A cell that holds every operation some candidate may choose.

    Args:
        space: the search space; gives inputs, nodes and how the output is formed.
        choices: what the edges may hold.
        inputs: the signals the cell receives, oldest first.
        channels: channels of each node.
        reduces: whether edges from the cell's inputs have stride 2.
        norm: see `metantk_nas.networks.norms.make_norm`.
    """

    def __init__(
        self,
        space: Space,
        choices: Sequence[Choice],
        inputs: Sequence[Signal],
        channels: int,
        *,
        reduces: bool,
        norm: NormKind,
    ) -> None:
        super().__init__()
        self.n_inputs, self.n_nodes, self.output = space.n_inputs, space.n_nodes, space.output
        self.channels, self.stride = channels, 2 if reduces else 1
        self.drop_path_prob = 0.0
        self.preprocess = nn.ModuleList(self._preprocess(signal, inputs[-1], channels, norm) for signal in inputs)
        self.ops = nn.ModuleDict()
        for choice in choices:
            _, source, op = choice
            self.ops[_name(choice)] = make_op(op, channels, self.stride if source < self.n_inputs else 1, norm)
        n_out = self.n_nodes if self.output == "concat" else 1
        self.signal = Signal(n_out * channels, inputs[-1].halvings + reduces)

    def _preprocess(self, signal: Signal, newest: Signal, channels: int, norm: NormKind) -> nn.Module:
        """Bring an input to the cell's channels and to the resolution of its newest input."""
        if signal.halvings < newest.halvings:
            return FactorizedReduction(signal.channels, channels, norm)
        if self.n_inputs == 1 and signal.channels == channels:
            return nn.Identity()
        return relu_conv_norm(signal.channels, channels, 1, 1, norm)

    def operations(self) -> Iterator[tuple[Choice, nn.Module]]:
        """Yield every operation the cell holds with the choice it stands for."""
        for name, operation in self.ops.items():
            node, source, op = name.split("_", 2)
            yield (int(node), int(source), op), operation

    def forward(self, inputs: Sequence[Tensor], routing: Routing) -> Tensor:
        """Run the cell for every candidate of ``routing``.

        Args:
            inputs: the ``n_inputs`` signals, each ``[candidate * row, channel, height, width]``.
            routing: who uses which choice.
        """
        states: list[Tensor] = [module(signal) for module, signal in zip(self.preprocess, inputs, strict=True)]
        for node in range(self.n_nodes):
            states.append(self._node(node, states, routing))
        if self.output == "last":
            return states[-1]
        return torch.cat([dense_gradient(state) for state in states[self.n_inputs :]], dim=1)

    def _node(self, node: int, states: Sequence[Tensor], routing: Routing) -> Tensor:
        """Sum what the node's edges deliver, candidate by candidate.

        Each candidate's parts are added in the order of the choices, so that its sum has the same bits in every chunk.
        """
        here = [(choice, users) for choice, users in routing.users.items() if choice[0] == node]
        by_some = any(len(users) < routing.n_candidates for _, users in here)
        total = self._nothing(states[0], routing) if by_some else None
        for choice, users in here:
            state, everybody = states[choice[1]], len(users) == routing.n_candidates
            part = _split(self._run(choice, state if everybody else _select(state, users, routing)), len(users))
            if total is None:
                total = part
            elif everybody:
                total = total + part
            else:  # in place: it is the node's own by now
                total.index_add_(0, users, part)
        return self._silence(states[0]) if total is None else _join(total)

    def _run(self, choice: Choice, rows: Tensor) -> Tensor:
        operation = self.ops[_name(choice)]
        if isinstance(operation, nn.Identity):  # which drop-path leaves alone
            return rows
        out: Tensor = operation(rows)
        drops = self.training and self.drop_path_prob > 0
        return drop_path(out, self.drop_path_prob) if drops else out

    def _nothing(self, like: Tensor, routing: Routing) -> Tensor:
        """Zeros ``[candidate, row, height, width, channel]`` of a node."""
        n_rows = like.shape[0] // routing.n_candidates
        return like.new_zeros(routing.n_candidates, n_rows, *self._resolution(like), self.channels)

    def _resolution(self, like: Tensor) -> tuple[int, int]:
        """Height and width of the nodes, given an input."""
        height, width = like.shape[-2:]
        return -(-height // self.stride), -(-width // self.stride)

    def _silence(self, like: Tensor) -> Tensor:
        """A node that no edge reaches; channels first: PyTorch 2.13 crashes in GroupNorm's backward otherwise."""
        return like.new_zeros(like.shape[0], self.channels, *self._resolution(like))


def drop_path(images: Tensor, probability: float) -> Tensor:
    """Zero whole rows with ``probability`` and rescale the rest (DARTS, arXiv 1806.09055)."""
    keep = torch.rand(images.shape[0], 1, 1, 1, device=images.device, dtype=images.dtype) >= probability
    return images * keep / (1 - probability)


def _name(choice: Choice) -> str:
    return "_".join(map(str, choice))


def _select(state: Tensor, users: Tensor, routing: Routing) -> Tensor:
    """Take the rows of some candidates."""
    return _join(_split(state, routing.n_candidates).index_select(0, users))


def _split(state: Tensor, n_candidates: int) -> Tensor:
    """View ``[candidate * row, channel, height, width]`` as ``[candidate, row, height, width, channel]``.

    Channels are last in memory too, where convolutions are fastest on a CPU.
    """
    split: Tensor = state.movedim(1, -1).unflatten(0, (n_candidates, -1))
    return split


def _join(state: Tensor) -> Tensor:
    """Undo `_split`."""
    return state.flatten(0, 1).movedim(-1, 1)
