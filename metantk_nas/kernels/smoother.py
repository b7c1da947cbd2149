"""The one kernel smoother behind MetaNTK and every learner with a closed-form inner loop."""

import math
from typing import Any

import torch
from torch import Tensor


def kernel_smoother(k_qs: Tensor, k_ss: Tensor, *, inner_time: float, inner_reg: float | Tensor) -> Tensor:
    """Map support residuals to query predictions after gradient descent in function space.

    ``A = K_QS (K_SS + λI)⁻¹ (I − exp(−τ K_SS))``, in eigen form ``−expm1(−τs) / (s + λ)`` on the
    eigenvalues ``s`` of ``K_SS`` (MetaNTK-NAS, arXiv 2203.09137; Meta-RKHS-II, arXiv 2102.03909 with
    λ = 0). Work is done in the dtype of the arguments; scores use float64. Differentiable everywhere,
    equal eigenvalues included; once only where ``τ`` is finite.

    Args:
        k_qs: ``[*batch, query, support]``, kernel of query with support rows.
        k_ss: ``[*batch, support, support]``, symmetric positive semi-definite.
        inner_time: τ ≥ 0, inner learning rate × steps; ``inf`` solves the inner loop exactly.
        inner_reg: λ ≥ 0, ridge in units of the kernel; where ``τ = inf`` it may be a tensor, to be learnt.

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
    gain, *_ = _Gain.apply(support, inner_time, float(inner_reg))  # type: ignore[no-untyped-call]  # as torch has it
    return torch.where(finite, k_qs @ gain, torch.nan)


def kernel_coefficients(k_ss: Tensor, residuals: Tensor, *, inner_time: float, inner_reg: float | Tensor) -> Tensor:
    """Compute the ``a`` of ``f(x) = K(x, S) a``: what `kernel_smoother` makes of residuals, for any query.

    Args:
        k_ss: as in `kernel_smoother`.
        residuals: ``[*batch, support, output]``.
        inner_time: as in `kernel_smoother`.
        inner_reg: as in `kernel_smoother`.

    Returns:
        ``a [*batch, support, output]``.
    """
    identity = torch.eye(k_ss.shape[-1], dtype=k_ss.dtype, device=k_ss.device).expand_as(k_ss)
    return kernel_smoother(identity, k_ss, inner_time=inner_time, inner_reg=inner_reg) @ residuals


class _Gain(torch.autograd.Function):
    """``(K + λI)⁻¹ (I − exp(−τK))`` of symmetric K, for finite τ.

    The derivative of a function g of a symmetric matrix takes the differences ``(g(s_i) − g(s_j)) / (s_i − s_j)``
    of g over eigenvalues (Daleckii & Krein 1965), with g' where they are equal. Autograd through ``eigh`` divides
    by ``s_i − s_j`` alone. Here eigenvalues that are closer than ``width`` are moved apart to it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(kernel: Tensor, inner_time: float, inner_reg: float) -> tuple[Tensor, Tensor, Tensor]:
        eigenvalues, vectors = torch.linalg.eigh(kernel)
        gains = _gains(eigenvalues, inner_time, inner_reg)
        return (vectors * gains[..., None, :]) @ vectors.mT, eigenvalues, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, eigenvalues, vectors = output
        _, *ctx.settings = inputs
        ctx.mark_non_differentiable(eigenvalues, vectors)
        ctx.save_for_backward(eigenvalues, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        eigenvalues, vectors = ctx.saved_tensors
        inner_time, inner_reg = ctx.settings
        one, other = eigenvalues[..., :, None], eigenvalues[..., None, :]
        middle, gap = (one + other) / 2, (one - other).abs()
        # g changes on the scale of s itself, of 1/τ and of λ; cancellation and curvature then err alike, by ε^(2/3)
        scale = min([1 / inner_time if inner_time else 1.0, *([inner_reg] if inner_reg else [])])
        width = torch.maximum(gap, torch.finfo(gap.dtype).eps ** (1 / 3) * (middle.abs() + scale))
        high, low = (_gains(middle + end * width, inner_time, inner_reg) for end in (0.5, -0.5))
        differences = (high - low) / width
        return vectors @ (differences * (vectors.mT @ gradient @ vectors)) @ vectors.mT, None, None


def _gains(eigenvalues: Tensor, inner_time: float, inner_reg: float) -> Tensor:
    """``−expm1(−τs) / (s + λ)``; where s + λ = 0 both are zero, and the quotient's limit is τ."""
    ridged = eigenvalues + inner_reg
    relaxed = -torch.expm1(-inner_time * eigenvalues)
    return torch.where(ridged == 0, inner_time, relaxed / torch.where(ridged == 0, 1, ridged))
