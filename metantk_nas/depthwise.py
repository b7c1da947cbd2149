"""Depthwise convolutions whose gradients are fast and right on a CPU.

A depthwise convolution, the gradient of its input and the gradient of its weight are three sides of one form, linear in
images ``x``, weight ``w`` and output gradients ``g``: ``⟨conv(x, w), g⟩ = ⟨x, input_gradient(w, g)⟩ =
⟨w, weight_gradient(x, g)⟩``. So the derivatives of each are the other two, and derivatives of any order are there.

PyTorch computes the first fast everywhere, the others on a CPU only for 3×3 kernels without dilation. Its weight
gradient with dilation, in bfloat16, channels last, 16 channels and 32×32 pixels is memory that nobody has written
(PyTorch 2.13). Here gradients are put down to what is fast and right:

- the input's gradient is a convolution of ``g``, zeros between its pixels for a stride, with the kernel turned round;
- dilation by ``d`` is no dilation among every ``d``-th pixel, so the ``d²`` grids of such pixels become images;
- the weight gradient of a 5×5 kernel is put together from those of four 3×3 windows.
"""

# Measured on one core of an AMD EPYC, 64 images of 16 channels and 32×32 pixels, channels last, PyTorch 2.13, in
# milliseconds, PyTorch's against these, float32 and bfloat16. Input gradient: 5×5 0.9/0.4, 0.8/0.4; dilated 5×5
# 4.7/0.4, 6.6/0.4; of stride 2, 3×3, bfloat16 9.8/0.3. Weight gradient: 5×5 5.1/2.6, 10.2/1.1; dilated 3×3 2.7/2.1,
# 7.8/0.8; dilated 5×5 5.7/4.5, 9.9/1.8.

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_weight

WINDOW = 3
"""Side of the largest kernel whose weight gradient PyTorch computes fast."""


class Depthwise(nn.Conv2d):
    """A depthwise convolution without bias, padded with zeros to the size of its images (rounded up, for a stride).

    Args:
        channels: feature maps in and out.
        kernel: side of the kernel, odd.
        stride: of both axes.
        dilation: of both axes.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve ``[row, channel, height, width]``."""
        if images.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(images)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            images, weight = (each.to(torch.get_autocast_dtype("cpu")) for each in (images, weight))
        return convolve(images, weight, self.steps)

    @property
    def steps(self) -> "Steps":
        """Stride and dilation."""
        return Steps(self.stride[0], self.dilation[0])


class Steps(NamedTuple):
    """How far apart kernels are put down, and the pixels that one of them sees."""

    stride: int = 1
    dilation: int = 1


def convolve(images: Tensor, weight: Tensor, steps: Steps) -> Tensor:
    """Convolve ``[row, channel, height, width]`` with ``[channel, 1, k, k]``, padded to the same size; k is odd."""
    out: Tensor = _Convolve.apply(images, weight, steps)  # type: ignore[no-untyped-call]
    return out


def input_gradient(weight: Tensor, grads: Tensor, steps: Steps, size: tuple[int, int]) -> Tensor:
    """Gradient ``[row, channel, *size]`` of what `convolve` was given.

    Args:
        weight: ``[channel, 1, k, k]``.
        grads: gradients of what came out, ``[row, channel, height_out, width_out]``.
        steps: of the convolution.
        size: height and width of the images.
    """
    gradient: Tensor = _InputGradient.apply(weight, grads, steps, size)  # type: ignore[no-untyped-call]
    return gradient


def weight_gradient(images: Tensor, grads: Tensor, steps: Steps, kernel: int) -> Tensor:
    """Gradient ``[channel, 1, kernel, kernel]`` of the weight of `convolve`.

    Args:
        images: what it was given, ``[row, channel, height, width]``.
        grads: gradients of what came out, ``[row, channel, height_out, width_out]``.
        steps: of the convolution.
        kernel: side of the kernel, odd.
    """
    gradient: Tensor = _WeightGradient.apply(images, grads, steps, kernel)  # type: ignore[no-untyped-call]
    return gradient


class _Convolve(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, steps: Steps) -> Tensor:
        padding = steps.dilation * (weight.shape[-1] // 2)
        return functional.conv2d(images, weight, None, steps.stride, padding, steps.dilation, len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        images, weight, ctx.steps = inputs
        ctx.save_for_backward(images, weight)
        ctx.save_for_forward(images, weight)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wants_images, wants_weight, _ = ctx.needs_input_grad
        return (
            input_gradient(weight, grads, ctx.steps, images.shape[-2:]) if wants_images else None,
            weight_gradient(images, grads, ctx.steps, weight.shape[-1]) if wants_weight else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, images_change: Tensor | None, weight_change: Tensor | None, _: None) -> Tensor:
        images, weight = ctx.saved_tensors
        return _sum(
            None if images_change is None else convolve(images_change, weight, ctx.steps),
            None if weight_change is None else convolve(images, weight_change, ctx.steps),
        )


class _InputGradient(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, grads: Tensor, steps: Steps, size: tuple[int, int]) -> Tensor:
        (n_channels, _, kernel, _), (stride, dilation) = weight.shape, steps
        padding = dilation * (kernel // 2)
        if _is_fast_in_pytorch(stride, dilation, grads):
            return _pytorchs_input_gradient(weight, grads, steps, size)
        spread = _spread(grads, stride, size)
        return functional.conv2d(spread, weight.flip(-1, -2), None, 1, padding, dilation, n_channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        weight, grads, ctx.steps, _ = inputs
        ctx.save_for_backward(weight, grads)

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> tuple[Tensor | None, ...]:
        weight, grads = ctx.saved_tensors
        wants_weight, wants_grads, _, _ = ctx.needs_input_grad
        return (
            weight_gradient(images, grads, ctx.steps, weight.shape[-1]) if wants_weight else None,
            convolve(images, weight, ctx.steps) if wants_grads else None,
            None,
            None,
        )


class _WeightGradient(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, grads: Tensor, steps: Steps, kernel: int) -> Tensor:
        (n_channels, *size), (stride, dilation) = images.shape[1:], steps
        if kernel == 1 or (kernel == WINDOW and dilation == 1) or _is_fast_in_pytorch(stride, dilation, grads):
            shape = (n_channels, 1, kernel, kernel)
            gradient: Tensor = conv2d_weight(
                images, shape, grads, stride, dilation * (kernel // 2), dilation, n_channels
            )
            return gradient
        spread = _spread(grads, stride, tuple(size))
        return _of_windows(_grids(images, dilation), _grids(spread, dilation), kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        images, grads, ctx.steps, _ = inputs
        ctx.save_for_backward(images, grads)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        images, grads = ctx.saved_tensors
        wants_images, wants_grads, _, _ = ctx.needs_input_grad
        return (
            input_gradient(weight, grads, ctx.steps, images.shape[-2:]) if wants_images else None,
            convolve(images, weight, ctx.steps) if wants_grads else None,
            None,
            None,
        )


def _is_fast_in_pytorch(stride: int, dilation: int, grads: Tensor) -> bool:
    """Whether both gradients of a convolution are, whatever its kernel: with a stride alone, in float32."""
    return stride > 1 and dilation == 1 and grads.dtype != torch.bfloat16


def _pytorchs_input_gradient(weight: Tensor, grads: Tensor, steps: Steps, size: tuple[int, int]) -> Tensor:
    """PyTorch's input gradient; `torch.nn.grad.conv2d_input` asks for it in a layout that is five times slower."""
    (n_channels, _, kernel, _), (stride, dilation) = weight.shape, steps
    images = grads.new_empty((len(grads), *size, n_channels)).permute(0, 3, 1, 2)  # only their layout is asked for
    strides, padding, dilations = [stride] * 2, [dilation * (kernel // 2)] * 2, [dilation] * 2
    gradient: Tensor = torch.ops.aten.convolution_backward.default(
        grads, images, weight, None, strides, padding, dilations, False, [0, 0], n_channels, [True, False, False]
    )[0]
    return gradient


def _spread(grads: Tensor, stride: int, size: tuple[int, ...]) -> Tensor:
    """Put zeros between pixels, so that a stride of 1 sees what ``stride`` saw; ``[row, channel, *size]``."""
    if stride == 1:
        return grads
    apart = grads.permute(0, 2, 3, 1)[:, :, None, :, None]
    apart = functional.pad(apart, (0, 0, 0, stride - 1, 0, 0, 0, stride - 1)).flatten(3, 4).flatten(1, 2)
    return apart[:, : size[0], : size[1]].permute(0, 3, 1, 2)


def _grids(images: Tensor, dilation: int) -> Tensor:
    """Make images of every ``dilation``-th pixel: ``[row * dilation², channel, …]``, zeros where a grid has fewer."""
    if dilation == 1:
        return images
    missing = (0, -images.shape[3] % dilation, 0, -images.shape[2] % dilation)
    pixels = functional.pad(images, missing).permute(0, 2, 3, 1)
    split = pixels.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))  # row, height, d, width, d, channel
    grids: Tensor = split.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)
    return grids


def _of_windows(images: Tensor, grads: Tensor, kernel: int) -> Tensor:
    """Weight gradient of a convolution without stride and dilation, from those of 3×3 windows of its kernel."""
    (height, width), edge, starts = grads.shape[2:], kernel // 2, range(0, kernel - 1, WINDOW - 1)
    padded = functional.pad(images, (edge, edge, edge, edge))
    shape = (images.shape[1], 1, WINDOW, WINDOW)

    def window(top: int, left: int) -> Tensor:
        seen = padded[:, :, top : top + height + WINDOW - 1, left : left + width + WINDOW - 1]
        gradient: Tensor = conv2d_weight(seen, shape, grads, 1, 0, 1, images.shape[1])
        return gradient

    return _joined([_joined([window(top, left) for left in starts], -1) for top in starts], -2)


def _joined(windows: list[Tensor], dim: int) -> Tensor:
    """Put windows side by side; each begins where the one before ends."""
    first, *others = windows
    return torch.cat([first, *(each.narrow(dim, 1, WINDOW - 1) for each in others)], dim)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor:
    parts = [part for part in (first, second) if part is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
