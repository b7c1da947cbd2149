"""One finished architecture: which operation reads which state, per cell type."""

from collections.abc import Iterator
from dataclasses import dataclass

Edge = tuple[str, int]
"""An operation and the state it reads. States ``0 … n_inputs - 1`` are the inputs of the cell, ``n_inputs + j`` is
node ``j``."""

Node = tuple[Edge, ...]
"""The edges that a node sums, sorted by the state they read; no state is read twice."""

Cell = tuple[Node, ...]
"""The nodes of a cell; a node reads only inputs and earlier nodes."""


Choice = tuple[int, int, str]
"""An operation in its place in a cell: (node, state that it reads, operation)."""


@dataclass(frozen=True, order=True)
class Genotype:
    """A finished architecture of a cell-based space; hashable and ordered.

    Whether it belongs to a space is the space's to say (``Space.check``); a genotype alone is only a value.

    Args:
        cells: pairs of cell type and cell, in the space's order of types.
    """

    cells: tuple[tuple[str, Cell], ...]

    def cell(self, cell_type: str) -> Cell:
        """Nodes of the cell of one type.

        Raises:
            KeyError: the genotype has no such cell type.
        """
        return dict(self.cells)[cell_type]

    def choices(self, cell_type: str) -> Iterator[Choice]:
        """Yield the operations of one cell type; ``none`` is the absence of one."""
        for node, edges in enumerate(self.cell(cell_type)):
            for op, source in edges:
                if op != "none":
                    yield node, source, op
