"""Per-sample gradients of a layer's weights, from what went in and the gradient of what came out.

For a weighted layer with input ``a`` and output gradient ``g = ∂f/∂output``, row ``r`` of the layer's
Jacobian is the gradient of ``f_r`` with respect to the layer's weights. A convolution's is built one
kernel offset at a time, each a batched product of ``g`` with the input shifted by that offset:
several times faster on a CPU than unfolding the input (im2col).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Rule = Callable[[Any, Tensor, Tensor], Tensor]
"""(layer of the rule's own type, input, output gradient) → Jacobian ``[row, parameter]``."""


def conv_weight(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """Jacobian of a two-dimensional convolution's weight, grouped or dense.

    Args:
        layer: the convolution, with numeric zero padding.
        inputs: ``[row, channel_in, height, width]``.
        grads: ``[row, channel_out, height_out, width_out]``.

    Returns:
        ``[row, parameter]``; the order of parameters is by kernel offset.
    """
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    if depthwise:
        parts = [(grads * patch).sum(dim=(2, 3)) for patch in _shifted(layer, inputs, grads)]
        return torch.cat(parts, dim=1)
    by_group = _by_group(grads, layer.groups).mT
    parts = [(by_group @ _by_group(patch, layer.groups)).flatten(1) for patch in _shifted(layer, inputs, grads)]
    return torch.cat(parts, dim=1)


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


def linear_weight(layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Tensor:
    """Jacobian of a linear layer's weight; inputs ``[row, …, n_in]``, grads ``[row, …, n_out]``."""
    inputs = inputs.reshape(len(inputs), -1, layer.in_features)
    grads = grads.reshape(len(grads), -1, layer.out_features)
    return (grads.transpose(1, 2) @ inputs).flatten(1)


def conv_bias(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:  # noqa: ARG001 - a Rule
    """Jacobian of a convolution's bias."""
    return grads.sum(dim=(2, 3))


def linear_bias(layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Tensor:  # noqa: ARG001 - a Rule
    """Jacobian of a linear layer's bias."""
    return grads.reshape(len(grads), -1, layer.out_features).sum(dim=1)


def group_norm_affine(layer: nn.GroupNorm, inputs: Tensor, grads: Tensor) -> Tensor:
    """Jacobian of a group normalisation's scale and shift."""
    return _affine(functional.group_norm(inputs, layer.num_groups, eps=layer.eps), grads)


def batch_norm_affine(layer: nn.BatchNorm2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """Jacobian of a batch normalisation's scale and shift, with running statistics."""
    return _affine(functional.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps), grads)


def _affine(normalised: Tensor, grads: Tensor) -> Tensor:
    return torch.cat([(grads * normalised).sum(dim=(2, 3)), grads.sum(dim=(2, 3))], dim=1)


WEIGHT_RULES: dict[type[nn.Module], Rule] = {nn.Conv2d: conv_weight, nn.Linear: linear_weight}
BIAS_RULES: dict[type[nn.Module], Rule] = {nn.Conv2d: conv_bias, nn.Linear: linear_bias}
NORM_RULES: dict[type[nn.Module], Rule] = {
    nn.GroupNorm: group_norm_affine,
    nn.BatchNorm2d: batch_norm_affine,
}
"""Rules by layer type."""
