"""iMAML: the meta-gradient from where the inner loop ends, not from how it got there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.func import grad, vjp

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import EpisodeLoss, MetaModel, Parameters
from metantk_nas.learners.inner_loop import (
    AbstractInnerLoop,
    Loss,
    descend,
    detached,
    fit_loss,
    flatten,
    query_loss,
    unflatten,
    weights,
    zero_with_gradient,
)


@final
@dataclass(frozen=True)
class Imaml(AbstractInnerLoop):
    """Meta-learning with implicit gradients (Rajeswaran, Finn, Kakade & Levine, NeurIPS 2019, arXiv 1909.04630).

    The inner problem is ``φ* = argmin L_S(φ) + λ/2 ‖φ − θ‖²``, solved by gradient descent from θ; nothing of the way
    is kept. The meta-gradient (equation 6) is ``(I + ∇²L_S(φ*)/λ)⁻¹ ∇L_Q(φ*)``, by a few steps of conjugate
    gradients. It is exact where φ* and the system are solved exactly. The Hessian of a network need not be positive:
    conjugate gradients then stop at the first direction of non-positive curvature, and the plain ``∇L_Q(φ*)`` is
    where they start from, so it is the least that comes out. Where the curvature is nearly −λ the system is nearly
    singular, and a few steps from its solution lies a multiple of the gradient in no good direction; so the system
    alone, not the inner problem, has λ + δ for λ. The paper has λ = 2 and 16 to 25 steps on Omniglot, the authors'
    code δ = 10.

    Args:
        inner_reg: λ of the proximal term.
        inner_lr: rate of the inner descent; less than ``2 / (λ + largest curvature)``, which is 30 to 60 for Conv-4
            that begins to learn from five images.
        inner_steps: steps of the inner descent while training.
        inner_steps_test: steps when adapting to new classes.
        cg_steps: steps of conjugate gradients.
        cg_damping: δ. With 0 the meta-gradient is the paper's where all is solved exactly.
    """

    inner_reg: float = 2.0
    inner_lr: float = 0.05
    inner_steps: int = 16
    inner_steps_test: int = 16
    cg_steps: int = 5
    cg_damping: float = 10.0

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the loss of the query set at φ*; its gradient is the implicit one."""
        images, labels = episode.support_images, episode.support_labels
        found = self.adapted(model, parameters, images, labels, steps=self.inner_steps)

        def judged(fast: Parameters) -> tuple[Tensor, EpisodeLoss]:
            outcome = query_loss(model, fast, episode)
            return outcome.loss, outcome

        direct, outcome = grad(judged, has_aux=True)(dict(found))
        implicit = self._implicit(fit_loss(model, images, labels), found, direct)
        return EpisodeLoss(outcome.loss + zero_with_gradient(implicit, parameters), outcome.logits)

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend on the support loss and the proximal term; the result is a constant."""
        start = detached(weights(parameters))
        loss = fit_loss(model, images, labels)

        def proximal(fast: Parameters) -> Tensor:
            distance = flatten(fast) - flatten(start)
            return loss(fast) + self.inner_reg / 2 * distance.square().sum()

        return descend(proximal, start, lr=self.inner_lr, steps=steps)

    def _implicit(self, loss: Loss, found: Parameters, direct: Parameters) -> Parameters:
        curvature = vjp(grad(loss), dict(found))[1]  # of vectors with the Hessian, which is symmetric

        def operator(vector: Tensor) -> Tensor:
            (product,) = curvature(unflatten(vector, like=found))
            return vector + flatten(product) / (self.inner_reg + self.cg_damping)

        return unflatten(conjugate_gradient(operator, flatten(direct), steps=self.cg_steps), like=found)


def conjugate_gradient(operator: Callable[[Tensor], Tensor], target: Tensor, *, steps: int) -> Tensor:
    """Solve ``A x = b`` roughly, from ``x = b`` on, as long as A looks positive definite.

    Args:
        operator: ``v ↦ A v``, A symmetric.
        target: b, ``[n]``.
        steps: at most so many; fewer where a direction ``p`` has ``pᵀA p ≤ 0``, or nothing is left to do.
    """
    solution = target
    residual = direction = target - operator(target)
    going = torch.ones((), dtype=torch.bool, device=target.device)
    for _ in range(steps):
        image = operator(direction)
        curvature, squared = direction @ image, residual @ residual
        going = going & (curvature > 0)
        length = torch.where(going, squared / torch.where(going, curvature, 1), 0)
        solution = solution + length * direction
        residual = residual - length * image
        direction = residual + residual @ residual / torch.where(squared > 0, squared, 1) * direction
    return solution
