"""What a pruning search removed from each edge, round by round."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metantk_nas.errors import RunError
from metantk_nas.report.cells import input_name
from metantk_nas.report.words import metric_name

PRUNING_COLUMNS = ("round", "cell_type", "node", "input", "op", "pruned")
_CHANGE = "_change"


@dataclass(frozen=True)
class EdgeTrajectory:
    """The story of one edge.

    Args:
        name: where it is: cell type, input and node, as the drawings call them.
        removed: for each round, what went and what that changed, in words.
        left: operations that were never removed; none where the edge itself went.
    """

    name: str
    removed: Sequence[Sequence[tuple[str, str]]]
    left: Sequence[str]


@dataclass(frozen=True)
class Trajectory:
    """The story of all edges, in the order of cell types, nodes and inputs."""

    n_rounds: int
    edges: Sequence[EdgeTrajectory]


def read_trajectory(pruning: pd.DataFrame, n_inputs: int) -> Trajectory:
    """Sort the removals of ``pruning.csv`` by edge and round.

    Args:
        pruning: has the columns `PRUNING_COLUMNS`, and ``<metric>_change`` as fractions.
        n_inputs: inputs of a cell; the nodes are counted after them, as in the drawings.

    Raises:
        RunError: rounds or places are no numbers.
    """
    try:
        numbers = pruning.astype(dict.fromkeys(("round", "node", "input"), int))
    except ValueError as error:
        raise RunError(f"pruning.csv is malformed ({error}); delete it, or run the search again.") from error
    changes = [name for name in numbers.columns if str(name).endswith(_CHANGE)]
    numbers[changes] = numbers[changes].apply(pd.to_numeric, errors="coerce")
    rounds = sorted(set(numbers["round"]))
    edges = []
    for _, tried in numbers.groupby(["cell_type", "node", "input"], sort=False):
        cell_type, node, source = tried["cell_type"].iloc[0], int(tried["node"].iloc[0]), int(tried["input"].iloc[0])
        gone = tried[tried["pruned"].astype(str) == "True"]
        removed = [_removed(gone[gone["round"] == number], changes) for number in rounds]
        left = [str(op) for op in dict.fromkeys(tried["op"]) if op not in set(gone["op"])]
        start = input_name(source, n_inputs) if source < n_inputs else str(source)
        edges.append(EdgeTrajectory(f"{cell_type} {start} → {n_inputs + node}", removed, left))
    return Trajectory(len(rounds), edges)


def _removed(gone: pd.DataFrame, changes: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(row["op"]), _words({name: row[name] for name in changes})) for row in gone.to_dict("records")]


def _words(changes: dict[str, float]) -> str:
    """Relative changes of metrics, as ``condition number −3.2 %, trace +1.0 %``."""
    told = {name: value for name, value in changes.items() if np.isfinite(value)}
    words = [f"{metric_name(name.removesuffix(_CHANGE))} {100 * value:+.2g} %" for name, value in told.items()]
    return ", ".join(words).replace("-", "−")
