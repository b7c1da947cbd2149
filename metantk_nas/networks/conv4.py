"""Conv-4: the four-block baseline of the few-shot literature."""

import re
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metantk_nas.errors import GenotypeError, ShapeError, brief
from metantk_nas.networks.norms import NormKind, make_norm

CONV4 = "conv4"
"""Architecture text of the usual one. ``conv4-32`` has other filters, ``conv4-96-192-384-512`` others in each block,
and with ``-strided`` at its end its convolutions have stride 2 and nothing is pooled."""

STRIDED = "strided"

N_BLOCKS = 4
WIDTH = 64
MAX_WIDTH = 2048
"""Filters of a block, at most: with as many in all four, weights take half a gigabyte."""

Widths = tuple[int, ...]

_TEXT = re.compile(rf"{CONV4}(?:-(?:[0-9]{{1,9}}|{STRIDED}))*")


class Conv4Variant(NamedTuple):
    """What sets one Conv-4 apart from others.

    Args:
        widths: filters of the four blocks.
        strided: whether convolutions have stride 2, instead of poolings after them.
    """

    widths: Widths
    strided: bool


def conv4_variant(arch: str) -> Conv4Variant | None:
    """Read an architecture text; None where it is not about Conv-4.

    Raises:
        GenotypeError: it is, and has neither one number of filters nor four, one that is out of range, or words in
            another order.
    """
    if not _TEXT.fullmatch(arch):
        return None
    _, *words = arch.split("-")
    strided = words[-1:] == [STRIDED]
    filters = words[:-1] if strided else words
    given = [int(word) if word.isdigit() else 0 for word in filters] or [WIDTH]  # 0 is out of range
    if len(given) not in (1, N_BLOCKS) or not all(0 < width <= MAX_WIDTH for width in given):
        raise GenotypeError(
            f"architecture {brief(arch)} is no Conv-4; expected {CONV4}, or filters as in {CONV4}-32 for all blocks "
            f"or {CONV4}-96-192-384-512 for each, from 1 to {MAX_WIDTH:,}, and then -{STRIDED} if you like."
        )
    return Conv4Variant(tuple(given * (N_BLOCKS // len(given))), strided)


class Conv4(nn.Module):
    """Four blocks of 3×3 convolution, normalisation, ReLU and 2×2 max pooling, then a linear head.

    Vinyals et al. 2016 (arXiv 1606.04080) with the 64 filters of ProtoNet (arXiv 1703.05175). The
    features are the last block's output, flattened: 64 at 28 pixels, 256 at 32, 1600 at 84. MAML has 32 filters for
    photographs (arXiv 1703.03400), R2-D2 96, 192, 384 and 512 (arXiv 1805.08136; its leaky ReLU, dropout and features
    of the third block are left out).

    On Omniglot MAML and Reptile (arXiv 1803.02999) have convolutions of stride 2 instead of pooling, a quarter of the
    work. They round up, 28 → 14 → 7 → 4 → 2, so that there are 256 features at 28 pixels, as in Reptile's code; MAML's
    takes their mean over the image.

    Args:
        in_channels: channels of the images.
        n_outputs: logits of the head.
        width: filters of each block, or those of the four.
        strided: convolutions of stride 2 instead of pooling.
        image_size: height and width in pixels, at least 16.
        norm: see `metantk_nas.networks.norms.make_norm`. ``"batch_stats"`` is the transductive setting
            of the original MAML code: predictions of an image depend on the images beside it.

    Raises:
        ShapeError: images are smaller.
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_outputs: int = 5,
        *,
        width: int | Widths = WIDTH,
        strided: bool = False,
        image_size: int = 32,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        scale = 2**N_BLOCKS
        if image_size < scale:
            raise ShapeError(f"Conv-4 halves images four times and needs at least 16 pixels; got {image_size}.")
        side = ceil(image_size / scale) if strided else image_size // scale
        widths = [in_channels, *(width if isinstance(width, tuple) else [width] * N_BLOCKS)]
        block = _strided_block if strided else _pooled_block
        self.blocks = nn.Sequential(*(block(widths[i], widths[i + 1], norm) for i in range(N_BLOCKS)))
        self.n_features = widths[-1] * side * side
        self.head = nn.Linear(self.n_features, n_outputs)
        self.drop_path_prob = 0.0  # of the networks' protocol; Conv-4 has no paths to drop

    def features(self, images: Tensor) -> Tensor:
        """Compute features ``[row, n_features]`` of images ``[row, channel, height, width]``."""
        return torch.flatten(self.blocks(images), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``[row, n_outputs]`` of images ``[row, channel, height, width]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _pooled_block(in_channels: int, out_channels: int, norm: NormKind) -> nn.Sequential:
    """Convolution, normalisation, pooling, ReLU: the last two commute, and this way the ReLU sees a quarter."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), make_norm(norm, out_channels), nn.MaxPool2d(2), nn.ReLU()
    )


def _strided_block(in_channels: int, out_channels: int, norm: NormKind) -> nn.Sequential:
    """Convolution of stride 2, normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), make_norm(norm, out_channels), nn.ReLU()
    )
