"""Conv-4: the four-block baseline of the few-shot literature."""

import torch
from torch import Tensor, nn

from metantk_nas.errors import ShapeError
from metantk_nas.networks.norms import NormKind, make_norm

N_BLOCKS = 4


class Conv4(nn.Module):
    """Four blocks of 3×3 convolution, normalisation, ReLU and 2×2 max pooling, then a linear head.

    Vinyals et al. 2016 (arXiv 1606.04080) with the 64 filters of ProtoNet (arXiv 1703.05175). The
    features are the last block's output, flattened: 64 at 28 pixels, 256 at 32, 1600 at 84.

    Args:
        in_channels: channels of the images.
        n_outputs: logits of the head.
        width: filters of each block.
        image_size: height and width in pixels, at least 16.
        norm: see `metantk_nas.networks.norms.make_norm`. ``"batch_stats"`` is the transductive setting
            of the original MAML code: predictions of an image depend on the images beside it.

    Raises:
        ShapeError: ``image_size`` leaves nothing after four poolings.
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_outputs: int = 5,
        *,
        width: int = 64,
        image_size: int = 32,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        side = image_size // 2**N_BLOCKS
        if side < 1:
            raise ShapeError(f"Conv-4 halves images four times and needs at least 16 pixels; got {image_size}.")
        widths = [in_channels, *[width] * N_BLOCKS]
        self.blocks = nn.Sequential(*(_block(widths[i], widths[i + 1], norm) for i in range(N_BLOCKS)))
        self.n_features = width * side * side
        self.head = nn.Linear(self.n_features, n_outputs)
        self.drop_path_prob = 0.0  # of the networks' protocol; Conv-4 has no paths to drop

    def features(self, images: Tensor) -> Tensor:
        """Compute features ``[row, n_features]`` of images ``[row, channel, height, width]``."""
        return torch.flatten(self.blocks(images), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``[row, n_outputs]`` of images ``[row, channel, height, width]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _block(in_channels: int, out_channels: int, norm: NormKind) -> nn.Sequential:
    """Convolution, normalisation, pooling, ReLU: the last two commute, and this way the ReLU sees a quarter."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), make_norm(norm, out_channels), nn.MaxPool2d(2), nn.ReLU()
    )
