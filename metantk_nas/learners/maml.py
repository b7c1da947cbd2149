"""MAML: learn weights from which a few gradient steps solve a new task."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from metantk_nas.learners.base import MetaModel, Parameters
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend, fit_loss


@final
@dataclass(frozen=True)
class Maml(AbstractInnerLoop):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine, ICML 2017, arXiv 1703.03400).

    ``θ_i = θ − α ∇L_S(θ)``, repeated; the outer loop minimises ``L_Q(θ_i)``. Usual settings: α = 0.4, 1 step
    for grey characters; α = 0.01, 5 steps (10 at test) for natural images. Without second derivatives one step says
    little of what the next would do, so ``fomaml`` starts from α = 0.1 and 5 steps (Conv-4 on Omniglot after two
    minutes of one core: 80 instead of 69 %).

    Args:
        first_order: drop second derivatives (FOMAML, registered as ``fomaml``).
        inner_lr: α.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    first_order: bool = False
    inner_lr: float = 0.4
    inner_steps: int = 1
    inner_steps_test: int = 3

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend from ``parameters``."""
        loss = fit_loss(model, images, labels)
        return descend(loss, parameters, lr=self.inner_lr, steps=steps, first_order=self.first_order)
