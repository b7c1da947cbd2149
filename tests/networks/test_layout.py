"""Layouts change where pixels lie and nothing else, in every order of differentiation."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.nn import functional

from metantk_nas.networks.layout import dense_gradient, pixel_grids
from metantk_nas.networks.ops import AveragePool, average_by_convolution

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


def padded_grids(images: Tensor) -> tuple[Tensor, Tensor]:
    """What DARTS writes: the grid, and that of the image shifted by one pixel."""
    return images[:, :, ::2, ::2], functional.pad(images, (0, 1, 0, 1))[:, :, 1::2, 1::2]


def pytorchs_pool(images: Tensor, stride: int) -> Tensor:
    return functional.avg_pool2d(images, 3, stride, padding=1, count_include_pad=False)


@given(SIZES, st.booleans())
def test_grids_are_those_of_a_padded_image(size, with_gradient):
    images = torch.randn(size, requires_grad=with_gradient)
    for ours, theirs in zip(pixel_grids(images), padded_grids(images), strict=True):
        assert torch.equal(ours, theirs)


@given(SIZES, st.sampled_from([1, 2]))
def test_the_average_of_pixels_is_pytorchs_and_so_is_its_gradient(size, stride):
    images = torch.randn(size, dtype=torch.float64, requires_grad=True)
    ours, theirs = average_by_convolution(images, stride), pytorchs_pool(images, stride)
    torch.testing.assert_close(ours, theirs)
    grads = torch.randn_like(ours)
    mine, expected = (torch.autograd.grad(out, images, grads)[0] for out in (ours, theirs))
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_average_of_bfloat16_pixels_is_rounded_twice_at_most(stride, layout):
    images = torch.randn(4, 16, 9, 9).to(torch.bfloat16).contiguous(memory_format=layout).requires_grad_()
    out = AveragePool(stride)(images)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, average_by_convolution(images, stride))
    torch.testing.assert_close(out.double(), pytorchs_pool(images.double(), stride), rtol=2**-7, atol=2**-8)


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 1)])
def test_derivatives_of_any_order_are_there(size):
    images = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    for function in (pixel_grids, dense_gradient, *(partial(average_by_convolution, stride=n) for n in (1, 2))):
        assert gradcheck(function, [images])
        assert gradgradcheck(function, [images])


def test_transforms_of_functions_go_through():
    """Meta-gradients of several tasks at once, and a directional derivative."""

    def ours(images: Tensor) -> Tensor:
        even, odd = pixel_grids(dense_gradient(images))
        return (even * odd**2).sum() + (average_by_convolution(images, 1) ** 3).sum()

    def theirs(images: Tensor) -> Tensor:
        even, odd = padded_grids(images)
        return (even * odd**2).sum() + (pytorchs_pool(images, 1) ** 3).sum()

    tasks = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64)

    def stepped(value):
        return grad(lambda images: value(images - 0.1 * grad(value)(images)))

    torch.testing.assert_close(vmap(stepped(ours))(tasks), torch.stack([stepped(theirs)(each) for each in tasks]))
    change = torch.randn_like(tasks[0])
    torch.testing.assert_close(jvp(ours, (tasks[0],), (change,)), jvp(theirs, (tasks[0],), (change,)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_slices_means_and_grids_lie_as_images_do(layout):
    images = torch.randn(2, 8, 6, 6).contiguous(memory_format=layout).requires_grad_()
    uses = {
        "a slice of channels": lambda used: torch.cat([dense_gradient(used), used], dim=1).square(),
        "a mean": lambda used: dense_gradient(used).mean((-2, -1)),
        "grids": lambda used: torch.cat([dense_gradient(grid) for grid in pixel_grids(used)], dim=1),
    }
    for name, use in uses.items():
        seen: list[Tensor] = []
        used = images * 1
        used.register_hook(seen.append)
        use(used).sum().backward()
        assert used.is_contiguous(memory_format=layout), name
        assert seen[0].is_contiguous(memory_format=layout), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [6, 7])
def test_grids_lie_as_images_do(layout, size):
    images = torch.randn(2, 8, size, size).contiguous(memory_format=layout)
    for grid in pixel_grids(images):
        assert grid.is_contiguous(memory_format=layout)
