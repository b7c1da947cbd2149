"""Depthwise convolutions: PyTorch's, in every order of differentiation, but for its errors in bfloat16."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, vmap

from metantk_nas.depthwise import Depthwise, Steps, convolve, input_gradient, weight_gradient

KERNELS, STRIDES, DILATIONS = (1, 3, 5, 7), (1, 2, 3), (1, 2, 3)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Depthwise, Tensor]:
    """A layer and images of any size, in any layout."""
    kernel, stride, dilation = (draw(st.sampled_from(each)) for each in (KERNELS, STRIDES, DILATIONS))
    layer = Depthwise(draw(st.integers(1, 3)), kernel, stride, dilation)
    seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    images = torch.randn(
        draw(st.integers(1, 2)), layer.in_channels, draw(st.integers(1, 9)), draw(st.integers(1, 9)), generator=seed
    )
    layer.weight.data = torch.randn(layer.weight.shape, generator=seed, dtype=torch.float64)
    layout = draw(st.sampled_from((torch.contiguous_format, torch.channels_last)))
    return layer, images.double().contiguous(memory_format=layout)


def plain(layer: Depthwise, images: Tensor, weight: Tensor) -> Tensor:
    """PyTorch's own."""
    return nn.functional.conv2d(
        images,
        weight,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,  # type: ignore[arg-type]
    )


@given(layers())
def test_outputs_and_gradients_are_pytorchs(given: tuple[Depthwise, Tensor]) -> None:
    layer, images = given
    images.requires_grad_()
    out, expected = layer(images), plain(layer, images, layer.weight)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    grads = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, [images, layer.weight], grads),
        torch.autograd.grad(expected, [images, layer.weight], grads),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (3, 1, 2), (5, 2, 2), (5, 2, 1)])
def test_derivatives_of_any_order_are_there(kernel: int, stride: int, dilation: int) -> None:
    steps = Steps(stride, dilation)
    images, weight = torch.randn(2, 2, 5, 4).double(), torch.randn(2, 1, kernel, kernel).double()
    grads = torch.randn_like(convolve(images, weight, steps))
    three = [each.requires_grad_() for each in (images, weight, grads)]
    for function in (
        lambda images, weight, _: convolve(images, weight, steps),
        lambda _, weight, grads: input_gradient(weight, grads, steps, (5, 4)),
        lambda images, _, grads: weight_gradient(images, grads, steps, kernel),
    ):
        assert gradcheck(function, three)
        assert gradgradcheck(function, three)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(5, 1, 1), (3, 1, 2), (3, 2, 1), (5, 2, 2)])
def test_transforms_of_functions_go_through(kernel: int, stride: int, dilation: int) -> None:
    """Meta-gradients of several tasks at once: a gradient of a gradient under vmap; and a directional derivative."""
    layer = Depthwise(2, kernel, stride, dilation).double()
    tasks = torch.randn(3, 2, 2, 6, 6).double()

    def after_a_step(weight: Tensor, images: Tensor, forward) -> Tensor:
        step = grad(lambda weight: (forward(weight, images) ** 3).sum())(weight)
        return (forward(weight - 0.1 * step, images) ** 2).sum()

    def ours(weight: Tensor, images: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight}, (images,))

    def theirs(weight: Tensor, images: Tensor) -> Tensor:
        return plain(layer, images, weight)

    weight = layer.weight.detach()
    together = vmap(grad(after_a_step), (None, 0, None))(weight, tasks, ours)
    alone = torch.stack([grad(after_a_step)(weight, images, theirs) for images in tasks])
    torch.testing.assert_close(together, alone)
    for argument in (0, 1):
        point = (weight, tasks[0])
        change = tuple(torch.randn_like(each) * (at == argument) for at, each in enumerate(point))
        torch.testing.assert_close(jvp(ours, point, change), jvp(theirs, point, change))


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 1), (5, 2)])
def test_bfloat16_is_close_where_pytorch_returns_memory_nobody_wrote(kernel: int, dilation: int) -> None:
    layer = Depthwise(16, kernel, 1, dilation)
    images = torch.randn(64, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(images)
    assert out.dtype == torch.bfloat16
    grads = torch.randn_like(out)
    (ours,) = torch.autograd.grad(out, layer.weight, grads)
    (exact,) = torch.autograd.grad(plain(layer, images.double(), layer.weight.double()), layer.weight, grads.double())
    assert ours.dtype == torch.float32
    assert float((ours - exact).norm() / exact.norm()) < 0.02
