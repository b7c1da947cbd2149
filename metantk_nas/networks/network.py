"""A network of cells: the stand-alone model of one genotype, or one weight-shared network for a chunk of them."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from metantk_nas.networks.cell import Cell, Routing, Signal
from metantk_nas.networks.layout import dense_gradient
from metantk_nas.networks.norms import NormKind, make_norm
from metantk_nas.networks.ops import ResidualReduction
from metantk_nas.spaces.genotype import Choice
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture

Route = Mapping[str, Routing]
"""A `Routing` for each cell type of the space."""


def route(space: Space, architectures: Sequence[Architecture], device: torch.device | str = "cpu") -> Route:
    """Say which candidates of a chunk use which operation of the shared network.

    A subspace uses every operation that is alive in it. All indices travel to the device at once.
    """
    users: dict[str, dict[Choice, list[int]]] = {cell_type: {} for cell_type in space.cell_types}
    for candidate, architecture in enumerate(architectures):
        for cell_type, used in users.items():
            for choice in architecture.choices(cell_type):
                used.setdefault(choice, []).append(candidate)
    in_order = {cell_type: {choice: used[choice] for choice in sorted(used)} for cell_type, used in users.items()}
    flat = [candidate for used in in_order.values() for who in used.values() for candidate in who]
    sizes = [len(who) for used in in_order.values() for who in used.values()]
    parts = iter(torch.tensor(flat, dtype=torch.int64, device=device).split(sizes))
    return {
        cell_type: Routing(len(architectures), {choice: next(parts) for choice in used})
        for cell_type, used in in_order.items()
    }


def all_choices(space: Space) -> dict[str, list[Choice]]:
    """Every way to fill every edge, for each cell type: the over-complete network's operations."""
    whole = space.subspace()
    return {cell_type: list(whole.choices(cell_type)) for cell_type in space.cell_types}


class CellNetwork(nn.Module):
    """Stem, cells, global average pooling and a linear head.

    Args:
        space: the search space; its skeleton says how cells are stacked.
        choices: for each cell type, the operations the network holds. Parameters are named by their
            place (``cells.3.ops.1_0_sep_conv_3x3.1.weight``), so networks that hold the same
            operation at the same place name its weights alike.
        default_route: the route used when `forward` is given none (the stand-alone model).
        n_outputs: logits.
        in_channels: channels of the images.
        norm: see `metantk_nas.networks.norms.make_norm`.
    """

    def __init__(
        self,
        space: Space,
        choices: Mapping[str, Sequence[Choice]],
        *,
        n_outputs: int,
        in_channels: int,
        norm: NormKind,
        default_route: Route | None = None,
    ) -> None:
        super().__init__()
        plan = space.skeleton
        self.default_route = default_route
        self.space = space
        channels = plan.init_channels
        newest = Signal(channels * plan.stem_multiplier, 0)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, newest.channels, 3, padding=1, bias=False), make_norm(norm, newest.channels)
        )
        self.bridges, self.cells, self.cell_types = nn.ModuleDict(), nn.ModuleList(), []
        inputs = [newest] * space.n_inputs
        for index in range(plan.n_cells):
            halves = index in plan.reduction_positions
            reduces = halves and "reduce" in space.cell_types
            channels = 2 * channels if halves else channels
            if halves and not reduces:
                self.bridges[str(index)] = ResidualReduction(inputs[-1].channels, channels, norm)
                inputs[-1] = Signal(channels, inputs[-1].halvings + 1)
            cell_type = "reduce" if reduces else space.cell_types[0]
            cell = Cell(space, choices[cell_type], inputs, channels, reduces=reduces, norm=norm)
            self.cells.append(cell)
            self.cell_types.append(cell_type)
            inputs = [*inputs[1:], cell.signal]
        self.n_features = inputs[-1].channels
        self.final = nn.Sequential(make_norm(norm, self.n_features), nn.ReLU()) if plan.final_norm else nn.Identity()
        self.head = nn.Linear(self.n_features, n_outputs)

    @property
    def drop_path_prob(self) -> float:
        """Probability that an operation's output is dropped, row by row, while training."""
        return self.cells_in_order[0].drop_path_prob

    @drop_path_prob.setter
    def drop_path_prob(self, probability: float) -> None:
        for cell in self.cells_in_order:
            cell.drop_path_prob = probability

    @property
    def cells_in_order(self) -> list[Cell]:
        """The cells, first to last."""
        return list(self.cells)  # type: ignore[arg-type]  # nn.ModuleList forgets its element type

    @property
    def body(self) -> nn.Module:
        """What holds the layers by the names that their weights are drawn by: the network itself."""
        return self

    def route(self, architectures: Sequence[Architecture], device: torch.device | str = "cpu") -> Route:
        """Say which candidates of a chunk use which operation; see `route`."""
        return route(self.space, architectures, device)

    def features(self, images: Tensor, chunk: Route | None = None) -> Tensor:
        """Compute pooled features.

        Args:
            images: ``[row, channel, height, width]``, the same for every candidate.
            chunk: the candidates to evaluate; the stand-alone model's own genotype where absent.

        Returns:
            ``[candidate * row, n_features]``, grouped by candidate.
        """
        used = chunk if chunk is not None else self.default_route
        if used is None:
            raise ValueError("a weight-shared network has no genotype of its own; pass the chunk to evaluate")
        n_candidates = next(iter(used.values())).n_candidates
        signal = self.stem(torch.cat([images] * n_candidates) if n_candidates > 1 else images)  # keeps the layout
        inputs = [signal] * self.space.n_inputs
        for index, (cell, cell_type) in enumerate(zip(self.cells_in_order, self.cell_types, strict=True)):
            if str(index) in self.bridges:
                inputs[-1] = self.bridges[str(index)](inputs[-1])
            inputs = [*inputs[1:], cell(inputs, used[cell_type])]
        pooled: Tensor = dense_gradient(self.final(inputs[-1])).mean(dim=(-2, -1))
        return pooled

    def forward(self, images: Tensor, chunk: Route | None = None) -> Tensor:
        """Compute logits ``[candidate * row, n_outputs]``; arguments as in `features`."""
        logits: Tensor = self.head(self.features(images, chunk))
        return logits

    def users(self, chunk: Route) -> Iterator[tuple[nn.Module, Tensor]]:
        """Yield each module inside an operation with the candidates whose rows it sees.

        Modules that are not yielded (stem, preprocessing, bridges, head) serve every candidate.
        Operations that nobody uses are not yielded.
        """
        for cell, cell_type in zip(self.cells_in_order, self.cell_types, strict=True):
            for choice, module in cell.operations():
                used_by = chunk[cell_type].users.get(choice)
                if used_by is not None:
                    yield from ((part, used_by) for part in module.modules())
