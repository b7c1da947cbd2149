"""Few-iteration meta-learning: a linear head by steepest descent with closed-form step lengths."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from metantk_nas.learners.base import MetaModel, Parameters, target_rows
from metantk_nas.learners.features import (
    INITIAL_REG,
    INITIAL_SCALE,
    AbstractFeatureLearner,
    Head,
    linear_head,
    logit_scale,
    positive,
    positive_parameters,
)


@final
@dataclass(frozen=True)
class SteepestDescent(AbstractFeatureLearner):
    """Few-shot classification by few-iteration meta-learning (Tripathi et al., 2020, arXiv 2010.00390).

    The head minimises a learnt objective by a few steps of steepest descent, each of the length that is best along
    the gradient g, ``⟨g, g⟩ / ⟨g, H g⟩``. Of the paper's objective the ridge regression part is kept,
    ``½ ‖Z W − Y‖² + λ/2 ‖W‖²`` with learnt λ; its learnt spatial weights and margins are for maps of features. It
    starts from W = 0, so that the first step arrives at scaled class sums, the paper's initial head.

    Args:
        inner_steps: steps.
    """

    inner_steps: int = 5

    regresses: ClassVar[bool] = True

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features, λ and the scale of the logits are meta-learned."""
        return MetaModel(network, positive_parameters(reg=INITIAL_REG, scale=INITIAL_SCALE))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Descend from zero."""
        targets = target_rows(labels, n_way, like=features)
        reg = positive(parameters, "reg")
        return linear_head(
            features,
            lambda k_ss: steepest_coefficients(k_ss, targets, reg, steps=self.inner_steps),
            logit_scale(parameters, labels),
        )


def steepest_coefficients(k_ss: Tensor, targets: Tensor, reg: Tensor | float, *, steps: int) -> Tensor:
    """Take steps of steepest descent on the ridge objective, written in a of ``W = Zᵀ a``.

    With ``r = (K + λI) a − Y`` the gradient is ``Zᵀ r``, its square ``⟨r, K r⟩``, and along it the objective curves
    by ``‖K r‖² + λ ⟨r, K r⟩``.

    Args:
        k_ss: K = Z Zᵀ, ``[support, support]``.
        targets: Y, ``[support, output]``.
        reg: λ, in units of ``k_ss``.
        steps: steps from a = 0.

    Returns:
        a, ``[support, output]``.
    """
    coefficients = torch.zeros_like(targets)
    for _ in range(steps):
        residual = k_ss @ coefficients + reg * coefficients - targets
        reached = k_ss @ residual
        slope = (residual * reached).sum()
        curvature = reached.square().sum() + reg * slope
        length = slope / curvature.clamp_min(torch.finfo(curvature.dtype).tiny)  # at the minimum both are zero
        coefficients = coefficients - length * residual
    return coefficients
