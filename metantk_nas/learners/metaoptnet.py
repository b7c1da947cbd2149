"""MetaOptNet: a convex head, solved exactly and differentiated through its optimality conditions."""

from dataclasses import dataclass
from math import inf
from typing import Literal, final

from torch import Tensor, nn

from metantk_nas.errors import unknown_name
from metantk_nas.kernels.smoother import kernel_coefficients
from metantk_nas.kernels.svm import svm_coefficients
from metantk_nas.learners.base import MetaModel, Parameters, one_hot
from metantk_nas.learners.features import (
    INITIAL_SCALE,
    AbstractFeatureLearner,
    Head,
    linear_head,
    logit_scale,
    positive_parameters,
)

CONVEX_HEADS = ("svm", "ridge")


@final
@dataclass(frozen=True)
class MetaOptNet(AbstractFeatureLearner):
    """Meta-learning with differentiable convex optimisation (Lee et al., CVPR 2019, arXiv 1904.03758).

    The head is the multi-class support vector machine of Crammer & Singer (`metantk_nas.kernels.svm`), or ridge
    regression; unlike R2-D2 its regulariser is fixed. Logits are its decision values times a learnt scale. C and λ
    are in units of the mean squared norm of the features (and a 1 for the bias), which the paper's are not: there
    C = 0.1 and λ = 50 for features of a ResNet-12.

    Args:
        convex_head: ``"svm"`` or ``"ridge"``.
        penalty: C of the support vector machine.
        inner_reg: λ of ridge regression.
    """

    convex_head: Literal["svm", "ridge"] = "svm"
    penalty: float = 10.0
    inner_reg: float = 0.1

    def __post_init__(self) -> None:
        if self.convex_head not in CONVEX_HEADS:
            raise unknown_name("convex head", self.convex_head, CONVEX_HEADS)

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features and the scale are meta-learned."""
        return MetaModel(network, positive_parameters(scale=INITIAL_SCALE))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Solve the convex problem of the support set."""
        targets = one_hot(labels, n_way, like=features)

        def solve(k_ss: Tensor) -> Tensor:
            if self.convex_head == "svm":
                return svm_coefficients(k_ss, targets, penalty=self.penalty)
            return kernel_coefficients(k_ss, targets, inner_time=inf, inner_reg=self.inner_reg)

        return linear_head(features, solve, logit_scale(parameters, labels))
