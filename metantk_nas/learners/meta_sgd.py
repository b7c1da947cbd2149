"""Meta-SGD: MAML that learns how far to step in each weight."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from metantk_nas.learners.base import MetaModel, Parameters
from metantk_nas.learners.inner_loop import (
    AbstractInnerLoop,
    descend,
    fit_loss,
    unflatten,
    weights,
)

INNER_LR = "extra.inner_lr"


@final
@dataclass(frozen=True)
class MetaSgd(AbstractInnerLoop):
    """Meta-SGD (Li, Zhou, Chen & Li 2017, arXiv 1707.09835).

    ``θ_i = θ − α ∘ ∇L_S(θ)``; the outer loop minimises ``L_Q(θ_i)`` in ``θ`` and in ``α``, which has an entry for
    each weight and may become negative. The paper draws the first α from U(0.005, 0.1) and takes one step; here all
    entries start alike, at ``inner_lr``, where Meta-SGD is MAML.

    Args:
        inner_lr: first value of every entry of α.
        inner_steps: steps while training.
        inner_steps_test: steps when adapting to new classes; α is learnt for ``inner_steps`` of them.
    """

    inner_lr: float = 0.1
    inner_steps: int = 1
    inner_steps_test: int = 1

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights are meta-learned and adapted; α is meta-learned."""
        n_weights = sum(parameter.numel() for parameter in network.parameters())
        return MetaModel(network, nn.ParameterDict({"inner_lr": torch.full((n_weights,), self.inner_lr)}))

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend at the learnt rates."""
        start = weights(parameters)
        return descend(
            fit_loss(model, images, labels), start, lr=unflatten(parameters[INNER_LR], like=start), steps=steps
        )
