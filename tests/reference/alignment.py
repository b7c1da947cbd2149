"""Centred kernel alignment as Cortes et al. (JMLR 2012) define it: float64, one episode."""

from collections.abc import Sequence

import numpy as np

from tests.reference.dense_ntk import Array


def dense_alignment(kernel: Array, labels: Sequence[int]) -> float:
    """⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖)."""
    n = len(labels)
    centring = np.eye(n) - np.ones((n, n)) / n
    target = np.array([[float(a == b) for a in labels] for b in labels])
    first, second = centring @ kernel @ centring, centring @ target @ centring
    return float(np.trace(first.T @ second) / np.sqrt(np.trace(first.T @ first) * np.trace(second.T @ second)))
