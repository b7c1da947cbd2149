"""The one kernel smoother behind MetaNTK and every learner with a closed-form inner loop."""

import math

import torch
from torch import Tensor


def kernel_smoother(k_qs: Tensor, k_ss: Tensor, *, inner_time: float, inner_reg: float) -> Tensor:
    """Map support residuals to query predictions after gradient descent in function space.

    ``A = K_QS (K_SS + λI)⁻¹ (I − exp(−τ K_SS))``, in eigen form ``−expm1(−τs) / (s + λ)`` on the
    eigenvalues ``s`` of ``K_SS`` (MetaNTK-NAS, arXiv 2203.09137; Meta-RKHS-II, arXiv 2102.03909 with
    λ = 0). Work is done in the dtype of the arguments; scores use float64.

    ``τ = inf`` is solved by Cholesky and differentiable everywhere. A finite ``τ`` is differentiable
    where the eigenvalues of ``K_SS`` are distinct.

    Args:
        k_qs: ``[*batch, query, support]``, kernel of query with support rows.
        k_ss: ``[*batch, support, support]``, symmetric positive semi-definite.
        inner_time: τ ≥ 0, inner learning rate × steps; ``inf`` solves the inner loop exactly.
        inner_reg: λ ≥ 0, ridge in units of the kernel.

    Returns:
        ``A [*batch, query, support]``; NaN for every member of the batch whose ``K_SS`` is not finite
        or, where ``τ = inf``, whose ``K_SS + λI`` is not positive definite.
    """
    finite = k_ss.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    identity = torch.eye(k_ss.shape[-1], dtype=k_ss.dtype, device=k_ss.device)
    support = torch.where(finite, k_ss, identity)
    if math.isinf(inner_time):
        factor, failed = torch.linalg.cholesky_ex(support + inner_reg * identity)
        solved = torch.cholesky_solve(k_qs.mT, factor).mT
        return torch.where(finite & (failed == 0)[..., None, None], solved, torch.nan)
    eigenvalues, vectors = torch.linalg.eigh(support)
    ridged = eigenvalues + inner_reg
    # where s + λ = 0 both are zero, and the quotient's limit is τ
    gains = torch.where(
        ridged == 0, inner_time, -torch.expm1(-inner_time * eigenvalues) / torch.where(ridged == 0, 1, ridged)
    )
    return torch.where(finite, (k_qs @ vectors * gains[..., None, :]) @ vectors.mT, torch.nan)
