"""How well a kernel's idea of which images are alike agrees with their labels."""

import torch
from torch import Tensor

from metantk_nas.types import EpisodeLayout


def kernel_alignment(theta: Tensor, layout: EpisodeLayout, support_labels: Tensor, query_labels: Tensor) -> Tensor:
    """Compute the centred alignment of a kernel with the labels, mean over episodes.

    ``⟨K_c, L_c⟩ / (‖K_c‖ ‖L_c‖)`` with ``K_c = H K H``, ``H = I − 1 1ᵀ/n``, over the n support and query rows of an
    episode; ``L`` is 1 where two rows share a label (Cortes, Mohri & Rostamizadeh, JMLR 2012, arXiv 1203.0550,
    section 2). At most 1; 0 for a kernel that knows nothing of the labels.

    Args:
        theta: kernel over query rows then support rows, ``[…, row, row]``.
        layout: how rows fall into episodes.
        support_labels: ``[episode, support]``.
        query_labels: ``[episode, query]``.

    Returns:
        ``[…]``; NaN where the kernel is constant.
    """
    every_row = torch.arange(layout.n_rows, device=theta.device)
    alignments = []
    for episode in range(layout.n_episodes):
        rows = torch.cat([every_row[layout.query(episode)], every_row[layout.support(episode)]])
        labels = torch.cat([query_labels[episode], support_labels[episode]])
        kernel = _centred(theta[..., rows[:, None], rows])
        target = _centred((labels[:, None] == labels).to(theta))
        alignments.append((kernel * target).sum((-2, -1)) / (kernel.norm(dim=(-2, -1)) * target.norm()))
    return torch.stack(alignments).mean(0)


def _centred(kernel: Tensor) -> Tensor:
    """``H K H``."""
    kernel = kernel - kernel.mean(-1, keepdim=True)
    return kernel - kernel.mean(-2, keepdim=True)
