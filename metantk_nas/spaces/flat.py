"""Genotypes as flat categorical parameters, the language of optimisers such as Optuna, Ray Tune and ConfigSpace.

Every assignment of the parameters is a genotype and every genotype is one assignment, so that drawing the parameters
uniformly draws genotypes uniformly, and no optimiser ever proposes something that is not in the space.

- A cell whose nodes keep every edge has one parameter an edge: ``op_0_1`` is the operation from state 0 to state 1, as
  NAS-Bench-201 numbers them.
- A cell whose nodes choose their edges has, for each node that has a choice, the states it reads as one parameter
  (``normal_n1_in`` is ``"0,2"``: they are read in ascending order, each once), and the operation of each of them
  (``normal_n1_op0``, ``normal_n1_op1``).

With several cell types every name begins with the type.
"""

from collections.abc import Mapping
from itertools import combinations

from metantk_nas.errors import GenotypeError, unknown_name
from metantk_nas.spaces.genotype import Cell, Genotype, Node
from metantk_nas.spaces.space import Space

Parameters = Mapping[str, tuple[str, ...]]
"""What each parameter may be, by name."""


def parameters(space: Space) -> dict[str, tuple[str, ...]]:
    """Return the parameters of a space, by name, with their values.

    The number of assignments is ``space.size``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for cell_type in space.cell_types:
        for position in range(space.n_nodes):
            if len(inputs := _input_choices(space, position)) > 1:
                found[_inputs_name(space, cell_type, position)] = inputs
            for edge in range(space.n_edges(position)):
                found[_op_name(space, cell_type, position, edge)] = space.ops
    return found


def encode(space: Space, genotype: Genotype) -> dict[str, str]:
    """Write a genotype as a value for each parameter.

    Raises:
        GenotypeError: the genotype is not in the space.
    """
    space.check(genotype)
    found: dict[str, str] = {}
    for cell_type, cell in genotype.cells:
        for position, node in enumerate(cell):
            if len(_input_choices(space, position)) > 1:
                found[_inputs_name(space, cell_type, position)] = ",".join(str(index) for _, index in node)
            for edge, (op, _) in enumerate(node):
                found[_op_name(space, cell_type, position, edge)] = op
    return found


def decode(space: Space, values: Mapping[str, str]) -> Genotype:
    """Read what `encode` wrote; parameters of other things in ``values`` are passed over.

    Raises:
        GenotypeError: a parameter of the space is missing, or its value is none of those it may have.
    """
    chosen: dict[str, str] = {}
    for name, choices in parameters(space).items():
        if name not in values:
            raise GenotypeError(f"parameter {name!r} is missing; space {space.name!r} needs {len(parameters(space))}.")
        if values[name] not in choices:
            raise unknown_name(f"value of parameter {name!r}:", str(values[name]), choices, GenotypeError)
        chosen[name] = values[name]
    return Genotype(tuple((cell_type, _decode_cell(space, cell_type, chosen)) for cell_type in space.cell_types))


def _decode_cell(space: Space, cell_type: str, chosen: Mapping[str, str]) -> Cell:
    return tuple(_decode_node(space, cell_type, position, chosen) for position in range(space.n_nodes))


def _decode_node(space: Space, cell_type: str, position: int, chosen: Mapping[str, str]) -> Node:
    only = _input_choices(space, position)[0]
    inputs = chosen.get(_inputs_name(space, cell_type, position), only).split(",")
    ops = (chosen[_op_name(space, cell_type, position, edge)] for edge in range(space.n_edges(position)))
    return tuple((op, int(index)) for op, index in zip(ops, inputs, strict=True))


def _input_choices(space: Space, position: int) -> tuple[str, ...]:
    """The sets of states that a node may read."""
    states = range(space.n_inputs + position)
    return tuple(",".join(map(str, chosen)) for chosen in combinations(states, space.n_edges(position)))


def _inputs_name(space: Space, cell_type: str, position: int) -> str:
    return f"{_prefix(space, cell_type)}n{position}_in"


def _op_name(space: Space, cell_type: str, position: int, edge: int) -> str:
    prefix = _prefix(space, cell_type)
    if space.edges_per_node is None:
        return f"{prefix}op_{edge}_{space.n_inputs + position}"
    return f"{prefix}n{position}_op{edge}"


def _prefix(space: Space, cell_type: str) -> str:
    return "" if len(space.cell_types) == 1 else f"{cell_type}_"
