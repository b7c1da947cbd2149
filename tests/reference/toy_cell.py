"""A cell as a plain loop over small vectors, to ask which cells compute the same function.

Every operation is ``tanh(W x)``: it is non-linear and keeps zero at zero. ``none`` is zero, ``skip_connect`` at stride
1 is the identity.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

WIDTH = 3
WEIGHTLESS = {"none", "skip_connect", "avg_pool_3x3", "max_pool_3x3"}
Slot = tuple[int, int]
Cell = Sequence[Sequence[tuple[str, int]]]


class ToyCells:
    """Cells with ``n_inputs`` inputs; ``reduces`` gives the edges from the inputs stride 2."""

    def __init__(self, n_inputs: int, output: str, reduces: bool = False, seed: int = 0) -> None:
        self.n_inputs, self.output, self.reduces = n_inputs, output, reduces
        self.rng = np.random.default_rng(seed)
        self.inputs = [self.rng.normal(size=WIDTH) for _ in range(n_inputs)]
        self.named: dict[object, np.ndarray] = {}

    def weights(self, name: object) -> np.ndarray:
        if name not in self.named:
            self.named[name] = self.rng.normal(size=(WIDTH, WIDTH))
        return self.named[name]

    def strided(self, source: int) -> bool:
        return self.reduces and source < self.n_inputs

    def run(self, cell: Cell, weights: Callable[[str, Slot, bool], np.ndarray]) -> tuple[tuple[float, ...], ...]:
        """Output states, rounded; those of a concat in ascending order, since channels may permute."""
        states = list(self.inputs)
        for position, node in enumerate(cell):
            total = np.zeros(WIDTH)
            for place, (op, source) in enumerate(node):
                strided = self.strided(source)
                if op == "skip_connect" and not strided:
                    total = total + states[source]
                elif op != "none":
                    total = total + np.tanh(weights(op, (position, place), strided) @ states[source])
            states.append(total)
        outputs = states[-1:] if self.output == "last" else states[self.n_inputs :]
        return tuple(sorted(tuple(np.round(state, 9) + 0.0) for state in outputs))

    def run_with_shared_names(self, cell: Cell) -> tuple[tuple[float, ...], ...]:
        """All edges of one operation share its weights."""
        return self.run(cell, lambda op, _, strided: self.weights((op, strided)))

    def weighted_slots(self, cell: Cell) -> dict[tuple[str, bool], list[Slot]]:
        """Edges with weights of their own, by operation and stride."""
        slots: dict[tuple[str, bool], list[Slot]] = {}
        for position, node in enumerate(cell):
            for place, (op, source) in enumerate(node):
                strided = self.strided(source)
                if op not in WEIGHTLESS or (op == "skip_connect" and strided):
                    slots.setdefault((op, strided), []).append((position, place))
        return slots

    def same_family(self, first: Cell, second: Cell) -> bool:
        """Whether some renaming of weights makes ``second`` compute what ``first`` does; tries all of them."""

        def run(cell: Cell, owners: dict[Slot, object]) -> tuple[tuple[float, ...], ...]:
            return self.run(cell, lambda op, slot, strided: self.weights(owners.get(slot, (op, strided))))

        ours, theirs = self.weighted_slots(first), self.weighted_slots(second)
        target = run(first, {slot: (name, n) for name, slots in ours.items() for n, slot in enumerate(slots)})
        renamings = []
        for name, slots in theirs.items():
            n_weights = max(len(slots), len(ours.get(name, [])))
            orders = itertools.permutations(range(n_weights), len(slots))
            renamings.append([{slot: (name, n) for slot, n in zip(slots, order, strict=True)} for order in orders])
        for renaming in itertools.product(*renamings):
            owners: dict[Slot, object] = {slot: owner for part in renaming for slot, owner in part.items()}
            if run(second, owners) == target:
                return True
        return False
