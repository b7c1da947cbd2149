"""Normalisation layers by name: one network, trained with batch statistics or scored with groups."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metantk_nas.errors import unknown_name

NormKind = Literal["batch", "batch_stats", "group", "none"]

MAX_GROUPS = 16


def make_norm(norm: NormKind, channels: int, *, affine: bool = True) -> nn.Module:
    """Build the normalisation of ``channels`` feature maps.

    Args:
        norm: ``"batch"`` keeps running statistics and uses them in evaluation mode;
            ``"batch_stats"`` always uses the statistics of the images at hand, support or query,
            which makes predictions transductive (as in the code of MAML, arXiv 1703.03400);
            ``"group"`` is ``GroupNorm(min(16, C), C)``, which keeps rows independent (the scoring
            network of MetaNTK-NAS, arXiv 2203.09137; where 16 does not divide C, the largest number of
            groups below that does); ``"none"`` is the identity.
        channels: number of feature maps.
        affine: whether a scale and a shift per channel are learnt.

    Raises:
        UsageError: ``norm`` is none of these.
    """
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels, affine=affine)
        case "batch_stats":
            return nn.BatchNorm2d(channels, affine=affine, track_running_stats=False)
        case "group":
            return nn.GroupNorm(_n_groups(channels), channels, affine=affine)
        case "none":
            return nn.Identity()
    raise unknown_name("normalisation", norm, get_args(NormKind))


def _n_groups(channels: int) -> int:
    """Return the largest divisor of ``channels`` that is at most 16: 16 wherever 16 divides, else the next best."""
    return next(groups for groups in range(min(MAX_GROUPS, channels), 0, -1) if channels % groups == 0)


@contextmanager
def held_statistics(network: nn.Module, run: Callable[[], object]) -> Iterator[None]:
    """Let batch normalisation use the statistics of one batch, as long as the context lasts.

    Images do not see each other then, and neither do derivatives: the statistics are constants to transformations of
    ``torch.func`` that are applied inside, and functions of what ``run`` computes with to those around the context.

    Args:
        network: its `BatchNorm2d` layers are held.
        run: passes the batch through ``network``.
    """
    statistics: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        statistics[norm] = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)

    norms = (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for norm, held in statistics.items():
        norm.forward = partial(_normalise, norm, *held)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in statistics:
            del norm.forward


def _normalise(norm: nn.BatchNorm2d, variance: Tensor, mean: Tensor, images: Tensor) -> Tensor:
    """Shift and scale ``[row, channel, height, width]`` by given statistics, and by the layer's weights."""
    scale = torch.rsqrt(variance + norm.eps)
    if not norm.affine:
        return (images - mean[:, None, None]) * scale[:, None, None]
    scale = scale * norm.weight
    return images * scale[:, None, None] + (norm.bias - mean * scale)[:, None, None]
