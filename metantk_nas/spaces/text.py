"""The two published ways to write a genotype; syntax only, a space checks what was read.

NAS-Bench-201 (Dong & Yang, ICLR 2020): one cell, ``|op~0|+|op~0|op~1|``, nodes joined by ``+``.
DARTS (Liu et al., ICLR 2019): ``Genotype(normal=[('op', 0), …], normal_concat=[2, 3], reduce=[…], reduce_concat=…)``.
Text is parsed, never evaluated.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Sequence
from operator import itemgetter

from metantk_nas.errors import GenotypeError, brief, unknown_name
from metantk_nas.spaces.genotype import Cell, Edge, Genotype, Node

MAX_LENGTH = 10_000
MAX_RANGE = 64


def write_cell(cell: Cell) -> str:
    """Write one cell as NAS-Bench-201 does."""
    return "+".join("|" + "".join(f"{op}~{index}|" for op, index in node) for node in cell)


def read_cell(text: str) -> Cell:
    """Read one cell written as NAS-Bench-201 does; edges may come in any order, white space is free.

    Raises:
        GenotypeError: malformed text, with the position of the fault.
    """
    _check_length(text)
    nodes: list[Node] = []
    position = 0
    for node_text in text.split("+"):
        nodes.append(_read_node(node_text, position))
        position += len(node_text) + 1
    return tuple(nodes)


def write_cells(genotype: Genotype, concat: Sequence[int]) -> str:
    """Write all cells as DARTS does, as flat lists.

    Args:
        genotype: the cells.
        concat: states that make up the output of a cell.
    """
    fields = (
        f"{cell_type}={list(itertools.chain.from_iterable(cell))}, {cell_type}_concat={list(concat)}"
        for cell_type, cell in genotype.cells
    )
    return f"Genotype({', '.join(fields)})"


def read_cells(
    text: str, cell_types: Sequence[str], node_sizes: Sequence[int], concat: Sequence[int]
) -> dict[str, Cell]:
    """Read cells written as DARTS does: flat or nested lists, ``range`` or lists for the concat, or no concat.

    Args:
        text: what to read.
        cell_types: the cells that must be there.
        node_sizes: edges of each node of a cell, to cut a flat list into nodes.
        concat: the only concat allowed.

    Raises:
        GenotypeError: malformed text, with the position of the fault or the name of the cell.
    """
    values = _read_fields(text)
    known = [name for cell_type in cell_types for name in (cell_type, f"{cell_type}_concat")]
    for name in values:
        if name not in known:
            raise unknown_name("field of Genotype", name, known, GenotypeError)
    for cell_type in cell_types:
        if cell_type not in values:
            raise GenotypeError(f"the cell {cell_type!r} is missing; expected Genotype({cell_type}=[('op', 0), …], …).")
        got = values.get(f"{cell_type}_concat", list(concat))
        if got != list(concat):
            raise GenotypeError(f"{cell_type}_concat is {brief(got)}; cells of this space output {list(concat)}.")
    return {cell_type: _cell(cell_type, values[cell_type], node_sizes) for cell_type in cell_types}


def _check_length(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise GenotypeError(f"the text has {len(text):,} characters; a genotype has at most {MAX_LENGTH:,}.")


def _read_node(text: str, position: int) -> Node:
    inner = re.fullmatch(r"\s*\|(.*)\|\s*", text, re.DOTALL)
    if inner is None:
        raise GenotypeError(
            f"at character {position + 1}: got {brief(text)}, expected a node such as '|none~0|skip_connect~1|'."
        )
    edges: list[Edge] = []
    position += inner.start(1)
    for part in inner[1].split("|"):
        edge = re.fullmatch(r"\s*(\w+)\s*~\s*(\d{1,4})\s*", part, re.ASCII)
        if edge is None:
            raise GenotypeError(
                f"at character {position + 1}: got {brief(part)}, expected an edge such as 'skip_connect~0', "
                "the operation and the state it reads."
            )
        edges.append((edge[1], int(edge[2])))
        position += len(part) + 1
    return _sorted(edges)


def _sorted(edges: Iterable[Edge]) -> Node:
    return tuple(sorted(edges, key=itemgetter(1)))


def _read_fields(text: str) -> dict[str, object]:
    """Keyword arguments of ``Genotype(…)``, as lists, strings and integers."""
    _check_length(text)
    foreign = re.search(r"[^\w\s()\[\],='\"]", text, re.ASCII)
    if foreign:
        raise GenotypeError(f"at character {foreign.start() + 1}: {foreign[0]!r} has no place in a DARTS genotype.")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f"line {error.lineno}, character {error.offset}: " if isinstance(error, SyntaxError) else ""
        reason = error.args[0] if error.args else "it is nested too deeply"
        raise GenotypeError(f"{at}{reason}; expected Genotype(normal=[('op', 0), …], reduce=[…]).") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype" or call.args:
        raise GenotypeError(f"got {brief(text)}; expected Genotype(normal=[('op', 0), …], reduce=[…]).")
    values: dict[str, object] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in values:
            raise GenotypeError(f"{_place(keyword)}: every field of Genotype needs a name of its own.")
        values[keyword.arg] = _literal(keyword.value)
    return values


def _place(node: ast.expr | ast.keyword) -> str:
    return f"line {node.lineno}, character {node.col_offset + 1}"


def _literal(node: ast.expr) -> object:
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_literal(element) for element in elements]
        case ast.Constant(value=str() | int() as value) if not isinstance(value, bool):
            return value
        case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(start)), ast.Constant(value=int(stop))]):
            return list(range(start, min(stop, start + MAX_RANGE)))
    raise GenotypeError(f"{_place(node)}: expected a list, an edge such as ('skip_connect', 0), or range(2, 5).")


def _cell(cell_type: str, value: object, node_sizes: Sequence[int]) -> Cell:
    """Nodes of a list of lists of edges, or of a flat list of edges cut by ``node_sizes``."""
    match value:
        case [[[*_], *_], *_] as nodes:
            return tuple(
                _sorted(_edges(f"node {number} of cell {cell_type!r}", node)) for number, node in enumerate(nodes, 1)
            )
    edges = _edges(f"cell {cell_type!r}", value)
    if len(edges) != sum(node_sizes):
        sizes = " + ".join(map(str, node_sizes))
        raise GenotypeError(f"cell {cell_type!r} has {len(edges)} edges; expected {sizes} for its nodes.")
    remaining = iter(edges)
    return tuple(_sorted(itertools.islice(remaining, size)) for size in node_sizes)


def _edges(where: str, value: object) -> list[Edge]:
    edges: list[Edge] = []
    for element in value if isinstance(value, list) else [value]:
        match element:
            case [str() as op, int() as index]:
                edges.append((op, index))
            case _:
                raise GenotypeError(f"{where}: got {brief(element)}, expected an edge such as ('skip_connect', 0).")
    return edges
