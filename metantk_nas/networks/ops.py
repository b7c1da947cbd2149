"""Candidate operations by their published names.

Sources: NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326), DARTS (Liu et al., ICLR 2019,
arXiv 1806.09055), few-shot DARTS (Wang et al., CVPR 2022, arXiv 2203.09137). An operation maps
``[row, channel, height, width]`` to the same number of channels, at ``stride`` 1 or 2; odd sizes
are rounded up.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk_nas.depthwise import Depthwise, Steps, convolve
from metantk_nas.errors import unknown_name
from metantk_nas.networks.layout import dense_gradient, pixel_grids
from metantk_nas.networks.norms import NormKind, make_norm


def relu_conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int, norm: NormKind) -> nn.Sequential:
    """ReLU, dense convolution with "same" padding, normalisation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, make_norm(norm, channels_out))


def _separable(channels: int, kernel: int, stride: int, dilation: int, norm: NormKind) -> Iterator[nn.Module]:
    """Yield ReLU, depthwise convolution, pointwise convolution, normalisation."""
    yield nn.ReLU()
    yield Depthwise(channels, kernel, stride, dilation)
    yield nn.Conv2d(channels, channels, 1, bias=False)
    yield make_norm(norm, channels)


def _separable_twice(kernel: int) -> "OpFactory":
    def build(channels: int, stride: int, norm: NormKind) -> nn.Module:
        return nn.Sequential(*_separable(channels, kernel, stride, 1, norm), *_separable(channels, kernel, 1, 1, norm))

    return build


def _separable_once(kernel: int, dilation: int) -> "OpFactory":
    def build(channels: int, stride: int, norm: NormKind) -> nn.Module:
        return nn.Sequential(*_separable(channels, kernel, stride, dilation, norm))

    return build


def _cross(kernel: int) -> "OpFactory":
    """ReLU, 1×k convolution, k×1 convolution, normalisation; each strides along its own axis."""

    def build(channels: int, stride: int, norm: NormKind) -> nn.Module:
        half = kernel // 2
        return nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, half), bias=False),
            nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (half, 0), bias=False),
            make_norm(norm, channels),
        )

    return build


def _dense(kernel: int) -> "OpFactory":
    def build(channels: int, stride: int, norm: NormKind) -> nn.Module:
        return relu_conv_norm(channels, channels, kernel, stride, norm)

    return build


def _pool(kind: str, *, with_norm: bool) -> "OpFactory":
    def build(channels: int, stride: int, norm: NormKind) -> nn.Module:
        pool = AveragePool(stride) if kind == "avg" else nn.MaxPool2d(3, stride, padding=1)
        return nn.Sequential(pool, make_norm(norm, channels)) if with_norm else pool

    return build


class AveragePool(nn.Module):
    """Mean over 3×3 pixels, of those that lie in the image.

    PyTorch's pool is slow in bfloat16 on a CPU. There it is a depthwise convolution of ones, divided by how many pixels
    it saw: with its gradient three to six times as fast (128 images of 64 to 16 channels); in float32 they are alike.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[row, channel, height, width]`` to the same channels, sizes divided by the stride and rounded up."""
        if images.device.type != "cpu" or images.dtype != torch.bfloat16 or not torch.is_grad_enabled():
            return functional.avg_pool2d(images, 3, self.stride, padding=1, count_include_pad=False)
        return average_by_convolution(images, self.stride)


def average_by_convolution(images: Tensor, stride: int) -> Tensor:
    """Compute what `AveragePool` does by a depthwise convolution, on a CPU in any precision."""
    _, channels, height, width = images.shape
    ones = torch.ones(channels, 1, 3, 3, dtype=images.dtype)
    image = torch.ones(1, 1, height, width, dtype=images.dtype)
    n_seen = functional.conv2d(image, ones[:1], None, stride, padding=1)
    by_channel = n_seen.movedim(1, -1).expand(-1, -1, -1, channels).contiguous().movedim(-1, 1)
    return convolve(images, ones, Steps(stride)) / by_channel


class FactorizedReduction(nn.Module):
    """Halve the resolution (DARTS): ReLU, two 1×1 convolutions side by side, normalisation.

    The first convolution sees every second pixel, the other the grid shifted by one along both axes, and zeros beyond
    the edge.
    """

    def __init__(self, channels_in: int, channels_out: int, norm: NormKind) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, bias=False)
        self.norm = make_norm(norm, channels_out)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[row, channel, height, width]`` to half the height and width, rounded up."""
        even, odd = pixel_grids(self.relu(images))
        halves = [dense_gradient(self.even(even)), dense_gradient(self.odd(odd))]
        out: Tensor = self.norm(torch.cat(halves, dim=1))
        return out


class ResidualReduction(nn.Module):
    """Residual block between the stages of NAS-Bench-201: halves the resolution, changes the channels.

    Two (ReLU, 3×3 convolution, normalisation), the first with stride 2; the shortcut is a 2×2 average
    pool and a 1×1 convolution without normalisation.
    """

    def __init__(self, channels_in: int, channels_out: int, norm: NormKind) -> None:
        super().__init__()
        self.first = relu_conv_norm(channels_in, channels_out, 3, 2, norm)
        self.second = relu_conv_norm(channels_out, channels_out, 3, 1, norm)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[row, channels_in, height, width]`` to ``[row, channels_out, height/2, width/2]``."""
        out: Tensor = self.shortcut(images) + self.second(self.first(images))
        return out


def _skip_connect(channels: int, stride: int, norm: NormKind) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, norm)


OpFactory = Callable[[int, int, NormKind], nn.Module]

OPS: dict[str, OpFactory] = {
    "skip_connect": _skip_connect,
    "nor_conv_1x1": _dense(1),
    "nor_conv_3x3": _dense(3),
    "avg_pool_3x3": _pool("avg", with_norm=False),
    "max_pool_3x3": _pool("max", with_norm=False),
    "avg_pool_3x3BN": _pool("avg", with_norm=True),
    "max_pool_3x3BN": _pool("max", with_norm=True),
    "sep_conv_3x3": _separable_twice(3),
    "sep_conv_5x5": _separable_twice(5),
    "dil_conv_3x3": _separable_once(3, dilation=2),
    "dil_conv_5x5": _separable_once(5, dilation=2),
    "conv_3x3": _separable_once(3, dilation=1),
    "conv_1x5_5x1": _cross(5),
    "conv_7x1_1x7": _cross(7),
}
"""Every operation but ``none``, which is the absence of one."""


def make_op(name: str, channels: int, stride: int, norm: NormKind) -> nn.Module:
    """Build the operation called ``name``.

    Args:
        name: published name, one of `OPS`.
        channels: feature maps in and out.
        stride: 1, or 2 on the edges from a reduction cell's inputs.
        norm: see `metantk_nas.networks.norms.make_norm`.

    Raises:
        UsageError: no operation has this name.
    """
    if name not in OPS:
        raise unknown_name("operation", name, OPS)
    return OPS[name](channels, stride, norm)
