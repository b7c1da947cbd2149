"""The kernels as the papers write them: one gradient per row, plain loops, float64."""

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn


def dense_ntk(network: nn.Module, rows: Tensor, *, only: str = "", every_output: bool = False) -> np.ndarray:
    """Θ = J Jᵀ over convolution and linear weights (those whose name starts with `only`)."""
    weights = {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(only)
    }
    total = np.zeros((len(rows), len(rows)))
    n_outputs = network(rows[:1]).shape[1]
    for outputs in [[k] for k in range(n_outputs)] if every_output else [list(range(n_outputs))]:
        jacobian = []
        for row in rows:
            network.zero_grad()
            network(row[None])[0, outputs].sum().backward()
            jacobian.append(np.concatenate([_gradient(weight) for weight in weights.values()]))
        network.zero_grad()
        total += np.stack(jacobian) @ np.stack(jacobian).T
    return total


def _gradient(weight: Tensor) -> np.ndarray:
    return (torch.zeros_like(weight) if weight.grad is None else weight.grad).double().flatten().numpy()


def dense_metantk(
    theta: np.ndarray, base: np.ndarray, n_episodes: int, n_support: int, n_query: int, tau: float, reg: float
) -> np.ndarray:
    """(J_Q − A J_S)(J_Q − A J_S)ᵀ written with Θ = J Jᵀ, one episode and one pair of episodes at a time."""
    query = [np.arange(i * n_query, (i + 1) * n_query) for i in range(n_episodes)]
    support = [n_episodes * n_query + np.arange(i * n_support, (i + 1) * n_support) for i in range(n_episodes)]
    maps = [dense_adaptation(base, query[i], support[i], tau, reg) for i in range(n_episodes)]
    blocks = [
        [
            theta[np.ix_(query[i], query[j])]
            - maps[i] @ theta[np.ix_(support[i], query[j])]
            - theta[np.ix_(query[i], support[j])] @ maps[j].T
            + maps[i] @ theta[np.ix_(support[i], support[j])] @ maps[j].T
            for j in range(n_episodes)
        ]
        for i in range(n_episodes)
    ]
    return np.block(blocks)


def dense_adaptation(base: np.ndarray, query: np.ndarray, support: np.ndarray, tau: float, reg: float) -> np.ndarray:
    """A = K_QS (K_SS + λI)⁻¹ (I − exp(−τ K_SS)), with a matrix exponential."""
    k_qs, k_ss = base[np.ix_(query, support)], base[np.ix_(support, support)]
    identity = np.eye(len(support))
    learnt = identity if np.isinf(tau) else identity - scipy.linalg.expm(-tau * k_ss)
    return k_qs @ np.linalg.inv(k_ss + reg * identity) @ learnt
