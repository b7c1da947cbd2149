"""MOML: MAML with a memory of adapted weights."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import EpisodeLoss, MetaModel, Parameters
from metantk_nas.learners.inner_loop import (
    AbstractInnerLoop,
    descend,
    fit_loss,
    flatten,
    query_loss,
    unflatten,
    weights,
    zero_with_gradient,
)

REPORT = "extra.report"


@final
@dataclass(frozen=True)
class Moml(AbstractInnerLoop):
    """Memory-based MAML (Wang, Yuan, Ying & Yang, JMLR 2023, arXiv 2106.04911).

    The paper has finitely many tasks, which come back (in its experiments, fixed groups of classes). Each keeps a
    memory ``u_i ← (1 − b) u_i + b (θ − α ∇L_S(θ))`` of its adapted weights, whose noise falls from visit to visit;
    the outer loop minimises ``L_Q(u_i)`` in θ, through the newest term, as in the authors' code.

    Episodes that are drawn afresh do not come back, so there are no tasks in this sense, and a memory of each would
    never be read again. Here the one task is the distribution of episodes: one memory, which all episodes of a step
    read, and whose newest term is the mean of their adapted weights. What the memory remembers is then the typical
    adaptation, not this episode's; ``b`` says how much of an episode's own adaptation counts while training, and
    b = 1 is MAML. New classes are adapted to as in MAML, without the memory.

    The report is a parameter that is always zero: its gradient tells `after_step` how far memory and adapted weights
    are apart.

    Args:
        memory_rate: b.
        inner_lr: α.
        inner_steps: gradient steps while training; the paper takes one.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    memory_rate: float = 0.9
    inner_lr: float = 0.4
    inner_steps: int = 1
    inner_steps_test: int = 3

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights are meta-learned and adapted; the memory starts at the first weights."""
        first = flatten({name: value.detach() for name, value in network.named_parameters()})
        extra = nn.ParameterDict({"report": torch.zeros_like(first)})
        extra.register_buffer("memory", first.clone())
        return MetaModel(network, extra)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the loss of the query set at the mean of memory and adapted weights."""
        adapted = self.adapted(
            model, parameters, episode.support_images, episode.support_labels, steps=self.inner_steps
        )
        extra: Any = model.extra
        apart = unflatten(extra.memory, like=adapted)
        mixed = {name: torch.lerp(apart[name], value, self.memory_rate) for name, value in adapted.items()}
        loss, logits = query_loss(model, mixed, episode)
        told = {REPORT: extra.memory - flatten(adapted)}
        return EpisodeLoss(loss + zero_with_gradient(told, parameters), logits)

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend from θ, as MAML."""
        return descend(fit_loss(model, images, labels), weights(parameters), lr=self.inner_lr, steps=steps)

    @torch.no_grad()
    def after_step(self, model: MetaModel, gradients: Parameters) -> None:
        """Move the memory towards the mean adapted weights of the step."""
        extra: Any = model.extra
        extra.memory.sub_(self.memory_rate * gradients[REPORT])
        extra.report.zero_()
