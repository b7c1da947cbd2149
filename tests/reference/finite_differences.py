"""Derivatives by central differences, to hold analytic ones against; float64."""

from collections.abc import Callable, Mapping

from torch import Tensor


def directional_derivative(
    function: Callable[[Mapping[str, Tensor]], Tensor],
    point: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    step: float = 1e-6,
) -> float:
    """(f(x + h·d) − f(x − h·d)) / 2h of a scalar function of named tensors."""
    ahead = {name: value.detach() + step * direction[name] for name, value in point.items()}
    behind = {name: value.detach() - step * direction[name] for name, value in point.items()}
    return float(function(ahead) - function(behind)) / (2 * step)
