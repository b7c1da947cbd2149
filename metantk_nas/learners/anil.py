"""ANIL: MAML whose inner loop touches the head only."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn.functional import linear

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import (
    HEAD_BIAS,
    HEAD_WEIGHT,
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
class Anil(AbstractLearner):
    """Almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020, arXiv 1909.09157).

    Features ``φ_θ`` are computed once; only the head ``W`` adapts, ``W_i = W − α ∇_W L_S``. The outer loop learns
    ``θ`` and the initial ``W`` through the inner loop, second derivatives included.

    Args:
        inner_lr: α.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    inner_lr: float = 0.1
    inner_steps: int = 5
    inner_steps_test: int = 10

    regresses: ClassVar[bool] = True

    @property
    def norm(self) -> NormKind:
        """Statistics of the images at hand, as MAML: transductive."""
        return "batch_stats"

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights of the network are meta-learned; those of the head are adapted."""
        return MetaModel(network)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of the query set after ``inner_steps`` steps of the head."""
        support = outputs(model, parameters, episode.support_images).features
        query = outputs(model, parameters, episode.query_images).features
        head = self._adapted_head(parameters, support, episode.support_labels, steps=self.inner_steps)
        logits = linear(query, head[HEAD_WEIGHT], head[HEAD_BIAS])
        return EpisodeLoss(task_loss(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Take ``inner_steps_test`` steps of the head; ``n_way`` is what the head was built for."""
        check_head(model, n_way)
        support = outputs(model, parameters, support_images).features
        adapted = {**parameters, **self._adapted_head(parameters, support, support_labels, steps=self.inner_steps_test)}
        return lambda query_images: outputs(model, adapted, query_images).logits

    def _adapted_head(self, parameters: Parameters, features: Tensor, labels: Tensor, *, steps: int) -> Parameters:
        def support_loss(head: Parameters) -> Tensor:
            return task_loss(linear(features, head[HEAD_WEIGHT], head[HEAD_BIAS]), labels)

        head = {name: parameters[name] for name in (HEAD_WEIGHT, HEAD_BIAS)}
        return descend(support_loss, head, lr=self.inner_lr, steps=steps)
