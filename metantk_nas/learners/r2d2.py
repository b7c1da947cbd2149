"""R2-D2: a ridge regression head in closed form."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar, final

from torch import Tensor, nn

from metantk_nas.kernels.smoother import kernel_coefficients
from metantk_nas.learners.base import MetaModel, Parameters, target_rows
from metantk_nas.learners.features import (
    AbstractFeatureLearner,
    Head,
    linear_head,
    logit_scale,
    positive,
    positive_parameters,
)


@final
@dataclass(frozen=True)
class R2D2(AbstractFeatureLearner):
    """Ridge regression differentiable discriminator (Bertinetto et al., ICLR 2019, arXiv 1805.08136).

    ``W = Zᵀ(ZZᵀ + λI)⁻¹Y`` (equation 4, by Woodbury's identity) with one-hot Y; logits are ``γ Q W``. λ and γ are
    learnt. The bias is a column of ones in Z, as in the paper's code; the paper's second one, the same number added
    to all logits, is left out, since a softmax does not see it. λ counts in units of the mean diagonal of ``ZZᵀ``.

    Args:
        initial_reg: λ at the start.
        initial_scale: γ at the start; real predictions are not scaled.
    """

    initial_reg: float = 0.1
    initial_scale: float = 10.0

    regresses: ClassVar[bool] = True

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features, λ and γ are meta-learned."""
        return MetaModel(network, positive_parameters(reg=self.initial_reg, scale=self.initial_scale))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Solve the ridge regression of the support set."""
        targets = target_rows(labels, n_way, like=features)
        reg = positive(parameters, "reg")
        return linear_head(
            features,
            lambda k_ss: kernel_coefficients(k_ss, targets, inner_time=inf, inner_reg=reg),
            logit_scale(parameters, labels),
        )
