"""Normalisation layers by name: one network, trained with batch statistics or scored with groups."""

from typing import Literal, get_args

from torch import nn

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
