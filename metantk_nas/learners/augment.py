"""Random crops and flips of images that are already tensors."""

import torch
from torch import Tensor
from torch.nn.functional import pad

CROP_FRACTION = 8
"""Images are padded by an eighth of their side, the usual 4 pixels at 32, before they are cropped."""


def crop_and_flip(images: Tensor, generator: torch.Generator, *, alike: bool = False) -> Tensor:
    """Shift each image by up to an eighth of its side and mirror it with probability one half.

    Args:
        images: normalised, ``[row, channel, height, width]``; what a shift uncovers is 0, the mean colour.
        generator: source of chance, on the CPU.
        alike: draw one shift and one flip for all images, so that their order does not matter.
    """
    n_rows, _, height, width = images.shape
    margin = max(1, height // CROP_FRACTION)
    n_draws = 1 if alike else n_rows
    shift = torch.randint(2 * margin + 1, (2, n_draws, 1), generator=generator).to(images.device)
    flip = (torch.rand(n_draws, 1, generator=generator) < 0.5).to(images.device)
    columns = torch.arange(width, device=images.device).expand(n_draws, width)
    columns = torch.where(flip, columns.flip(1), columns) + shift[1]
    rows = torch.arange(height, device=images.device) + shift[0]
    padded = pad(images, (margin, margin, margin, margin))
    index = torch.arange(n_rows, device=images.device)[:, None, None]
    # the advanced indices around ":" put the channel axis last
    return padded[index, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
