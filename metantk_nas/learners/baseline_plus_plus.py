"""Baseline++: ordinary classification by cosines, and a cosine head fitted to new classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import (
    HEAD_WEIGHT,
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Parameters,
    Predictor,
    outputs,
)
from metantk_nas.learners.inner_loop import descend
from metantk_nas.learners.protonet import class_means
from metantk_nas.learners.rfs import Rfs
from metantk_nas.networks.norms import NormKind


@final
@dataclass(frozen=True)
class BaselinePlusPlus(AbstractLearner):
    """A closer look at few-shot classification (Chen et al., ICLR 2019, arXiv 1904.04232).

    The network learns to tell all base classes apart by ``γ cos(φ(x), w_k)``. For an episode, a new cosine head is
    fitted to the frozen features of the support set. The paper draws that head at random and takes 100 steps on
    random batches of 4; here it starts from the class means and steps see the whole support set, so that equal
    support sets give equal predictions. The outer loop is that of `Rfs`; the paper's is Adam at a rate of 1e-3.

    Args:
        scale: γ; the paper has 2 for up to 200 base classes, and 10 for more.
        inner_lr: learning rate of the new head, whose rows start at unit length.
        inner_steps_test: gradient steps of the new head.
    """

    scale: float = 10.0
    inner_lr: float = 0.1
    inner_steps_test: int = 100

    trains_on: ClassVar[Literal["episodes", "images"]] = "images"
    head: ClassVar[Literal["way", "base_classes", "unused"]] = "base_classes"
    train_defaults: ClassVar[Mapping[str, Any]] = Rfs.train_defaults

    @property
    def norm(self) -> NormKind:
        """Running statistics: features are frozen after training."""
        return "batch"

    def make_model(self, network: nn.Module) -> MetaModel:
        """The network is learnt with one output a base class, without bias; episodes use its features only."""
        head: Any = network.head
        head.bias = None
        return MetaModel(network)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of a batch of base-class images, given as the episode's query set."""
        features = outputs(model, parameters, episode.query_images).features
        logits = self.scale * cosines(features, parameters[HEAD_WEIGHT])
        return EpisodeLoss(cross_entropy(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Fit a new head to the support set."""
        features = outputs(model, parameters, support_images).features

        def loss(head: Parameters) -> Tensor:
            return cross_entropy(self.scale * cosines(features, head[HEAD_WEIGHT]), support_labels)

        start = {HEAD_WEIGHT: normalize(class_means(normalize(features), support_labels, n_way))}
        fitted = descend(loss, start, lr=self.inner_lr, steps=self.inner_steps_test)[HEAD_WEIGHT]
        return lambda query_images: self.scale * cosines(outputs(model, parameters, query_images).features, fitted)


def cosines(features: Tensor, head: Tensor) -> Tensor:
    """``cos(φ(x), w_k)``: from features ``[row, feature]`` and weights ``[n_way, feature]`` to ``[row, n_way]``."""
    return normalize(features) @ normalize(head).mT
