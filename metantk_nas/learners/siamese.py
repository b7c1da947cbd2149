"""Siamese network: are two images of one class?"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import AbstractLearner, EpisodeLoss, MetaModel, Parameters, Predictor, one_hot, outputs
from metantk_nas.learners.features import episode_features
from metantk_nas.learners.protonet import class_means, mean_squared_distance
from metantk_nas.networks.norms import NormKind

IMPORTANCE, BIAS = "extra.importance", "extra.bias"
INITIAL_IMPORTANCE, INITIAL_BIAS = 5.0, 2.0


@final
@dataclass(frozen=True)
class Siamese(AbstractLearner):
    """Siamese neural networks (Koch, Zemel & Salakhutdinov, ICML deep learning workshop 2015).

    ``p = σ(b − Σ_j α_j |f_j(x) − f_j(x')|)`` is how likely two images are of one class; f, α and b are trained by
    cross-entropy on all pairs of a query and a support image of an episode, in which pairs of one class weigh as
    much as all others together (the paper draws as many of either). A query image belongs to the class with the
    highest mean score, which for one shot is the paper's rule. There is no arXiv version of the paper.
    """

    head: ClassVar[Literal["way", "base_classes", "unused"]] = "unused"

    @property
    def norm(self) -> NormKind:
        """Running statistics: predictions do not depend on the images beside an image."""
        return "batch"

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features, α and b are meta-learned; all features start equally important."""
        n_features: Any = network.n_features
        importance = torch.full((n_features,), INITIAL_IMPORTANCE / math.sqrt(n_features))
        return MetaModel(network, nn.ParameterDict({"importance": importance, "bias": torch.tensor(INITIAL_BIAS)}))

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of the pairs; support and query share one pass."""
        support, query = episode_features(model, parameters, episode)
        scores = pair_scores(parameters, query, support, episode.support_labels, episode.n_way)
        alike = (episode.query_labels[:, None] == episode.support_labels).to(scores.dtype)
        loss = binary_cross_entropy_with_logits(scores, alike, pos_weight=scores.new_tensor(episode.n_way - 1))
        return EpisodeLoss(loss, class_scores(scores, episode.support_labels, episode.n_way))

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Remember the support features."""
        support = outputs(model, parameters, support_images).features

        def predict(query_images: Tensor) -> Tensor:
            query = outputs(model, parameters, query_images).features
            scores = pair_scores(parameters, query, support, support_labels, n_way)
            return class_scores(scores, support_labels, n_way)

        return predict


def pair_scores(parameters: Parameters, query: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Compare features ``[query, feature]`` and ``[support, feature]``: logits ``[query, support]``."""
    unit = mean_squared_distance(class_means(support, labels, n_way)).sqrt()
    return parameters[BIAS] - (query[:, None] - support).abs() @ parameters[IMPORTANCE] / unit


def class_scores(scores: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
    """Mean pair score ``[query, n_way]`` of each class."""
    members = one_hot(support_labels, n_way, like=scores)
    return scores @ members / members.sum(0)
