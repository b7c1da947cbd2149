"""Meta-RKHS-I: weights from which one gradient step goes far, learnt without taking it."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import EpisodeLoss, MetaModel, Parameters, outputs, task_loss
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend, fit_loss, flatten


@final
@dataclass(frozen=True)
class MetaRkhs1(AbstractInnerLoop):
    """Meta-learning with neural tangent kernels, first method (Zhou et al., ICLR 2021, arXiv 2102.03909).

    The outer loop minimises ``L_m − α ‖∇L_m‖²``, the first-order expansion of MAML's ``L_m(θ − α ∇L_m)``, and takes
    no inner step while training; new tasks do. Support and query set are two samples of task m, so ``‖∇L_m‖²`` is
    estimated by ``⟨∇L_S, ∇L_Q⟩`` and L_m by L_Q. The square of one sample's gradient would mostly reward long
    gradients, not ones that carry over to other images (measured: after 300 episodes of coarse patterns 76 % against
    88 %, from 64 %).

    The expansion promises any decrease to a network whose gradients are long enough, and they grow without end. So the
    energy is ``L_Q (1 − p/2L_Q)²`` with ``p = α ⟨∇L_S, ∇L_Q⟩``: the same to first order in α, never negative, and least
    at ``p = 2L_Q``. It is what one step makes of the squared error of a model that is linear in its weights, where all
    eigenvalues of the kernel are the same. Logits of training episodes are those of the network as it is, so the
    training accuracy in the curve stays at chance.

    It learns classes only. Gradients grow faster than what a step really gains, for a network bends: after 1,200 sine
    waves the energy had fallen from 3.9 to 2.7, and the error after a step had risen from 4.2 to 4.7. So has Conv-4 on
    Omniglot 53 % after two minutes, and no more later (with an energy that only was not negative it fell to 30 %).

    Args:
        inner_lr: α, and the learning rate on new tasks.
        inner_steps_test: gradient steps when adapting to new classes.
        bounded: whether the energy is bounded as above; otherwise it is the paper's.
    """

    inner_lr: float = 0.1
    inner_steps_test: int = 5
    bounded: bool = True

    regresses: ClassVar[bool] = False

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the energy."""

        def query_loss(parameters: Parameters) -> tuple[Tensor, Tensor]:
            logits = outputs(model, parameters, episode.query_images).logits
            return task_loss(logits, episode.query_labels), logits

        support_gradient = grad(fit_loss(model, episode.support_images, episode.support_labels))(dict(parameters))
        query_gradient, (loss, logits) = grad_and_value(query_loss, has_aux=True)(dict(parameters))
        promise = self.inner_lr * (flatten(support_gradient) * flatten(query_gradient)).sum()
        if not self.bounded:
            return EpisodeLoss(loss - promise, logits)
        share = promise / loss.clamp_min(torch.finfo(loss.dtype).eps)
        return EpisodeLoss(loss * (1 - share / 2).square(), logits)

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend from ``parameters``, as MAML does."""
        return descend(fit_loss(model, images, labels), parameters, lr=self.inner_lr, steps=steps)
