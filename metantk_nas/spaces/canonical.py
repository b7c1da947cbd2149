"""What a cell computes, written so that cells of the same function share one text and one key.

A state of a cell is a sum of *terms*, and a term is an operation applied to a state (or an input of the cell):

- ``none`` adds no term, and neither does an operation on a state without terms: at initialisation, with zero biases,
  it outputs zeros.
- ``skip_connect`` is no term of its own: it adds the terms of the state that it reads. Only at stride 2, reading an
  input of a reduction cell, it is an operation with weights like any other.
- Operations without weights on equal states are equal terms. Every edge with weights owns them, so two convolutions
  of the same state are two terms, unlike one convolution that is read twice. A term with weights that occurs more
  than once is written with a number, ``nor_conv_3x3#1(x0)``; the same number means the same weights.
- Sums are sorted. The last state is the output (``output="last"``), or all nodes are, in any order (``"concat"``);
  what reaches no output is not written.

Among equally written numbered terms every numbering is tried, and the smallest text is the form, up to
``MAX_NUMBERINGS``; beyond that the order of the edges numbers them. Such a cell may get another form than an
equivalent cell, but never the form of a cell with another function.

Not seen as equal: algebra across operations (the average pool of a sum is the sum of average pools), a dead input
that still shifts a trained bias, and sums that agree for some weights only.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Literal, NamedTuple

from metantk_nas.spaces.genotype import Cell, Node
from metantk_nas.spaces.ops import OPS

MAX_NUMBERINGS = 720
Output = Literal["concat", "last"]
Owner = tuple[int, int]
"""The edge that owns the weights of a term: its node, and its place among the node's edges."""


class Term(NamedTuple):
    """An operation applied to a sum of terms; an input of the cell is a term without terms."""

    op: str
    owner: Owner | None
    body: "tuple[Term, ...]"


State = tuple[Term, ...]

SILENT = "0"
"""Form of a cell whose output is zero."""


def canonical_form(cell: Cell, n_inputs: int, output: Output, *, reduces: bool = False) -> str:
    """Text of the function that a cell computes; `SILENT` for a cell whose output is zero.

    Args:
        cell: nodes of the cell.
        n_inputs: number of inputs of the cell, written ``x0``, ``x1``, ….
        output: ``"last"`` node or the ``"concat"`` of all nodes.
        reduces: edges from the inputs have stride 2.
    """
    states = _states(cell, n_inputs, reduces)
    outputs = states[-1:] if output == "last" else states[n_inputs:]
    return min(_write_outputs(outputs, numbers) for numbers in _numberings(_shared_terms(outputs)))


def canonical_key(forms: Iterable[str]) -> str:
    """Twenty hexadecimal digits that stand for the canonical forms of the cells of one genotype."""
    return hashlib.blake2b("\n".join(forms).encode(), digest_size=10).hexdigest()


def smallest_order(cell: Cell, n_inputs: int, output: Output) -> Cell:
    """Return the smallest of all cells that differ from ``cell`` in the order of their nodes only."""

    def complete(placed: tuple[int, ...]) -> Cell:
        new_index = {n_inputs + position: n_inputs + place for place, position in enumerate(placed)}
        new_index.update((index, index) for index in range(n_inputs))
        candidates: dict[Node, list[int]] = {}
        for position, node in enumerate(cell):
            must_wait = output == "last" and position == len(cell) - 1 > len(placed)
            if position not in placed and not must_wait and all(index in new_index for _, index in node):
                renamed = tuple(sorted(((op, new_index[index]) for op, index in node), key=itemgetter(1)))
                candidates.setdefault(renamed, []).append(position)
        if not candidates:
            return ()
        first = min(candidates)
        return min((first, *complete((*placed, position))) for position in candidates[first])

    return complete(())


def _states(cell: Cell, n_inputs: int, reduces: bool) -> list[State]:
    states: list[State] = [(Term(f"x{index}", None, ()),) for index in range(n_inputs)]
    for position, node in enumerate(cell):
        terms: list[Term] = []
        for edge, (op, index) in enumerate(node):
            traits = OPS[op]
            strided = reduces and index < n_inputs
            if traits.kind == "zero" or not states[index]:
                continue
            if traits.kind == "identity" and not strided:
                terms.extend(states[index])
            else:
                has_weights = traits.parametric or traits.kind == "identity"
                terms.append(Term(op, (position, edge) if has_weights else None, states[index]))
        states.append(tuple(terms))
    return states


def _shared_terms(outputs: Iterable[State]) -> list[Term]:
    """Terms with weights that the form would write more than once, sorted by the edge that owns them."""
    seen: dict[Owner, Term] = {}
    shared: dict[Owner, Term] = {}
    pending = list(outputs)
    while pending:
        for term in pending.pop():
            if term.owner in seen:
                shared[term.owner] = term
                continue
            if term.owner is not None:
                seen[term.owner] = term
            pending.append(term.body)
    return [shared[owner] for owner in sorted(shared)]


def _numberings(shared: Iterable[Term]) -> Iterator[Mapping[Owner | None, int]]:
    """Every way to number the shared terms, from 1 within each group of terms that are written alike."""
    groups: dict[str, list[Owner | None]] = {}
    for term in shared:
        groups.setdefault(_write_term(term, {}), []).append(term.owner)
    n_numberings = math.prod(math.factorial(len(group)) for group in groups.values())
    orders = itertools.product(*(itertools.permutations(group) for group in groups.values()))
    for order in itertools.islice(orders, n_numberings if n_numberings <= MAX_NUMBERINGS else 1):
        yield {owner: number for group in order for number, owner in enumerate(group, start=1)}


def _write_outputs(outputs: Iterable[State], numbers: Mapping[Owner | None, int]) -> str:
    texts = sorted(_write_state(state, numbers) for state in outputs)
    return SILENT if not any(texts) else " | ".join(text or SILENT for text in texts)


def _write_state(state: State, numbers: Mapping[Owner | None, int]) -> str:
    return " + ".join(sorted(_write_term(term, numbers) for term in state))


def _write_term(term: Term, numbers: Mapping[Owner | None, int]) -> str:
    if not term.body:
        return term.op
    number = f"#{numbers[term.owner]}" if term.owner in numbers else ""
    return f"{term.op}{number}({_write_state(term.body, numbers)})"
