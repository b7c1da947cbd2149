"""Draw a cell as a stand-alone SVG: a layered graph, inputs left, output right, one label for each operation.

Nodes stand in even columns by their depth and labels in the odd columns between them. An edge owns one slot in
every column that it crosses, its label being one of them, and the slots of a column keep their distance; so no
label can lie on another label, on a node or on a foreign edge (Sugiyama, Tagawa & Toda 1981, IEEE Trans. SMC 11).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from xml.sax.saxutils import escape

from metantk_nas.spaces.genotype import Cell

FAMILIES = {  # family: (pattern of its operations, colour; white text on each colour has a contrast above 4.5 : 1)
    "none": ("none", "#a3aab5"),  # drawn faint, its text dark
    "skip": (".*skip", "#4b5563"),
    "sep": ("sep_conv", "#0b63a5"),
    "dil": ("dil_conv", "#8a3a8f"),
    "pool": (".*pool", "#08745a"),
    "conv": (".*conv", "#b3470a"),
    "other": ("", "#7a5c00"),
}
SHORTHANDS = (
    (r"_connect$", ""),
    (r"^nor_conv_", "conv_"),
    (r"^(sep|dil)_conv_|^(max|avg)_pool_(.*?)(BN)?$", r"\1\2_\3"),
    (r"^conv_(\d+x\d+)_(\d+x\d+)$", r"\1·\2"),
    (r"(\d)x(\d)", r"\1×\2"),
    ("_+", " "),
)
MAX_LABEL = 18  # characters
MIN_WIDTH, MARGIN, GAP = 420.0, 5.0, 12.0  # pixels
LABEL_HEIGHT, NODE_SIZE, INPUT_WIDTH, PASS_HEIGHT, DISTANCE = 18.0, 24.0, 34.0, 4.0, 9.0  # pixels
CHARACTER_WIDTH, LABEL_PADDING = 6.6, 9.0  # pixels; upper mean of sans-serif faces at 11 px
SWEEPS = 12


@dataclass(eq=False)
class _Slot:
    """A place in one column: a node, a label or the passage of an edge; ``y`` is its centre in pixels."""

    column: int
    text: str = ""
    width: float = 0.0
    height: float = PASS_HEIGHT
    y: float = 0.0
    left: list["_Slot"] = field(default_factory=list)
    right: list["_Slot"] = field(default_factory=list)


@dataclass(frozen=True)
class _Edge:
    """The slots of an edge from source to target; an edge into the concatenation has neither operation nor label."""

    slots: tuple[_Slot, ...]
    op: str = ""
    label: _Slot | None = None


@dataclass
class _Layout:
    """Nodes, edges, and per column its slots from top to bottom, its left border and its width in pixels."""

    nodes: list[_Slot]
    edges: list[_Edge]
    columns: list[list[_Slot]]
    lefts: list[float]
    widths: list[float]


def op_family(op: str) -> str:
    """Family of an operation, the key of its colour in `FAMILIES`."""
    return next(name for name, (pattern, _) in FAMILIES.items() if re.match(pattern, op))


def op_label(op: str) -> str:
    """Short form of an operation's published name: ``sep_conv_3x3`` becomes ``sep 3×3``."""
    text = op
    for pattern, replacement in SHORTHANDS:
        text = re.sub(pattern, replacement, text)
    text = text.strip() or op
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def draw_cell(cell: Cell, *, n_inputs: int, output: str = "concat", title: str = "cell") -> str:
    """SVG of a cell, with a title for readers that do not see it.

    Colours are attributes, so that the drawing stands alone, and classes (``edge op-sep``, ``node``, …), so that a
    page's style sheet can override them.

    Args:
        cell: one tuple of ``(op, input)`` per node; inputs count the cell's own inputs first.
        n_inputs: number of the cell's inputs.
        output: ``"concat"`` joins all nodes in an output, ``"last"`` takes the last node.
        title: accessible name of the drawing.
    """
    layout = _layout(cell, n_inputs, output)
    width = layout.lefts[-1] + layout.widths[-1] + MARGIN
    height = MARGIN + max(slot.y + slot.height / 2 for column in layout.columns for slot in column)
    size = f"{width:.0f} {height:.0f}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="cell" role="img" viewBox="0 0 {size}" '
            f'width="{width:.0f}" height="{height:.0f}" font-family="system-ui, sans-serif" font-size="11">',
            f"<title>{escape(title)}</title>",
            *(_edge_svg(edge, layout) for edge in layout.edges),
            *(_node_svg(node, layout) for node in layout.nodes),
            "</svg>",
        ]
    )


def _layout(cell: Cell, n_inputs: int, output: str) -> _Layout:
    """Place nodes and edges: columns by depth, order by crossings, heights by neighbours."""
    depths = _depths(cell, n_inputs)
    names = [input_name(index, n_inputs) for index in range(n_inputs)]
    names += [str(index) for index in range(n_inputs, len(depths))]
    if output == "concat":
        depths.append(max(depths) + 1)
        names.append("out")
    else:
        names[-1] = "out"
    columns: list[list[_Slot]] = [[] for _ in range(2 * max(depths) + 1)]
    nodes = [_node(name, depth) for name, depth in zip(names, depths, strict=True)]
    for node in nodes:
        columns[node.column].append(node)
    labels = _distinct_labels([op for node in cell for op, _ in node])
    edges = [
        _connect(nodes[source], nodes[n_inputs + index], columns, op, labels[op])
        for index, node in enumerate(cell)
        for op, source in node
    ]
    if output == "concat":
        edges += [_connect(node, nodes[-1], columns) for node in nodes[n_inputs:-1]]
    columns = _untangle(columns)
    _settle(columns)
    lefts, widths = _horizontal(columns)
    return _Layout(nodes, edges, columns, lefts, widths)


def _depths(cell: Cell, n_inputs: int) -> list[int]:
    """Longest path from the inputs to each input (0) and node (at least 1)."""
    depths = [0] * n_inputs
    for node in cell:
        depths.append(1 + max((depths[source] for _, source in node), default=0))
    return depths


def input_name(index: int, n_inputs: int) -> str:
    """What a cell's own input is called: ``c_k-2`` is the cell before the last."""
    return "in" if n_inputs == 1 else f"c_k-{n_inputs - index}"


def _node(name: str, depth: int) -> _Slot:
    return _Slot(2 * depth, name, NODE_SIZE if name.isdigit() else INPUT_WIDTH, NODE_SIZE)


def _distinct_labels(ops: Sequence[str]) -> dict[str, str]:
    """Label of each operation: short, unless two operations of the cell would share it."""
    short = {op: op_label(op) for op in ops}
    return {op: label if list(short.values()).count(label) == 1 else op for op, label in short.items()}


def _connect(source: _Slot, target: _Slot, columns: list[list[_Slot]], op: str = "", text: str = "") -> _Edge:
    """Give the edge a slot in every column between its ends; the emptiest odd one of them carries the label."""
    between = range(source.column + 1, target.column)
    slots = {column: _Slot(column) for column in between}
    label = None
    if text:
        label = slots[min(between[::2], key=lambda column: sum(bool(slot.text) for slot in columns[column]))]
        label.text, label.width, label.height = text, CHARACTER_WIDTH * len(text) + LABEL_PADDING, LABEL_HEIGHT
    for column, slot in slots.items():
        columns[column].append(slot)
    chain = (source, *slots.values(), target)
    for near, far in pairwise(chain):
        near.right.append(far)
        far.left.append(near)
    return _Edge(chain, op, label)


def _untangle(columns: list[list[_Slot]]) -> list[list[_Slot]]:
    """Order of the slots in each column with the fewest crossings that barycentre sweeps find; inputs keep theirs."""
    orders = [columns]
    for sweep in range(SWEEPS):
        order = list(orders[-1])
        if sweep % 2 == 0:
            for index in range(1, len(order)):
                order[index] = _sort_by_neighbours(order[index], order[index - 1])
        else:
            for index in range(len(order) - 2, 0, -1):
                order[index] = _sort_by_neighbours(order[index], order[index + 1])
        orders.append(order)
    return min(orders, key=_n_crossings)


def _sort_by_neighbours(column: list[_Slot], beside: list[_Slot]) -> list[_Slot]:
    """Sort a column by the mean place of each slot's neighbours in the column beside it."""
    places = {slot: place for place, slot in enumerate(beside)}

    def wish(slot: _Slot) -> float:
        found = [places[neighbour] for neighbour in slot.left + slot.right if neighbour in places]
        return sum(found) / len(found) if found else column.index(slot)

    return sorted(column, key=wish)


def _n_crossings(columns: list[list[_Slot]]) -> int:
    """Number of pairs of lines that cross between neighbouring columns."""
    count = 0
    for near, far in pairwise(columns):
        places = {slot: place for place, slot in enumerate(far)}
        ends = [sorted(places[slot] for slot in source.right) for source in near]
        count += sum(a > b for upper, lower in combinations(ends, 2) for a in upper for b in lower)
    return count


def _settle(columns: list[list[_Slot]]) -> None:
    """Set the heights: each slot as level with its neighbours as the distances in its column allow."""
    for column in columns:
        _stack(column, [0.0] * len(column))
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            _stack(column, [_mean([other.y for other in slot.left + slot.right], slot.y) for slot in column])
    top = min(slot.y - slot.height / 2 for column in columns for slot in column) - MARGIN
    for column in columns:
        for slot in column:
            slot.y -= top


def _stack(column: list[_Slot], wishes: list[float]) -> None:
    """Least-squares heights near the wishes, in order and at a distance: isotonic regression by pooling."""
    offsets = [0.0]
    for upper, lower in pairwise(column):
        offsets.append(offsets[-1] + (upper.height + lower.height) / 2 + DISTANCE)
    pools: list[list[float]] = []
    for wish, offset in zip(wishes, offsets, strict=False):
        pools.append([wish - offset])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    levels = [_mean(pool) for pool in pools for _ in pool]
    for slot, level, offset in zip(column, levels, offsets, strict=False):
        slot.y = level + offset


def _mean(values: list[float], default: float = 0.0) -> float:
    return sum(values) / len(values) if values else default


def _horizontal(columns: list[list[_Slot]]) -> tuple[list[float], list[float]]:
    """Left borders and widths of the columns; a narrow drawing is spread to the least width."""
    widths = [max((slot.width for slot in column), default=0.0) for column in columns]
    free = MIN_WIDTH - 2 * MARGIN - sum(widths)
    gap = max(GAP, free / (len(columns) - 1))
    lefts = [MARGIN + sum(widths[:index]) + gap * index for index in range(len(columns))]
    return lefts, widths


def _edge_svg(edge: _Edge, layout: _Layout) -> str:
    """Group with the line, the arrow head and the label of an edge."""
    family = op_family(edge.op) if edge.label else "concat"
    colour = FAMILIES[family][1] if edge.label else "#9aa1ab"
    dashes = ' stroke-dasharray="3 3"' if family == "none" else ""
    end = edge.slots[-1]
    x, y = _centre(end, layout) - end.width / 2, end.y
    parts = [
        f'<path fill="none" stroke-width="1.5" d="{_line(edge, layout)}"/>',
        f'<path stroke="none" d="M{x - 6:.1f} {y - 3.5:.1f}L{x:.1f} {y:.1f}L{x - 6:.1f} {y + 3.5:.1f}z"/>',
    ]
    if edge.label:
        parts.insert(0, f"<title>{escape(edge.op)}: {edge.slots[0].text} to {end.text}</title>")
        parts.append(_label_svg(edge.label, layout, faint=family == "none"))
    return f'<g class="edge op-{family}" stroke="{colour}" fill="{colour}"{dashes}>{"".join(parts)}</g>'


def _line(edge: _Edge, layout: _Layout) -> str:
    """Path through the edge's slots: level across each column, curved between columns."""
    start, end = edge.slots[0], edge.slots[-1]
    x = _centre(start, layout) + start.width / 2
    path = [f"M{x:.1f} {start.y:.1f}"]
    for near, far in pairwise(edge.slots):
        left = layout.lefts[far.column] - (4 if far is end else 0)
        bend = (x + left) / 2
        x = layout.lefts[far.column] + layout.widths[far.column]
        path.append(f"C{bend:.1f} {near.y:.1f} {bend:.1f} {far.y:.1f} {left:.1f} {far.y:.1f}")
        if far is not end:
            path.append(f"H{x:.1f}")
    return "".join(path)


def _label_svg(label: _Slot, layout: _Layout, *, faint: bool) -> str:
    """Pill with the operation's short name."""
    x = _centre(label, layout)
    fill, ink = (' fill="#f3f4f6"', "#5b6470") if faint else ("", "#ffffff")
    return (
        f'<rect class="label" stroke="none"{fill} x="{x - label.width / 2:.1f}" y="{label.y - label.height / 2:.1f}" '
        f'width="{label.width:.1f}" height="{label.height:.1f}" rx="{label.height / 2:.1f}"/>'
        f'<text stroke="none" fill="{ink}" text-anchor="middle" x="{x:.1f}" y="{label.y + 4:.1f}">'
        f"{escape(label.text)}</text>"
    )


def _node_svg(node: _Slot, layout: _Layout) -> str:
    """Rounded box with the node's name; the part of an input's name after ``_`` is a subscript."""
    x = _centre(node, layout)
    base, _, subscript = node.text.partition("_")
    small = f'<tspan dy="3" font-size="8">{subscript.replace("-", "−")}</tspan>' if subscript else ""
    return (
        f'<g class="node"><rect fill="#f3f4f6" stroke="#6b7280" x="{x - node.width / 2:.1f}" '
        f'y="{node.y - node.height / 2:.1f}" width="{node.width:.1f}" height="{node.height:.1f}" '
        f'rx="{node.height / 2:.1f}"/><text fill="#1f2937" text-anchor="middle" x="{x:.1f}" '
        f'y="{node.y + 4:.1f}">{base}{small}</text></g>'
    )


def _centre(slot: _Slot, layout: _Layout) -> float:
    return layout.lefts[slot.column] + layout.widths[slot.column] / 2
