"""Scores from gradients, as their papers write them: autograd on the network of one architecture."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def weight_gradients(network: nn.Module, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every convolution's and linear layer's weight with its gradient."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    gradients = torch.autograd.grad(target, weights, allow_unused=True, materialize_grads=True)
    yield from zip([weight.detach() for weight in weights], gradients, strict=True)


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over layers of the norm of the gradient of the mean cross-entropy."""
    loss = cross_entropy(network(images), labels)
    return sum(float(gradient.norm()) for _, gradient in weight_gradients(network, loss))


def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Σ |W ∂L/∂W|."""
    loss = cross_entropy(network(images), labels)
    return sum(float((weight * gradient).abs().sum()) for weight, gradient in weight_gradients(network, loss))


def flow_by_scaling(network: nn.Module, image: Tensor, step: float = 1e-6) -> float:
    """Σ |W ∂R/∂W| of a network whose weights are made absolute here: the slope of R as all weights grow together."""

    def output(scale: float) -> float:
        scaled = {name: scale * weight.abs() for name, weight in network.named_parameters()}
        with torch.no_grad():
            return float(torch.func.functional_call(network, scaled, (image,)).sum())

    return (output(1 + step) - output(1 - step)) / (2 * step)
