"""LR-D2: a logistic regression head by a few Newton steps."""

from dataclasses import dataclass
from math import inf
from typing import final

import torch
from torch import Tensor, nn

from metantk_nas.kernels.smoother import kernel_coefficients
from metantk_nas.learners.base import MetaModel, Parameters, one_hot
from metantk_nas.learners.features import AbstractFeatureLearner, Head, linear_head, positive, positive_parameters


@final
@dataclass(frozen=True)
class LRD2(AbstractFeatureLearner):
    """Logistic regression differentiable discriminator (Bertinetto et al., ICLR 2019, arXiv 1805.08136).

    Each class is told from the others by logistic regression with penalty ``λ/2 ‖w‖²``, fitted by ``inner_steps``
    steps of iteratively reweighted least squares; the class scores go into a softmax, as in the paper's code. λ is
    learnt, in units of the mean squared norm of the features (and a 1 for the bias).

    Args:
        inner_steps: Newton steps.
        initial_reg: λ at the start.
    """

    inner_steps: int = 5
    initial_reg: float = 0.1

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features and λ are meta-learned."""
        return MetaModel(network, positive_parameters(reg=self.initial_reg))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Fit the support set."""
        targets, reg = one_hot(labels, n_way, like=features), positive(parameters, "reg")
        return linear_head(features, lambda k_ss: logistic_coefficients(k_ss, targets, reg, steps=self.inner_steps))


def logistic_coefficients(k_ss: Tensor, targets: Tensor, reg: Tensor | float, *, steps: int) -> Tensor:
    """Fit one binary logistic regression a column, in the dual.

    With ``p = σ(K a)`` and ``S = diag(p(1 − p))`` a Newton step is ``a ← (K + λS⁻¹)⁻¹ (K a + S⁻¹(y − p))``
    (equation 7), solved as ``√S (√S K √S + λI)⁻¹ √S``, which stays well conditioned where S is small.

    Args:
        k_ss: K, ``[support, support]``.
        targets: y, 0 or 1, ``[support, column]``.
        reg: λ > 0, in units of ``k_ss``.
        steps: Newton steps from a = 0.

    Returns:
        a, ``[support, column]``.
    """
    coefficients = torch.zeros_like(targets)
    for _ in range(steps):
        decisions = k_ss @ coefficients
        probabilities = decisions.sigmoid()
        roots = (probabilities * (1 - probabilities)).sqrt()
        working = (roots * decisions + (targets - probabilities) / roots).mT[..., None]
        weighted = roots.mT[:, :, None] * k_ss * roots.mT[:, None, :]  # [column, support, support]
        solved = kernel_coefficients(weighted, working, inner_time=inf, inner_reg=reg)
        coefficients = roots * solved[..., 0].mT
    return coefficients
