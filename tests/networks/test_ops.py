import pytest
import torch
from torch import Tensor, nn

from metantk_nas.errors import UsageError
from metantk_nas.networks.ops import OPS, FactorizedReduction, ResidualReduction, make_op

C = 6
NORM = 2 * C  # a scale and a shift per channel
PARAMETERS = {
    "skip_connect": 0,
    "nor_conv_1x1": C * C + NORM,
    "nor_conv_3x3": 9 * C * C + NORM,
    "avg_pool_3x3": 0,
    "max_pool_3x3": 0,
    "avg_pool_3x3BN": NORM,
    "max_pool_3x3BN": NORM,
    "sep_conv_3x3": 2 * (9 * C + C * C + NORM),
    "sep_conv_5x5": 2 * (25 * C + C * C + NORM),
    "dil_conv_3x3": 9 * C + C * C + NORM,
    "dil_conv_5x5": 25 * C + C * C + NORM,
    "conv_3x3": 9 * C + C * C + NORM,
    "conv_1x5_5x1": 10 * C * C + NORM,
    "conv_7x1_1x7": 14 * C * C + NORM,
}
REACH = {
    "skip_connect": ({0}, {0}),
    "nor_conv_1x1": ({0}, {0}),
    "nor_conv_3x3": ({-1, 0, 1}, {-1, 0, 1}),
    "avg_pool_3x3": ({-1, 0, 1}, {-1, 0, 1}),
    "sep_conv_3x3": ({-2, -1, 0, 1, 2}, {-2, -1, 0, 1, 2}),
    "sep_conv_5x5": (set(range(-4, 5)), set(range(-4, 5))),
    "dil_conv_3x3": ({-2, 0, 2}, {-2, 0, 2}),
    "dil_conv_5x5": ({-4, -2, 0, 2, 4}, {-4, -2, 0, 2, 4}),
    "conv_3x3": ({-1, 0, 1}, {-1, 0, 1}),
    "conv_1x5_5x1": (set(range(-2, 3)), set(range(-2, 3))),
    "conv_7x1_1x7": (set(range(-3, 4)), set(range(-3, 4))),
}
"""Offsets, vertical and horizontal, of the pixels that one output pixel sees."""


def positive(*shape: int) -> Tensor:
    return 1 + torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 7, 2, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPS)
def test_an_operation_keeps_channels_and_divides_sizes_by_its_stride_rounded_up(
    name: str, stride: int, size: int
) -> None:
    out = make_op(name, C, stride, "group")(positive(2, C, size, size + 1))
    assert out.shape == (2, C, -(-size // stride), -(-(size + 1) // stride))
    assert out.isfinite().all()


@pytest.mark.parametrize("name", OPS)
def test_an_operation_has_the_parameters_of_its_definition(name: str) -> None:
    assert sum(p.numel() for p in make_op(name, C, 1, "batch").parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", REACH)
def test_an_output_pixel_sees_what_kernel_and_dilation_say(name: str) -> None:
    operation = make_op(name, 2, 1, "none")
    for parameter in operation.parameters():
        nn.init.ones_(parameter)
    images = positive(1, 2, 13, 13).requires_grad_()
    (seen,) = torch.autograd.grad(operation(images)[0, :, 6, 6].sum(), images)
    rows, columns = seen[0].abs().sum(0).nonzero().T.tolist()
    assert ({row - 6 for row in rows}, {column - 6 for column in columns}) == REACH[name]


@pytest.mark.parametrize("name", ["avg_pool_3x3", "max_pool_3x3"])
def test_pools_keep_constants_up_to_the_edge(name: str) -> None:
    constant = torch.full((1, 2, 5, 5), 3.0)
    assert torch.equal(make_op(name, 2, 1, "none")(constant), constant)


def test_operations_with_weights_start_with_a_relu_and_pools_do_not() -> None:
    for name in OPS:
        negative = make_op(name, 2, 1, "none")(-positive(1, 2, 5, 5))
        weightless = name == "skip_connect" or "pool" in name
        assert bool(negative.any()) is weightless, name


def test_the_identity_is_the_identity() -> None:
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert make_op("skip_connect", 3, 1, "group")(images) is images
    assert isinstance(make_op("skip_connect", 3, 2, "group"), FactorizedReduction)


@pytest.mark.parametrize("size", [5, 6])
def test_a_factorised_reduction_sees_the_grid_and_the_grid_shifted_by_one(size: int) -> None:
    reduction = FactorizedReduction(1, 4, "none")
    for parameter in reduction.parameters():
        nn.init.ones_(parameter)
    images = positive(1, 1, size, size)
    out = reduction(images)[0]
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], images[0, 0, ::2, ::2])
    shifted = images[0, 0, 1::2, 1::2]
    assert torch.equal(out[2, : len(shifted), : len(shifted)], shifted)
    assert not out[2, len(shifted) :].any()


def test_a_residual_reduction_adds_a_shortcut_without_normalisation() -> None:
    """Two ReLU, 3×3 convolution, norm; 2×2 average pool, 1×1 convolution: 9·4·8 + 16 + 9·8·8 + 16 + 4·8."""
    block = ResidualReduction(4, 8, "batch")
    assert sum(p.numel() for p in block.parameters()) == 9 * 32 + 16 + 9 * 64 + 16 + 32
    assert not any(module.bias is not None for module in block.modules() if isinstance(module, nn.Conv2d))
    for convolution in (block.first[1], block.second[1]):
        nn.init.zeros_(convolution.weight)
    images = positive(1, 4, 5, 5)
    pooled = torch.stack([images[:, :, 0:2, 0:2].mean((2, 3)), images[:, :, 0:2, 4:].mean((2, 3))], dim=-1)
    expected = torch.einsum("oi,biw->bow", block.shortcut[1].weight[:, :, 0, 0], pooled)
    torch.testing.assert_close(block.eval()(images)[:, :, 0, [0, 2]], expected)


def test_an_unknown_operation_is_named_with_its_near_miss() -> None:
    with pytest.raises(UsageError, match=r"operation 'sep_conv_3x2' not found; .*Did you mean 'sep_conv_3x3'\?"):
        make_op("sep_conv_3x2", 4, 1, "group")
