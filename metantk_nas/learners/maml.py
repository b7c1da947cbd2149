"""MAML: learn weights from which a few gradient steps solve a new task."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import (
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Parameters,
    Predictor,
    check_head,
    outputs,
    task_loss,
)
from metantk_nas.learners.inner_loop import descend
from metantk_nas.networks.norms import NormKind


@final
@dataclass(frozen=True)
class Maml(AbstractLearner):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine, ICML 2017, arXiv 1703.03400).

    ``θ_i = θ − α ∇L_S(θ)``, repeated; the outer loop minimises ``L_Q(θ_i)``. Usual settings: α = 0.4, 1 step
    for grey characters; α = 0.01, 5 steps (10 at test) for natural images.

    Args:
        first_order: drop second derivatives (FOMAML).
        inner_lr: α.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    first_order: bool = False
    inner_lr: float = 0.4
    inner_steps: int = 1
    inner_steps_test: int = 3

    regresses: ClassVar[bool] = True

    @property
    def norm(self) -> NormKind:
        """Statistics of the images at hand, as in the code of the paper: transductive."""
        return "batch_stats"

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights of the network are meta-learned and adapted."""
        return MetaModel(network)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of the query set after ``inner_steps`` steps on the support set."""
        adapted = self._adapted(
            model, parameters, episode.support_images, episode.support_labels, steps=self.inner_steps
        )
        logits = outputs(model, adapted, episode.query_images).logits
        return EpisodeLoss(task_loss(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Take ``inner_steps_test`` steps on the support set; ``n_way`` is what the head was built for."""
        check_head(model, n_way)
        adapted = self._adapted(model, parameters, support_images, support_labels, steps=self.inner_steps_test)
        return lambda query_images: outputs(model, adapted, query_images).logits

    def _adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        def support_loss(fast: Parameters) -> Tensor:
            return task_loss(outputs(model, fast, images).logits, labels)

        return descend(support_loss, parameters, lr=self.inner_lr, steps=steps, first_order=self.first_order)
