"""The pruning search of MetaNTK-NAS by plain loops, written from the words of the paper; imports no fast code.

A space is a dictionary from (cell type, node, input) to the operations alive there.
"""

from collections.abc import Callable
from typing import Any

Slot = tuple[str, int, int]
Live = dict[Slot, tuple[str, ...]]
Values = list[list[float]]
"""``[metric][repeat]``."""


def prune(
    live: Live, edges_per_node: int | None, value: Callable[[Live], Values], higher_is_better: list[bool]
) -> Live:
    """Prune to one operation per edge and then to so many edges per node, by dense ranks of relative changes."""
    while any(len(ops) > 1 for ops in live.values()):
        removals = [(slot, op) for slot, ops in live.items() if len(ops) > 1 for op in ops]
        places = dense_rank_sums(live, removals, value, higher_is_better)
        for slot in dict(removals):
            of_edge = [removal for removal in removals if removal[0] == slot]
            live = without(live, min(of_edge, key=lambda removal: places[removal]))
    if edges_per_node is None:
        return live
    crowded = [slot for slot in live if n_edges(live, slot) > edges_per_node]
    places = dense_rank_sums(live, [(slot, live[slot][0]) for slot in crowded], value, higher_is_better)
    for (slot, op), _ in sorted(places.items(), key=lambda item: item[1]):
        if n_edges(live, slot) > edges_per_node:
            live = without(live, (slot, op))
    return live


def dense_rank_sums(
    live: Live, removals: list[tuple[Slot, str]], value: Callable[[Live], Values], higher_is_better: list[bool]
) -> dict[tuple[Slot, str], int]:
    base = value(live)
    sums = dict.fromkeys(removals, 0)
    for metric, higher in enumerate(higher_is_better):
        changes: dict[Any, float] = {}
        for removal in removals:
            after = value(without(live, removal))[metric]
            ratios = [new / old for new, old in zip(after, base[metric], strict=True)]
            changes[removal] = float(f"{sum(ratios) / len(ratios):.5e}")
        ladder = sorted(set(changes.values()), reverse=higher)
        for removal in removals:
            sums[removal] += 1 + ladder.index(changes[removal])
    return sums


def without(live: Live, removal: tuple[Slot, str]) -> Live:
    slot, op = removal
    kept = {**live, slot: tuple(other for other in live[slot] if other != op)}
    return {each: ops for each, ops in kept.items() if ops}


def n_edges(live: Live, slot: Slot) -> int:
    return sum(other[:2] == slot[:2] for other in live)
