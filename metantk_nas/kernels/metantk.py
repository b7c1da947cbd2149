"""The Meta Neural Tangent Kernel: the kernel of the network after it has adapted to each episode's support set.

MetaNTK-NAS, Wang et al., CVPR 2022, arXiv 2203.09137; the kernel itself: "Global Convergence of MAML
and Theory-Inspired Neural Architecture Search for Few-Shot Learning", same reference.
"""

import torch
from torch import Tensor

from metantk_nas.errors import ShapeError
from metantk_nas.kernels.smoother import kernel_smoother
from metantk_nas.types import EpisodeLayout


def metantk(theta: Tensor, base: Tensor, layout: EpisodeLayout, *, inner_time: float, inner_reg: float) -> Tensor:
    """Compute the MetaNTK ``P Θ Pᵀ`` with ``P = [I, −blockdiag(A_1 … A_T)]``.

    ``A_i = K_QS (K_SS + λI)⁻¹ (I − exp(−τ K_SS))`` moves what gradient descent learns on the support
    set of episode i to its query rows, so ``J_Q − A J_S`` is the Jacobian of the adapted network and
    the result is positive semi-definite by construction.

    Args:
        theta: NTK Θ over query rows then support rows, ``[…, row, row]``, float64.
        base: kernel K that adapts: the NTK itself (MAML) or the head's Gram (ANIL); same shape.
        layout: how rows fall into episodes.
        inner_time: τ, inner learning rate × steps, dimensionless; ``inf`` solves the inner loop exactly.
        inner_reg: λ, ridge added to each support block, absolute, in units of ``base``.

    Returns:
        ``[…, query row, query row]``, float64.

    Raises:
        ShapeError: the matrices and the layout disagree.
    """
    adapted = adaptation_map(base, layout, inner_time=inner_time, inner_reg=inner_reg)
    if theta.shape != base.shape:
        raise ShapeError(f"theta has shape {tuple(theta.shape)}, base {tuple(base.shape)}; expected equal shapes.")
    identity = torch.eye(layout.n_query_rows, dtype=theta.dtype, device=theta.device)
    projection = torch.cat([identity.expand_as(theta[..., : layout.n_query_rows, : layout.n_query_rows]), -adapted], -1)
    return projection @ theta @ projection.mT


def adaptation_map(base: Tensor, layout: EpisodeLayout, *, inner_time: float, inner_reg: float) -> Tensor:
    """Compute ``blockdiag(A_1 … A_T)``, ``[…, query row, support row]``; arguments as in `metantk`."""
    if base.shape[-2:] != (layout.n_rows, layout.n_rows):
        raise ShapeError(
            f"base has {base.shape[-2]}×{base.shape[-1]} entries; expected {layout.n_rows} rows: "
            f"{layout.n_episodes} episodes × ({layout.n_query_total} query + {layout.n_support} support)."
        )
    n_query = layout.n_query_rows
    adapted = base.new_zeros(*base.shape[:-2], n_query, layout.n_rows - n_query)
    for episode in range(layout.n_episodes):
        query, support = layout.query(episode), layout.support(episode)
        block = kernel_smoother(
            base[..., query, support], base[..., support, support], inner_time=inner_time, inner_reg=inner_reg
        )
        adapted[..., query, support.start - n_query : support.stop - n_query] = block
    return adapted


def adaptation_loss(
    base: Tensor,
    layout: EpisodeLayout,
    support_labels: Tensor,
    query_labels: Tensor,
    *,
    n_way: int,
    inner_time: float,
    inner_reg: float,
) -> Tensor:
    """Query loss of the closed-form inner loop at initialisation: mean over episodes of ``‖A Y_S − Y_Q‖²``.

    Labels are one-hot with each row centred (mean zero over classes), so a network that has learnt
    nothing is charged for the labels' whole variance.

    Args:
        base: kernel that adapts, ``[…, row, row]``.
        layout: how rows fall into episodes.
        support_labels: ``[episode, support]``, integers below ``n_way``.
        query_labels: ``[episode, query]``.
        n_way: classes of an episode.
        inner_time: as in `metantk`.
        inner_reg: as in `metantk`.

    Returns:
        ``[…]``, float64.
    """
    adapted = adaptation_map(base, layout, inner_time=inner_time, inner_reg=inner_reg)
    predicted = adapted @ _centred_one_hot(support_labels.flatten(), n_way, base)
    residual = predicted - _centred_one_hot(query_labels.flatten(), n_way, base)
    return residual.square().sum(dim=(-2, -1)) / layout.n_episodes


def _centred_one_hot(labels: Tensor, n_way: int, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, n_way).to(like) - 1 / n_way
