import itertools
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from metantk_nas.kernels.per_sample import BIAS_RULES, NORM_RULES, WEIGHT_RULES


def by_autograd(layer: nn.Module, inputs: Tensor, grads: Tensor, parameter: str) -> Tensor:
    """Jacobian ``[row, parameter]`` of ⟨layer(row), its gradient⟩."""

    def products(value: Tensor) -> Tensor:
        return (functional_call(layer, {parameter: value}, (inputs,)) * grads).flatten(1).sum(1)

    jacobian: Tensor = jacrev(products)(getattr(layer, parameter).detach())
    return jacobian.flatten(1)


def whole(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONVOLUTIONS = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "out": out}
    for (kernel, padding), stride, dilation, (groups, out) in itertools.product(
        [(1, 0), (3, 1), ((1, 5), (0, 2))], [1, 2, (1, 2)], [1, 2], [(1, 3), (2, 6), (4, 4), (4, 8)]
    )
]


@pytest.mark.parametrize("size", [(5, 5), (6, 7)])
def test_a_convolution_has_the_gradients_of_autograd(size: tuple[int, int]) -> None:
    """Whatever its kernel, stride, padding, dilation and groups, depthwise with a multiplier included."""
    for options in CONVOLUTIONS:
        layer = nn.Conv2d(4, options["out"], **{k: v for k, v in options.items() if k != "out"}).double()
        inputs = random(2, 4, *size, seed=0)
        try:
            output = layer(inputs)
        except RuntimeError:  # the kernel does not fit
            continue
        grads = random(*output.shape, seed=1)
        for rule, parameter in ((WEIGHT_RULES[nn.Conv2d], "weight"), (BIAS_RULES[nn.Conv2d], "bias")):
            found, expected = whole(rule(layer, inputs, grads)), by_autograd(layer, inputs, grads, parameter)
            assert found.shape == expected.shape, options
            torch.testing.assert_close(found @ found.T, expected @ expected.T, msg=str(options))


@pytest.mark.parametrize("positions", [(), (3,), (2, 3)])
def test_a_linear_layer_sums_over_positions(positions: tuple[int, ...]) -> None:
    layer = nn.Linear(4, 2).double()
    inputs, grads = random(3, *positions, 4, seed=0), random(3, *positions, 2, seed=1)
    for rule, parameter in ((WEIGHT_RULES[nn.Linear], "weight"), (BIAS_RULES[nn.Linear], "bias")):
        torch.testing.assert_close(whole(rule(layer, inputs, grads)), by_autograd(layer, inputs, grads, parameter))


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4)])
def test_a_normalisation_has_its_scale_and_then_its_shift(layer: nn.Module) -> None:
    layer.double()(random(9, 4, 3, 3, seed=2))  # running statistics of its own
    layer.eval()
    inputs, grads = random(3, 4, 5, 5, seed=0), random(3, 4, 5, 5, seed=1)
    expected = torch.cat([by_autograd(layer, inputs, grads, name) for name in ("weight", "bias")], dim=1)
    torch.testing.assert_close(whole(NORM_RULES[type(layer)](layer, inputs, grads)), expected)
