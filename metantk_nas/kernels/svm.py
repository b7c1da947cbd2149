"""The multi-class support vector machine on any kernel, solved to machine precision and differentiable."""

import torch
from torch import Tensor

N_ITERATIONS = 20
CENTERING = 0.1
LEAST_GAP = 1e-9
TO_THE_BOUNDARY = 0.995


def svm_coefficients(k_ss: Tensor, targets: Tensor, *, penalty: float) -> Tensor:
    """Solve the support vector machine of Crammer & Singer (JMLR 2001) in its dual, and differentiate through it.

    ``min_w ½ Σ_k ‖w_k‖² + C Σ_n max_k (1 − [k = y_n] − (w_{y_n} − w_k)·x_n)₊`` has the dual (MetaOptNet,
    arXiv 1904.03758, equations 7 and 8) ``min_α ½ Σ_k α_kᵀ K α_k − Σ_n α_{n,y_n}`` with ``α ≤ C Y`` and rows of
    sum 0, and ``w_k = Σ_n α_nk x_n``. The slacks ``s = C Y − α`` lie in a simplex a row, which a primal–dual
    interior-point method (Mehrotra's without corrector; OptNet, arXiv 1703.00443) never leaves; its Newton systems
    fall apart into one of support × support a class. The derivative is that of the optimality conditions at the
    solution, so it needs one more such system and no memory of the iterations. Work is done in float64.

    Args:
        k_ss: K, ``[support, support]``, symmetric positive semi-definite.
        targets: Y, one-hot labels ``[support, n_way]``.
        penalty: C > 0.

    Returns:
        ``α [support, n_way]`` in the dtype of ``k_ss``; decision values of a row x are ``K(x, S) α``.
    """
    kernel, bounds = k_ss.double(), penalty * targets.double()
    fixed, labels = kernel.detach(), targets.double()
    slack = torch.full_like(bounds, penalty / bounds.shape[-1])
    dual = torch.ones_like(bounds)
    for _ in range(N_ITERATIONS):
        centre = (CENTERING * (slack * dual).mean()).clamp_min(LEAST_GAP * penalty) / slack
        descent = centre - labels + fixed @ (bounds - slack)
        slack_step = _newton_step(fixed, dual / slack, descent)
        dual_step = centre - dual - dual / slack * slack_step
        length = torch.minimum(_longest_step(slack, slack_step), _longest_step(dual, dual_step))
        slack, dual = slack + length * slack_step, dual + length * dual_step
    alpha = bounds - slack
    moved = _newton_step(fixed, dual / slack, (kernel - fixed) @ alpha)  # zero, but for its derivative
    return (alpha - moved).to(k_ss.dtype)


def _newton_step(kernel: Tensor, weights: Tensor, descent: Tensor) -> Tensor:
    """Solve ``(K + diag(weights_k)) step_k + ν = descent_k`` for steps ``[support, n_way]`` whose rows sum to 0."""
    inverse = torch.linalg.inv(kernel + weights.mT.diag_embed())  # [n_way, support, support]
    free = (inverse @ descent.mT[..., None])[..., 0]
    multiplier = torch.linalg.solve(inverse.sum(0), free.sum(0))
    step: Tensor = free - inverse @ multiplier
    return step.mT


def _longest_step(values: Tensor, step: Tensor) -> Tensor:
    """The longest step, at most 1, that keeps positive values positive."""
    ratio = torch.where(step < 0, -values / step.clamp_max(-torch.finfo(step.dtype).tiny), torch.inf)
    return (TO_THE_BOUNDARY * ratio.min()).clamp_max(1.0)
