"""Python source of one cell type: the class that stands for all its cells in a network."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from metantk_nas.export.blocks import call_op
from metantk_nas.export.straight import live_nodes, present
from metantk_nas.networks.cell import Cell as CellLayers
from metantk_nas.networks.ops import FactorizedReduction
from metantk_nas.spaces.genotype import Cell

WIDTH = 120
"""Characters of a line, at most."""

INPUTS = {1: ("previous",), 2: ("before", "previous")}
"""What the inputs of a cell are called, oldest first, by their number."""

_PARAMETERS = {"before": "int", "previous": "int", "channels": "int", "halve_before": "bool = False"}
"""What a cell may be told: the channels of its inputs, those of its nodes, and whether its older input is too large."""


def cell_class(name: str, cell: Cell, same: Sequence[CellLayers]) -> str:
    """Write the class of a cell type.

    Args:
        name: what the class is called.
        cell: the nodes.
        same: the cells of the network that the class stands for, one at least.
    """
    return "\n".join(
        [
            f"class {name}(nn.Module):",
            f'    """{_words(cell, same[0])}"""',
            "",
            *_constructor(cell, same),
            *_forward(cell, same[0], fitted=bool(_preprocess(same))),
            "",
        ]
    )


def cell_parameters(cell: Cell, same: Sequence[CellLayers]) -> list[str]:
    """Return the names of what the class of a cell type wants to be told."""
    code = "\n".join([*_preprocess(same), *_ops(cell, same[0])])
    return [name for name in _PARAMETERS if re.search(rf"\b{name}\b", code)]


def listed(name: str, entries: Sequence[str], container: str) -> list[str]:
    """Return the lines of a constructor that put modules into a container, one a line; none without modules.

    Args:
        name: of the attribute.
        entries: expressions of the modules.
        container: ``"ModuleList"`` or ``"ModuleDict"``.
    """
    if not entries:
        return []
    opening, closing = ("[", "]") if container == "ModuleList" else ("{", "}")
    lines = [f"        {name} = {opening}", *(f"            {entry}," for entry in entries), f"        {closing}"]
    return [*lines, f"        self.{name} = nn.{container}({name})"]


def _words(cell: Cell, layers: CellLayers) -> str:
    """Docstring of a cell's class."""
    reads = "the output before it" if layers.n_inputs == 1 else "the outputs of the two cells before it"
    words = f'Cell of {len(cell)} nodes that reads {reads}; layers are named "node_state_operation".'
    if len(live_nodes(cell, layers.n_inputs, layers.output)) == len(cell):
        return words
    return f"{words}\n\n    What reaches no output is not computed; its weights are kept, as in the state dict.\n    "


def _constructor(cell: Cell, same: Sequence[CellLayers]) -> list[str]:
    preprocess, ops = _preprocess(same), _ops(cell, same[0])
    if not preprocess and not ops:
        return []
    arguments = ["self", *(f"{name}: {_PARAMETERS[name]}" for name in cell_parameters(cell, same))]
    return [
        f"    def __init__({', '.join(arguments)}) -> None:",
        "        super().__init__()",
        *listed("preprocess", preprocess, "ModuleList"),
        *listed("ops", ops, "ModuleDict"),
        "",
    ]


def _preprocess(same: Sequence[CellLayers]) -> list[str]:
    """Expressions that bring the inputs to the channels and the resolution of the cell; none where they fit."""
    found = [
        _fit(name, {type(layers.preprocess[index]) for layers in same})
        for index, name in enumerate(INPUTS[same[0].n_inputs])
    ]
    return [] if found == ["nn.Identity()"] else found


def _fit(name: str, kinds: set[type[nn.Module]]) -> str:
    """Expression that fits one input, given what the cells of a type do with it."""
    conv, halve = f"relu_conv_norm({name}, channels, 1)", f"FactorizedReduction({name}, channels)"
    if FactorizedReduction in kinds:
        return halve if len(kinds) == 1 else f"{halve} if halve_{name} else {conv}"
    if nn.Identity in kinds:
        return "nn.Identity()" if len(kinds) == 1 else f"{conv} if {name} != channels else nn.Identity()"
    return conv


def _ops(cell: Cell, layers: CellLayers) -> list[str]:
    return [
        f'"{node}_{source}_{op}": {call_op(op, _stride(source, layers))}'
        for node, edges in enumerate(cell)
        for op, source in present(edges)
        if not _is_identity(op, source, layers)
    ]


def _stride(source: int, layers: CellLayers) -> int:
    return layers.stride if source < layers.n_inputs else 1


def _is_identity(op: str, source: int, layers: CellLayers) -> bool:
    return op == "skip_connect" and _stride(source, layers) == 1


def _forward(cell: Cell, layers: CellLayers, *, fitted: bool) -> list[str]:
    """Lines of the method that runs a cell; what reaches no output is left out."""
    names, live = INPUTS[layers.n_inputs], live_nodes(cell, layers.n_inputs, layers.output)
    states = [f"x{index}" if fitted else name for index, name in enumerate(names)]
    states += [f"x{layers.n_inputs + node}" for node in range(len(cell))]
    sums = {states[layers.n_inputs + node]: _parts(node, cell, layers, states) for node in live}
    if layers.output == "concat" and len(sums) > 1:
        statements = {**sums, "return": [f"torch.cat([{', '.join(sums)}], dim=1)"]}
    else:
        *_, last = sums
        statements = {("return" if name == last else name): parts for name, parts in sums.items()}
    read = [_is_read(state, statements.values()) for state in states[: len(names)]]
    fits = {f"x{i}": [f"self.preprocess[{i}]({name})"] for i, name in enumerate(names) if fitted and read[i]}
    body = [line for target, parts in _joined({**fits, **statements}).items() for line in _statement(target, parts)]
    arguments = ", ".join(f"{name if used else f'_{name}'}: Tensor" for name, used in zip(names, read, strict=True))
    return [f"    def forward(self, {arguments}) -> Tensor:", '        """Compute the output of the cell."""', *body]


def _is_read(state: str, sums: Iterable[Sequence[str]]) -> bool:
    return any(re.search(rf"\b{state}\b", part) for parts in sums for part in parts)


def _joined(statements: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return at once what the last assignments would only give names to."""
    *assigned, _ = statements
    returned = statements["return"]
    while assigned and returned == [assigned[-1]]:
        returned = statements[assigned.pop()]
    return {**{name: statements[name] for name in assigned}, "return": returned}


def _parts(node: int, cell: Cell, layers: CellLayers, states: Sequence[str]) -> list[str]:
    """Expressions that a node sums."""
    parts = [
        states[source] if _is_identity(op, source, layers) else f'self.ops["{node}_{source}_{op}"]({states[source]})'
        for op, source in present(cell[node])
    ]
    return parts or [f"torch.zeros_like({states[0]}{'[:, :, ::2, ::2]' if layers.stride == 2 else ''})"]


def _statement(target: str, parts: Sequence[str]) -> list[str]:
    """Lines that return a sum or give it a name, as few as fit."""
    start, total = target if target == "return" else f"{target} =", " + ".join(parts)
    if len(line := f"        {start} {total}") <= WIDTH:
        return [line]
    if len(line := f"            {total}") <= WIDTH:
        return [f"        {start} (", line, "        )"]
    rest = (f"            + {part}" for part in parts[1:])
    return [f"        {start} (", f"            {parts[0]}", *rest, "        )"]
