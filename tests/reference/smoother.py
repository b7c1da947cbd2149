"""The kernel smoother as the papers write it: a matrix exponential and a dense inverse, float64."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm


def dense_smoother(
    k_qs: NDArray[np.float64], k_ss: NDArray[np.float64], inner_time: float, inner_reg: float
) -> NDArray[np.float64]:
    """K_QS (K_SS + λI)⁻¹ (I − exp(−τ K_SS))."""
    identity = np.eye(len(k_ss))
    decayed = np.zeros_like(k_ss) if math.isinf(inner_time) else expm(-inner_time * k_ss)
    return k_qs @ np.linalg.inv(k_ss + inner_reg * identity) @ (identity - decayed)
