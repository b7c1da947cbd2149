"""Per-sample gradients of a layer's weights, from what went in and the gradient of what came out.

For a weighted layer with input ``a`` and output gradient ``g = ∂f/∂output``, row ``r`` of the layer's
Jacobian is the gradient of ``f_r`` with respect to the layer's weights. A convolution's is built one
kernel offset at a time, each a batched product of ``g`` with the input shifted by that offset:
several times faster on a CPU than unfolding the input (im2col). The parts are handed out one by one, so that
their Gram matrix is taken while they are in the cache. Where groups have few channels, as in depthwise
convolutions, products are too small to be fast; there the rows become groups of one large convolution, as long as
kernels are small and undilated.
"""

# Measured on one core of an AMD EPYC with 30 rows, in milliseconds, products against rows as groups: depthwise
# 48 channels of 32×32 3.6/1.8, 192 of 8×8 1.1/0.4; dense 3×3 16 of 32×32 3.8/1.9, 32 of 16×16 2.2/1.8, 64 of 8×8
# 2.1/3.5; dense 1×5 192 of 8×8 9.7/53; dilated depthwise 192 of 8×8 1.1/25; depthwise 5×5 48 of 32×32 9.5/25, 192 of
# 8×8 1.8/60.

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from metantk_nas.depthwise import WINDOW, Depthwise

FEW_CHANNELS = 16
"""Channels of a group up to which rows as groups are faster than products."""

Rule = Callable[[Any, Tensor, Tensor], Iterator[Tensor]]
"""(layer of the rule's own type, input, output gradient) → Jacobian ``[row, parameter]``, part by part."""


def conv_weight(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:
    """Jacobian of a two-dimensional convolution's weight, grouped or dense.

    Args:
        layer: the convolution, with numeric zero padding.
        inputs: ``[row, channel_in, height, width]``.
        grads: ``[row, channel_out, height_out, width_out]``.

    Yields:
        ``[row, parameter]``, one part for each kernel offset; a single part where groups have few channels.
    """
    n_offsets, undilated = math.prod(layer.kernel_size), tuple(layer.dilation) == (1, 1)
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels
    is_small = n_offsets <= WINDOW**2 or not is_depthwise
    if layer.in_channels // layer.groups <= FEW_CHANNELS and n_offsets > 1 and undilated and is_small:
        yield _rows_as_groups(layer, inputs, grads)
        return
    if is_depthwise:
        yield torch.cat([(grads * patch).sum(dim=(2, 3)) for patch in _shifted(layer, inputs, grads)], dim=1)
        return
    by_channel = _by_group(grads, layer.groups).mT
    if n_offsets > 1:  # transposed once for all offsets
        by_channel = by_channel.contiguous()
    for patch in _shifted(layer, inputs, grads):
        yield (by_channel @ _by_group(patch, layer.groups)).flatten(1)


def _rows_as_groups(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """Jacobian ``[row, parameter]`` as the weight gradient of one convolution whose groups are the rows'."""
    shape = (len(inputs) * layer.out_channels, *layer.weight.shape[1:])
    gradient: Tensor = conv2d_weight(
        _rows_as_channels(inputs),
        shape,
        _rows_as_channels(grads),
        layer.stride,
        layer.padding,
        layer.dilation,
        len(inputs) * layer.groups,
    )
    return gradient.reshape(len(inputs), -1)


def _rows_as_channels(images: Tensor) -> Tensor:
    """Lay ``[row, channel, height, width]`` out as one image ``[1, row * channel, height, width]``, channels last."""
    _, _, height, width = images.shape
    return images.permute(2, 3, 0, 1).reshape(1, height, width, -1).permute(0, 3, 1, 2)


def _by_group(images: Tensor, n_groups: int) -> Tensor:
    """View ``[row, channel, height, width]`` as ``[row, group, pixel, channel in group]``."""
    pixels = images.movedim(1, -1).flatten(1, 2)
    grouped: Tensor = pixels.unflatten(-1, (n_groups, -1)).transpose(1, 2)
    return grouped


def _shifted(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:
    """Yield, per kernel offset, the pixels it multiplies: ``[row, channel_in, height_out, width_out]``."""
    pad_h, pad_w = map(int, layer.padding)
    padded = functional.pad(inputs, (pad_w, pad_w, pad_h, pad_h)) if pad_h or pad_w else inputs
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.stride, layer.dilation
    span_h, span_w = stride_h * (grads.shape[2] - 1) + 1, stride_w * (grads.shape[3] - 1) + 1
    for row in range(layer.kernel_size[0]):
        for column in range(layer.kernel_size[1]):
            top, left = row * dilation_h, column * dilation_w
            yield padded[:, :, top : top + span_h : stride_h, left : left + span_w : stride_w]


def linear_weight(layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:
    """Jacobian of a linear layer's weight; inputs ``[row, …, n_in]``, grads ``[row, …, n_out]``."""
    inputs = inputs.reshape(len(inputs), -1, layer.in_features)
    grads = grads.reshape(len(grads), -1, layer.out_features)
    yield (grads.transpose(1, 2) @ inputs).flatten(1)


def conv_bias(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:  # noqa: ARG001 - a Rule
    """Jacobian of a convolution's bias."""
    yield grads.sum(dim=(2, 3))


def linear_bias(layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:  # noqa: ARG001 - a Rule
    """Jacobian of a linear layer's bias."""
    yield grads.reshape(len(grads), -1, layer.out_features).sum(dim=1)


def group_norm_affine(layer: nn.GroupNorm, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:
    """Jacobian of a group normalisation's scale and shift."""
    yield _affine(functional.group_norm(inputs, layer.num_groups, eps=layer.eps), grads)


def batch_norm_affine(layer: nn.BatchNorm2d, inputs: Tensor, grads: Tensor) -> Iterator[Tensor]:
    """Jacobian of a batch normalisation's scale and shift, with running statistics."""
    yield _affine(functional.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps), grads)


def _affine(normalised: Tensor, grads: Tensor) -> Tensor:
    return torch.cat([(grads * normalised).sum(dim=(2, 3)), grads.sum(dim=(2, 3))], dim=1)


WEIGHT_RULES: dict[type[nn.Module], Rule] = {nn.Conv2d: conv_weight, Depthwise: conv_weight, nn.Linear: linear_weight}
BIAS_RULES: dict[type[nn.Module], Rule] = {nn.Conv2d: conv_bias, nn.Linear: linear_bias}
NORM_RULES: dict[type[nn.Module], Rule] = {
    nn.GroupNorm: group_norm_affine,
    nn.BatchNorm2d: batch_norm_affine,
}
"""Rules by layer type."""
