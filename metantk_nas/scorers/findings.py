"""From columns of numbers to findings, for scorers that have no spectrum to judge by."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from metantk_nas.scorers.base import Finding

NOT_FINITE = "not_finite", "values are NaN or infinite"
NO_SIGNAL = "no_signal", "what comes out does not depend on what goes in: no path from input to output, or a dead one"


def findings(columns: Mapping[str, Tensor], signal: Tensor) -> list[Finding]:
    """Make one finding per candidate; where something is wrong, none of its values is known.

    Args:
        columns: values by metric, each ``[candidate]``.
        signal: what the values rest on, ``[candidate]``: zero where they would be noise.
    """
    table = {name: column.tolist() for name, column in columns.items()}
    found = []
    for i, strength in enumerate(signal.tolist()):
        values = {name: column[i] for name, column in table.items()}
        if strength != 0 and all(map(math.isfinite, (strength, *values.values()))):
            found.append(Finding(values))
        else:
            unknown = dict.fromkeys(columns, math.nan)
            found.append(Finding(unknown, *(NO_SIGNAL if strength == 0 else NOT_FINITE)))
    return found


def spread(outputs: Tensor) -> Tensor:
    """How far the rows of ``[candidate, row, output]`` are from their mean, ``[candidate]``; zero if only by rounding.

    Rows differ by rounding alone where their distance from the mean is below ε·rows of their own size.
    """
    size, distance = (part.flatten(1).norm(dim=1) for part in (outputs, outputs - outputs.mean(1, keepdim=True)))
    return torch.where(distance <= torch.finfo(outputs.dtype).eps * outputs.shape[1] * size, 0, distance)
