"""Alpha MAML: MAML that adapts its own two learning rates as it goes."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from metantk_nas.learners.base import MetaModel, Parameters
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend, fit_loss, flatten, weights

PROBE = "extra.probe"
DECAY = 0.9
"""Of the running mean of squared hypergradients, from one outer step to the next."""


@final
@dataclass(frozen=True)
class AlphaMaml(AbstractInnerLoop):
    """Alpha MAML (Behl, Baydin & Torr, AutoML workshop at ICML 2019, arXiv 1905.07435).

    MAML whose rates follow their hypergradients from outer step to outer step. For α it is ``∂L_Q/∂α``, after one
    inner step ``−∇L_Q(θ_i)·∇L_S(θ)``; for β it is ``−∇_j·∇_{j−1}``, the product of this step's and the last step's
    meta-gradient. The paper adds ``h`` times these, h ~ 1e-5 on Omniglot; how much that is depends on the size of
    gradients, and so on architecture and loss. Here both take the multiplicative form of hypergradient descent
    (Baydin et al., ICLR 2018, arXiv 1703.04782) with a hypergradient that has no unit, so that a step changes a rate
    by a share of at most ``h``: ``β ← β (1 + h cos(∇_j, ∇_{j−1}))``, and ``α ← α (1 − h clip(g/√v, ±1))`` with
    ``g = ∂L_Q/∂α`` and v the running mean of g². The outer loop's schedule applies on top of β.

    The probe is a parameter that is always zero and is added to α: its gradient is ``∂L_Q/∂α``.

    Args:
        first_order: drop second derivatives in θ.
        inner_lr: α at the start.
        inner_hyper_lr: h of α.
        outer_hyper_lr: h of β.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes; α is adapted to ``inner_steps`` of them.
    """

    first_order: bool = False
    inner_lr: float = 0.1
    inner_hyper_lr: float = 0.05
    outer_hyper_lr: float = 0.02
    inner_steps: int = 1
    inner_steps_test: int = 1

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights are meta-learned and adapted; rates and the last meta-gradient are remembered."""
        extra = nn.ParameterDict({"probe": torch.zeros(())})
        n_weights = sum(parameter.numel() for parameter in network.parameters())
        extra.register_buffer("inner_lr", torch.tensor(self.inner_lr))
        extra.register_buffer("mean_square", torch.zeros(()))
        extra.register_buffer("outer_factor", torch.tensor(1.0))
        extra.register_buffer("last_gradient", torch.zeros(n_weights))
        return MetaModel(network, extra)

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend at the rate that has been found so far."""
        extra: Any = model.extra
        lr = extra.inner_lr + parameters[PROBE]
        loss = fit_loss(model, images, labels)
        return descend(loss, weights(parameters), lr=lr, steps=steps, first_order=self.first_order)

    def lr_factor(self, model: MetaModel) -> float:
        """Return β over its first value."""
        extra: Any = model.extra
        return float(extra.outer_factor)

    @torch.no_grad()
    def after_step(self, model: MetaModel, gradients: Parameters) -> None:
        """Move both rates against their hypergradients."""
        extra: Any = model.extra
        gradient = flatten(weights(gradients))
        agreement = cosine_similarity(gradient, extra.last_gradient, dim=0)  # 0 at the first step
        extra.outer_factor.mul_(1 + self.outer_hyper_lr * agreement)
        square = gradients[PROBE] ** 2
        extra.mean_square.copy_(torch.where(extra.mean_square > 0, extra.mean_square.lerp(square, 1 - DECAY), square))
        size = extra.mean_square.sqrt().clamp_min(torch.finfo(square.dtype).tiny)
        extra.inner_lr.mul_(1 - self.inner_hyper_lr * (gradients[PROBE] / size).clamp(-1, 1))
        extra.last_gradient.copy_(gradient)
        extra.probe.zero_()
