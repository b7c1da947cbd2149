"""The kernels as the papers write them: one gradient per row, plain loops, float64."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.reference.smoother import dense_smoother

Array = NDArray[np.float64]
NORMS = (nn.GroupNorm, nn.BatchNorm2d)


def dense_ntk(
    network: nn.Module,
    rows: Tensor,
    *,
    only: str = "",
    every_output: bool = False,
    biases: bool = False,
    norm_affine: bool = False,
) -> Array:
    """Θ = J Jᵀ of the sum of logits, or summed over logits; θ are the weights whose name starts with ``only``."""
    parameters = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(only):
            parameters += [module.weight] if module.bias is None or not biases else [module.weight, module.bias]
        if norm_affine and isinstance(module, NORMS) and name.startswith(only):
            parameters += [module.weight, module.bias]
    n_outputs = network(rows[:1]).shape[1]
    functions = [[output] for output in range(n_outputs)] if every_output else [list(range(n_outputs))]
    total = np.zeros((len(rows), len(rows)))
    for outputs in functions:
        jacobian = np.stack([_gradient(network(row[None])[0, outputs].sum(), parameters) for row in rows])
        total += jacobian @ jacobian.T
    return total


def dense_jacobian(network: nn.Module, rows: Tensor) -> Array:
    """J ``[row · output, weight]``: every output of every row in all weights, biases and normalisation included."""
    parameters = list(network.parameters())
    n_outputs = network(rows[:1]).shape[1]
    return np.stack([_gradient(network(row[None])[0, k], parameters) for row in rows for k in range(n_outputs)])


def _gradient(output: Tensor, parameters: list[Tensor]) -> Array:
    grads = torch.autograd.grad(output, parameters, allow_unused=True, materialize_grads=True)
    return np.concatenate([grad.flatten().double().numpy() for grad in grads])


def dense_metantk(
    theta: Array, base: Array, *, n_episodes: int, n_support: int, n_query: int, tau: float, reg: float
) -> Array:
    """(J_Q − A J_S)(J_Q − A J_S)ᵀ written with Θ = J Jᵀ, one pair of episodes at a time."""
    query, support = _rows(n_episodes, n_support, n_query)
    maps = [
        dense_smoother(base[np.ix_(q, s)], base[np.ix_(s, s)], tau, reg) for q, s in zip(query, support, strict=True)
    ]
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


def dense_adaptation_loss(
    base: Array,
    support_labels: list[list[int]],
    query_labels: list[list[int]],
    *,
    n_way: int,
    tau: float,
    reg: float,
) -> float:
    """Mean over episodes of the squared error of A Y_S, with one-hot labels minus 1/n_way."""
    query, support = _rows(len(support_labels), len(support_labels[0]), len(query_labels[0]))
    losses = []
    for episode, (q, s) in enumerate(zip(query, support, strict=True)):
        y_s, y_q = (np.eye(n_way)[labels[episode]] - 1 / n_way for labels in (support_labels, query_labels))
        predicted = dense_smoother(base[np.ix_(q, s)], base[np.ix_(s, s)], tau, reg) @ y_s
        losses.append(((predicted - y_q) ** 2).sum())
    return float(np.mean(losses))


def _rows(n_episodes: int, n_support: int, n_query: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Query rows and support rows of each episode: all query rows stand first."""
    query = [np.arange(i * n_query, (i + 1) * n_query) for i in range(n_episodes)]
    support = [n_episodes * n_query + np.arange(i * n_support, (i + 1) * n_support) for i in range(n_episodes)]
    return query, support
