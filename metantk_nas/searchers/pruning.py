"""Pruning search: the whole space as one network, from which the least missed operations are removed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from metantk_nas.errors import RunError, UsageError
from metantk_nas.searchers.base import AbstractSearcher, Order, SearchProblem, Told, check_turn
from metantk_nas.spaces.subspace import Architecture, EdgeSlot, SubSpace


class Removal(NamedTuple):
    """An operation that may be removed from an edge."""

    edge: EdgeSlot
    op: str


@dataclass(frozen=True)
class Trial:
    """What removing one operation did in one round.

    Args:
        round: number of the round, from 1.
        edge: where the operation was.
        op: the operation.
        changes: relative change of each metric by the removal, mean over repeats; empty if the rest could not be
            scored.
        place: place among all removals of the round, the lower the less it is missed; ``inf`` if the rest could not
            be scored.
        pruned: whether it was removed for good.
    """

    round: int
    edge: EdgeSlot
    op: str
    changes: tuple[float, ...]
    place: float
    pruned: bool


@final
class PruningSearcher(AbstractSearcher):
    """The search of MetaNTK-NAS (Wang, Wang, Sun & Li, CVPR 2022, arXiv 2203.09137).

    Each round asks the subspace as it is, its *base*, and then each subspace with one operation less. A removal is
    judged by the values that it leaves, relative to the base's; all removals of a round are compared by the problem's
    order, and on every edge with a choice the operation with the lowest place goes. When each edge has one operation
    left, one more round removes whole edges, until every node has as many as the space says. The genotype that is
    left is asked last.

    ``none`` is removed from the start. Of equal places the operation that the space lists first goes, and the edge
    with the lower input. A removal that leaves a network that cannot be scored comes last.

    Raises:
        UsageError: the problem has a budget.
    """

    def __init__(self, problem: SearchProblem) -> None:
        if problem.budget is not None:
            raise UsageError(
                f"searcher 'pruning' ends by itself, it got a budget of {problem.budget}; leave --budget out, or use "
                "--searcher evolution."
            )
        self._order = problem.order
        self._subspace = _without_none(problem.space.subspace())
        self._total = _n_asked(self._subspace)
        self._history: list[Trial] = []
        self._found: list[Told | None] = []
        self._n_asked = 0
        self._round = _round(self._subspace)

    def ask(self, n: int) -> list[Architecture]:
        """Return the next ``n`` of the round; none while the round has been asked, but not told."""
        asked = self._round[self._n_asked : self._n_asked + n]
        self._n_asked += len(asked)
        return asked

    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Remember what was found; the last of a round prunes.

        Raises:
            RunError: the base of a round could not be scored.
            UsageError: it is told out of turn.
        """
        check_turn(architecture, self._round[len(self._found) : self._n_asked])
        if found is None and not self._found and not self._subspace.is_genotype:
            raise RunError(
                f"the network of all {self._subspace.size:,} architectures left could not be scored, so there is "
                "nothing to compare removals with; use another --n-cells, --init-channels or --seed, or --searcher "
                "evolution."
            )
        self._found.append(found)
        if len(self._found) == len(self._round):
            self._close_round()

    @property
    def total(self) -> int:
        """How many architectures will be asked: all of them, whatever is told."""
        return self._total

    @property
    def history(self) -> tuple[Trial, ...]:
        """Every removal that was tried, in the order of asking."""
        return tuple(self._history)

    def _close_round(self) -> None:
        """Prune by what was told, and open the next round."""
        (base, *rest), self._found, self._n_asked, self._round = self._found, [], 0, []
        if base is None or self._subspace.is_genotype:
            return
        kept = [None if found is None else _relative(found, base) for found in rest]
        places = _places(kept, self._order)
        narrowed, pruned = _prune(self._subspace, places)
        number = self._history[-1].round + 1 if self._history else 1
        tried = zip(_removals(self._subspace), kept, places, strict=True)
        for index, (removal, part, place) in enumerate(tried):
            changes = () if part is None else tuple((part.mean(axis=1) - 1).tolist())
            self._history.append(Trial(number, *removal, changes, place, index in pruned))
        self._subspace, self._round = narrowed, _round(narrowed)


def _without_none(subspace: SubSpace) -> SubSpace:
    """Remove the operation ``none`` wherever it is not the only one."""
    for edge, ops in subspace.slots:
        if "none" in ops and len(ops) > 1:
            subspace = subspace.without(edge, "none")
    return subspace


def _round(subspace: SubSpace) -> list[Architecture]:
    """List what a round asks: the base and every removal; or the genotype that is left."""
    if subspace.is_genotype:
        return [subspace.genotype()]
    return [subspace, *(subspace.without(*removal) for removal in _removals(subspace))]


def _removals(subspace: SubSpace) -> list[Removal]:
    """List what may be removed: operations of edges that have several, or else whole edges of nodes with too many."""
    edges = [edge for edge, ops in subspace.slots if len(ops) > 1]
    edges = edges or [edge for edge, ops in subspace.slots if ops and _n_surplus(subspace, edge) > 0]
    return [Removal(edge, op) for edge in edges for op in subspace.live_ops[edge]]


def _n_surplus(subspace: SubSpace, edge: EdgeSlot) -> int:
    """How many edges the node of ``edge`` has more than it may keep."""
    if subspace.edges_per_node is None:
        return 0
    return sum(bool(ops) and other[:2] == edge[:2] for other, ops in subspace.slots) - subspace.edges_per_node


def _prune(subspace: SubSpace, places: Sequence[float]) -> tuple[SubSpace, set[int]]:
    """Remove one operation of every edge that has several, or else the surplus edges: those of the lowest places.

    Returns:
        The subspace that is left, and what was removed, as indices of ``_removals``.
    """
    removals, narrowed, pruned = _removals(subspace), subspace, set()
    for index in sorted(range(len(removals)), key=places.__getitem__):
        edge = removals[index].edge
        is_untouched = narrowed.live_ops[edge] == subspace.live_ops[edge]
        if is_untouched and (len(subspace.live_ops[edge]) > 1 or _n_surplus(narrowed, edge) > 0):
            narrowed = narrowed.without(*removals[index])
            pruned.add(index)
    return narrowed, pruned


def _relative(found: Told, base: Told) -> Told:
    """Values after a removal, the base's being 1; more is more also where values are negative."""
    return 1 + (found - base) / np.where(base == 0, 1, abs(base))


def _places(kept: Sequence[Told | None], order: Order) -> list[float]:
    """Compare removals by their mean changes, as the paper does; those that leave nothing to score come last."""
    scored = [part.mean(axis=1, keepdims=True) for part in kept if part is not None]
    ordered = iter(order(scored) if scored else ())
    return [math.inf if part is None else float(next(ordered)) for part in kept]


def _n_asked(subspace: SubSpace) -> int:
    """Count what a search from here asks; which operations go does not matter to it."""
    total = 1
    while not subspace.is_genotype:
        n_removals = len(_removals(subspace))
        total += 1 + n_removals
        subspace, _ = _prune(subspace, [0.0] * n_removals)
    return total
