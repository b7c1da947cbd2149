"""A cell-based search space: which genotypes exist, how they are written, counted, drawn and told apart."""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from itertools import combinations, pairwise, product
from operator import itemgetter
from typing import Literal, TypeVar

from metantk_nas.errors import GenotypeError, SpaceError, brief, unknown_name
from metantk_nas.spaces.canonical import SILENT, canonical_form, canonical_key, smallest_order
from metantk_nas.spaces.genotype import Genotype, Node
from metantk_nas.spaces.ops import OPS
from metantk_nas.spaces.subspace import Architecture, EdgeSlot, SubSpace
from metantk_nas.spaces.text import read_cell, read_cells, write_cell, write_cells

T = TypeVar("T")

MAX_NODES = 8
MAX_CELLS = 1_000
MAX_CHANNELS = 4_096
MAX_STEM_MULTIPLIER = 64
MAX_TABLE = 50_000
"""Largest space for which representatives are looked up in a table of all genotypes."""


@dataclass(frozen=True)
class Skeleton:
    """How cells are stacked into a network.

    Args:
        init_channels: channels of the first cells; every reduction doubles them.
        n_cells: number of stacked cells.
        reduce_at: fractions of the depth at which the resolution halves, ascending, in [0, 1).
        stem_multiplier: the stem outputs ``init_channels * stem_multiplier`` channels.
        final_norm: the network ends with norm and ReLU before it pools.

    Raises:
        SpaceError: a number is out of range, or two reductions fall on the same cell.
    """

    init_channels: int
    n_cells: int
    reduce_at: tuple[Fraction, ...]
    stem_multiplier: int = 1
    final_norm: bool = False

    def __post_init__(self) -> None:
        _check_range("init_channels", self.init_channels, 1, MAX_CHANNELS)
        _check_range("n_cells", self.n_cells, 1, MAX_CELLS)
        _check_range("stem_multiplier", self.stem_multiplier, 1, MAX_STEM_MULTIPLIER)
        got = ", ".join(str(fraction) for fraction in self.reduce_at)
        in_range = all(0 <= fraction < 1 for fraction in self.reduce_at)
        if not in_range or any(first >= second for first, second in pairwise(self.reduce_at)):
            raise SpaceError(f"reduce_at is [{got}]; expected ascending fractions in [0, 1), such as 1/3, 2/3.")
        if len(set(self.reduction_positions)) < len(self.reduce_at):
            raise SpaceError(
                f"n_cells = {self.n_cells} is too few for reductions at [{got}]: two fall on the same cell. "
                "Use more cells or fewer reductions."
            )

    @property
    def reduction_positions(self) -> tuple[int, ...]:
        """Indices of the cells that reduce, or before which a residual block reduces: ``floor(n_cells * fraction)``."""
        return tuple(math.floor(self.n_cells * fraction) for fraction in self.reduce_at)


@dataclass(frozen=True)
class Space:
    """A cell-based search space.

    A space with one cell type reduces by residual blocks between cells and writes genotypes as NAS-Bench-201 does; a
    space with the types ``normal`` and ``reduce`` reduces in its reduce cells and writes genotypes as DARTS does.

    Args:
        name: short name, letters, digits, ``_`` and ``-``.
        description: one line for lists.
        source: paper that defines the space.
        cell_types: one name, or ``("normal", "reduce")``.
        n_inputs: inputs of a cell, outputs of that many previous cells: 1 or 2.
        n_nodes: nodes of a cell.
        edges_per_node: edges that a node keeps; None keeps one from every input and earlier node.
        output: the ``"last"`` node or the ``"concat"`` of all nodes.
        ops: operations that an edge may have, from ``spaces/ops.py``.
        skeleton: how cells are stacked.

    Raises:
        SpaceError: a value is impossible.
    """

    name: str
    description: str
    source: str
    cell_types: tuple[str, ...]
    n_inputs: int
    n_nodes: int
    edges_per_node: int | None
    output: Literal["concat", "last"]
    ops: tuple[str, ...]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", self.name, re.ASCII):
            raise SpaceError(f"name is {brief(self.name)}; expected up to 64 letters, digits, '_' or '-'.")
        self._check_cell_types()
        _check_range("n_inputs", self.n_inputs, 1, 2)
        _check_range("n_nodes", self.n_nodes, 1, MAX_NODES)
        if self.edges_per_node is not None and not 1 <= self.edges_per_node <= self.n_inputs:
            raise SpaceError(
                f"edges_per_node is {brief(self.edges_per_node)}; expected 1 … {self.n_inputs}, because the first node "
                f'can read only the n_inputs = {self.n_inputs} inputs of the cell. "all" keeps every edge.'
            )
        if self.output not in ("concat", "last"):
            raise SpaceError(f"output is {brief(self.output)}; expected 'concat' or 'last'.")
        self._check_ops()
        self._check_stack()

    def _check_cell_types(self) -> None:
        if self.cell_types == ("normal", "reduce"):
            return
        single = self.cell_types[0] if len(self.cell_types) == 1 else "reduce"
        if single == "reduce" or not single.isidentifier():
            raise SpaceError(
                f"cell types are {brief(list(self.cell_types))}; expected one name such as ['cell'], whose network "
                "reduces by residual blocks, or ['normal', 'reduce']."
            )

    def _check_ops(self) -> None:
        for op in self.ops:
            if op not in OPS:
                raise unknown_name("operation", op, OPS, SpaceError)
        if not self.ops or len(set(self.ops)) < len(self.ops):
            raise SpaceError(f"ops are {brief(list(self.ops))}; expected at least one operation and each of them once.")

    def _check_stack(self) -> None:
        """Refuse a stack without cells of a type, since a genotype's half would not matter."""
        n_reduce, n_cells = len(self.skeleton.reduce_at), self.skeleton.n_cells
        if len(self.cell_types) == 2 and n_reduce in (0, n_cells):
            missing = "reduce" if n_reduce == 0 else "normal"
            raise SpaceError(
                f"n_cells = {n_cells}, of which {n_reduce} reduce: there is no {missing} cell, so half of every "
                f"genotype would not matter; use {'at least one reduction' if n_reduce == 0 else 'more cells'}."
            )

    @property
    def concat(self) -> tuple[int, ...]:
        """States that make up the output of a cell, in order."""
        last = self.n_inputs + self.n_nodes
        return tuple(range(self.n_inputs, last)) if self.output == "concat" else (last - 1,)

    def n_edges(self, node: int) -> int:
        """Return how many edges node ``node`` (0 is the first) has."""
        return self.n_inputs + node if self.edges_per_node is None else self.edges_per_node

    @property
    def cell_size(self) -> int:
        """Number of cells per cell type."""
        return math.prod(
            math.comb(self.n_inputs + node, self.n_edges(node)) * len(self.ops) ** self.n_edges(node)
            for node in range(self.n_nodes)
        )

    @property
    def size(self) -> int:
        """Number of genotypes."""
        return math.prod(self.cell_size for _ in self.cell_types)

    def subspace(self) -> SubSpace:
        """Return the whole space as a subspace in which every operation is alive."""
        slots = (
            EdgeSlot(cell_type, node, index)
            for cell_type in self.cell_types
            for node in range(self.n_nodes)
            for index in range(self.n_inputs + node)
        )
        return SubSpace(tuple((slot, self.ops) for slot in slots), self.edges_per_node)

    def parse(self, text: str) -> Genotype:
        """Read a genotype: NAS-Bench-201 text for one cell type, DARTS text for several.

        Raises:
            GenotypeError: the text is malformed or its genotype is not in the space.
        """
        if len(self.cell_types) == 1:
            cells = {self.cell_types[0]: read_cell(text)}
        else:
            cells = read_cells(text, self.cell_types, [self.n_edges(node) for node in range(self.n_nodes)], self.concat)
        genotype = Genotype(tuple((cell_type, cells[cell_type]) for cell_type in self.cell_types))
        self.check(genotype)
        return genotype

    def format(self, architecture: Architecture) -> str:
        """Return the one text that stands for a genotype or a subspace; ``read`` reads it back."""
        if isinstance(architecture, SubSpace):
            return architecture.text
        if len(self.cell_types) == 1:
            return write_cell(architecture.cells[0][1])
        return write_cells(architecture, self.concat)

    def read(self, text: str) -> Architecture:
        """Read what ``format`` wrote.

        Raises:
            GenotypeError: the text is malformed or its genotype is not in the space.
            SpaceError: the text is that of a subspace, but not of this space.
        """
        return self.subspace().narrowed(text) if text.startswith("{") else self.parse(text)

    def check(self, genotype: Genotype) -> None:
        """Check that ``genotype`` is in the space.

        Raises:
            GenotypeError: it is not; the message names the cell and the node.
        """
        types = tuple(cell_type for cell_type, _ in genotype.cells)
        if types != self.cell_types:
            raise GenotypeError(f"cell types are {list(types)}; space {self.name!r} has {list(self.cell_types)}.")
        for cell_type, cell in genotype.cells:
            if len(cell) != self.n_nodes:
                raise GenotypeError(
                    f"cell {cell_type!r} has {len(cell)} nodes; cells of space {self.name!r} have {self.n_nodes}."
                )
            for position, node in enumerate(cell):
                self._check_node(f"node {position + 1} of cell {cell_type!r}", position, node)

    def _check_node(self, where: str, position: int, node: Node) -> None:
        for op, _ in node:
            if op not in self.ops:
                raise unknown_name(f"{where}: operation", op, self.ops, GenotypeError)
        inputs = [index for _, index in node]
        highest = self.n_inputs + position - 1
        if any(not 0 <= index <= highest for index in inputs):
            raise GenotypeError(f"{where} reads states {inputs}; it can read 0 … {highest}, inputs and earlier nodes.")
        if inputs != sorted(set(inputs)):
            raise GenotypeError(f"{where} reads states {inputs}; expected each state once, in ascending order.")
        if len(node) != self.n_edges(position):
            raise GenotypeError(
                f"{where} has {len(node)} edges; in space {self.name!r} it has {self.n_edges(position)}."
            )

    def canonical_forms(self, genotype: Genotype) -> tuple[str, ...]:
        """Return what each cell computes, as text; see ``spaces/canonical.py``."""
        return tuple(
            canonical_form(cell, self.n_inputs, self.output, reduces=cell_type == "reduce")
            for cell_type, cell in genotype.cells
        )

    def key(self, architecture: Architecture) -> str:
        """Return the canonical key, 20 hexadecimal digits: genotypes that compute the same functions share it.

        Parameters and multiply-adds are not functions of the key: a branch that never reaches the output still has
        weights. A subspace has a key of its own.
        """
        if isinstance(architecture, SubSpace):
            return canonical_key((architecture.text,))
        return canonical_key(self.canonical_forms(architecture))

    def is_connected(self, genotype: Genotype) -> bool:
        """Whether the output of every cell depends on its inputs."""
        return SILENT not in self.canonical_forms(genotype)

    def representative(self, genotype: Genotype) -> Genotype:
        """Return one member of the key of ``genotype``, to be scored in the place of all.

        In a space of at most 50,000 genotypes it is the smallest member, so it depends on the key alone; the first
        call makes the table. In a larger space it is the smallest among all orders of the nodes: members that differ
        in more than the order of their nodes may keep representatives of their own.
        """
        if self.size <= MAX_TABLE:
            return _representatives(self)[self.key(genotype)]
        return Genotype(
            tuple((cell_type, smallest_order(cell, self.n_inputs, self.output)) for cell_type, cell in genotype.cells)
        )

    def sample(self, rng: random.Random) -> Genotype:
        """Draw one genotype; all are equally likely."""
        return Genotype(
            tuple(
                (cell_type, tuple(self._sample_node(position, rng) for position in range(self.n_nodes)))
                for cell_type in self.cell_types
            )
        )

    def _sample_node(self, position: int, rng: random.Random) -> Node:
        inputs = sorted(rng.sample(range(self.n_inputs + position), self.n_edges(position)))
        return tuple((rng.choice(self.ops), index) for index in inputs)

    def genotypes(self) -> Iterator[Genotype]:
        """Yield every genotype, lazily, in ascending order of inputs and in the order of ``ops``."""
        nodes = [partial(self._nodes, position) for position in range(self.n_nodes)]
        for cells in _lazy_product([partial(_lazy_product, nodes)] * len(self.cell_types)):
            yield Genotype(tuple(zip(self.cell_types, cells, strict=True)))

    def _nodes(self, position: int) -> Iterator[Node]:
        """Yield everything that the node at ``position`` can be."""
        n_edges = self.n_edges(position)
        for inputs in combinations(range(self.n_inputs + position), n_edges):
            for ops in product(self.ops, repeat=n_edges):
                yield tuple(zip(ops, inputs, strict=True))

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """Yield every genotype that differs in one edge: in its operation, or in the state that it reads."""
        for type_index, (cell_type, cell) in enumerate(genotype.cells):
            for position, node in enumerate(cell):
                for other in self._neighbours(position, node):
                    changed = (*cell[:position], other, *cell[position + 1 :])
                    cells = genotype.cells
                    yield Genotype((*cells[:type_index], (cell_type, changed), *cells[type_index + 1 :]))

    def _neighbours(self, position: int, node: Node) -> Iterator[Node]:
        used = {index for _, index in node}
        free = [index for index in range(self.n_inputs + position) if index not in used]
        for place, (op, index) in enumerate(node):
            rest = (*node[:place], *node[place + 1 :])
            edits = [(other, index) for other in self.ops if other != op] + [(op, other) for other in free]
            for edit in edits:
                yield tuple(sorted((*rest, edit), key=itemgetter(1)))


def _lazy_product(factories: Sequence[Callable[[], Iterator[T]]]) -> Iterator[tuple[T, ...]]:
    """Yield the product of fresh iterators; unlike ``itertools.product`` it never stores them."""
    if not factories:
        yield ()
        return
    for head in factories[0]():
        for tail in _lazy_product(factories[1:]):
            yield (head, *tail)


@lru_cache(maxsize=8)
def _representatives(space: Space) -> Mapping[str, Genotype]:
    """Smallest member of every key of a small space."""
    smallest: dict[str, Genotype] = {}
    for genotype in space.genotypes():
        key = space.key(genotype)
        smallest[key] = min(smallest.get(key, genotype), genotype)
    return smallest


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        got = f"{value:,}" if abs(value) < 10**18 else brief(value)
        raise SpaceError(f"{name} is {got}; expected {low:,} … {high:,}.")
