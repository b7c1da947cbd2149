"""A search space that is being narrowed: the operations still alive on every edge."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

from metantk_nas.errors import SpaceError, brief, unknown_name
from metantk_nas.spaces.genotype import Choice, Genotype, Node


class EdgeSlot(NamedTuple):
    """A place where an edge may be: node ``node`` (0 is the first) of a cell type, reading state ``input``."""

    cell_type: str
    node: int
    input: int


@dataclass(frozen=True)
class SubSpace:
    """All genotypes whose edges use live operations only. Pruning narrows it; nothing is ever masked.

    Args:
        slots: every edge with its live operations, in the order of cell types, nodes and inputs.
        edges_per_node: edges that a finished node keeps; None keeps all.
    """

    slots: tuple[tuple[EdgeSlot, tuple[str, ...]], ...]
    edges_per_node: int | None

    @cached_property
    def live_ops(self) -> Mapping[EdgeSlot, tuple[str, ...]]:
        """Live operations by edge, in the order of ``slots``; empty where an edge is pruned away."""
        return dict(self.slots)

    def without(self, edge: EdgeSlot, op: str) -> "SubSpace":
        """Return the subspace in which ``op`` is no longer alive on ``edge``.

        Raises:
            SpaceError: the edge or the live operation does not exist, or no genotype would be left.
        """
        if edge not in self.live_ops:
            raise SpaceError(f"{tuple(edge)} is not an edge of this space; edges are (cell type, node, input).")
        if op not in self.live_ops[edge]:
            raise unknown_name(f"live operation of {tuple(edge)}", op, self.live_ops[edge], SpaceError)
        slots = tuple(
            (slot, tuple(live for live in ops if live != op) if slot == edge else ops) for slot, ops in self.slots
        )
        narrowed = replace(self, slots=slots)
        if narrowed.size == 0:
            raise SpaceError(
                f"removing {op!r} from {tuple(edge)} leaves no genotype: node {edge.node} of the {edge.cell_type!r} "
                f"cell needs {self.edges_per_node or 'all'} live edges. Keep this operation."
            )
        return narrowed

    @cached_property
    def size(self) -> int:
        """Number of genotypes in the subspace."""
        return math.prod(
            sum(math.prod(len(edges[index]) for index in kept) for kept in combinations(edges, self._n_kept(edges)))
            for edges in self._nodes.values()
        )

    @property
    def is_genotype(self) -> bool:
        """Whether exactly one genotype is left."""
        return self.size == 1

    def genotype(self) -> Genotype:
        """Return the one genotype that is left.

        Raises:
            SpaceError: more than one is left.
        """
        if not self.is_genotype:
            raise SpaceError(f"a subspace of {self.size:,} genotypes is not a genotype; prune it to one first.")
        cells: dict[str, list[Node]] = {}
        for (cell_type, _), edges in self._nodes.items():
            node = tuple((ops[0], index) for index, ops in edges.items() if ops)
            cells.setdefault(cell_type, []).append(node)
        return Genotype(tuple((cell_type, tuple(nodes)) for cell_type, nodes in cells.items()))

    def choices(self, cell_type: str) -> Iterator[Choice]:
        """Yield the live operations of one cell type; ``none`` is the absence of one."""
        for edge, ops in self.slots:
            if edge.cell_type == cell_type:
                yield from ((edge.node, edge.input, op) for op in ops if op != "none")

    @property
    def text(self) -> str:
        """Live operations by cell type and edge (``node<input``), as JSON on one line; dead edges are left out."""
        cells: dict[str, dict[str, tuple[str, ...]]] = {}
        for edge, ops in self.slots:
            if ops:
                cells.setdefault(edge.cell_type, {})[f"{edge.node}<{edge.input}"] = ops
        return json.dumps(cells, separators=(",", ":"))

    def narrowed(self, text: str) -> "SubSpace":
        """Return the part of this subspace that ``text`` of another stands for.

        Raises:
            SpaceError: the text is not that of a part of this subspace.
        """
        try:
            cells = json.loads(text)
            live = {slot: tuple(cells[slot[0]].get(f"{slot[1]}<{slot[2]}", ())) for slot, _ in self.slots}
            foreign = any(set(live[slot]) - set(ops) for slot, ops in self.slots)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SpaceError(
                f"{brief(text)} is not the text of a subspace; expected what SubSpace.text gives."
            ) from error
        part = replace(self, slots=tuple(live.items()))
        if part.text != text or foreign:
            raise SpaceError(f"{brief(text)} is not a part of this subspace: an edge or operation of it is not here.")
        return part

    @cached_property
    def _nodes(self) -> dict[tuple[str, int], dict[int, tuple[str, ...]]]:
        """Live operations by input, by cell type and node."""
        nodes: dict[tuple[str, int], dict[int, tuple[str, ...]]] = {}
        for edge, ops in self.slots:
            nodes.setdefault((edge.cell_type, edge.node), {})[edge.input] = ops
        return nodes

    def _n_kept(self, edges: Mapping[int, tuple[str, ...]]) -> int:
        return len(edges) if self.edges_per_node is None else self.edges_per_node


Architecture = Genotype | SubSpace
"""What can be scored: a finished genotype, or a subspace as the network in which every live operation is present."""
