"""Gradient descent inside an episode, differentiable from outside."""

from collections.abc import Callable

from torch import Tensor
from torch.func import grad

from metantk_nas.learners.base import Parameters


def descend(
    loss: Callable[[Parameters], Tensor], parameters: Parameters, *, lr: float, steps: int, first_order: bool = False
) -> Parameters:
    """Take ``steps`` steps of gradient descent, ``θ ← θ − α ∇L(θ)``.

    Args:
        loss: scalar loss of the parameters.
        parameters: where to start; left as they are.
        lr: α, the inner learning rate.
        steps: number of steps; 0 returns the start.
        first_order: treat ∇L as a constant, so that no second derivative is taken from outside.
    """
    for _ in range(steps):
        gradients = grad(loss)(dict(parameters))
        parameters = {
            name: value - lr * (gradients[name].detach() if first_order else gradients[name])
            for name, value in parameters.items()
        }
    return parameters
