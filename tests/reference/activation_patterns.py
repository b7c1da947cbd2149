"""Scores from ReLU patterns as their papers define them: plain loops over lists of booleans."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

Pattern = list[bool]


def patterns(network: nn.Module, images: Tensor) -> list[Pattern]:
    """For each image, which units of all ReLUs are on, one image at a time."""
    found: list[Pattern] = []
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    handles = [
        relu.register_forward_hook(lambda *call: found[-1].extend((call[2] > 0).flatten().tolist())) for relu in relus
    ]
    with torch.no_grad():
        for image in images:
            found.append([])
            network(image[None])
    for handle in handles:
        handle.remove()
    return found


def dense_naswot(codes: Sequence[Pattern]) -> float:
    """ln |det K_H|, K_H[i, j] = N − Hamming distance of the codes i and j (Mellor et al. 2021, eq. 2)."""
    overlap = np.zeros((len(codes), len(codes)))
    for (i, first), (j, second) in itertools.product(enumerate(codes), repeat=2):
        overlap[i, j] = len(first) - sum(a != b for a, b in zip(first, second, strict=True))
    return float(np.linalg.slogdet(overlap)[1])


def dense_linear_regions(codes: Sequence[Pattern]) -> int:
    """Number of different codes."""
    return len({tuple(code) for code in codes})
