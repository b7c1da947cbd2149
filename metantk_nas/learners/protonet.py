"""ProtoNet: the nearest class mean in a learnt feature space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from metantk_nas.learners.base import MetaModel, Parameters, one_hot
from metantk_nas.learners.features import (
    INITIAL_SCALE,
    AbstractFeatureLearner,
    Head,
    positive,
    positive_parameters,
)


@final
@dataclass(frozen=True)
class ProtoNet(AbstractFeatureLearner):
    """Prototypical networks (Snell, Swersky & Zemel, NeurIPS 2017, arXiv 1703.05175).

    ``c_k`` is the mean feature of class ``k``'s support images; logits are ``−‖φ(x) − c_k‖²``. There is no inner
    loop and no head, so any number of classes will do; training on more classes than the test has helps.

    Distances grow with the number of features and with their size, which differ by orders of magnitude between
    architectures: plain logits of a wide cell network start so far apart that nothing is learnt (few-shot DARTS on
    CIFAR-FS: a loss of 100), those of a narrow one so close that learning is slow. So they are measured in units of
    the mean squared distance between the episode's class means, and multiplied by a learnt scale (metric scaling,
    Oreshkin, Rodríguez López & Lacoste, NeurIPS 2018, arXiv 1805.10123).

    Args:
        learn_scale: learn the scale; without it the logits are the paper's.
    """

    learn_scale: bool = True

    train_defaults: ClassVar[Mapping[str, Any]] = {"meta_batch_size": 1, "train_budget": 1000}

    def make_model(self, network: nn.Module) -> MetaModel:
        """The features and the scale are meta-learned; the head is not used."""
        if not self.learn_scale:
            return MetaModel(network)
        return MetaModel(network, positive_parameters(scale=INITIAL_SCALE))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Compute the class means."""
        prototypes = class_means(features, labels, n_way)
        scale = positive(parameters, "scale") / mean_squared_distance(prototypes) if self.learn_scale else 1.0
        return lambda query: scale * prototype_logits(prototypes, query)


def class_means(support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
    """Mean feature of each class, the prototypes.

    Args:
        support: features ``[support, feature]``.
        support_labels: int64 ``[support]``.
        n_way: number of classes, each with at least one support row.

    Returns:
        ``[n_way, feature]``.
    """
    members = one_hot(support_labels, n_way, like=support)
    return (members.mT @ support) / members.sum(0)[:, None]


def prototype_logits(prototypes: Tensor, query: Tensor) -> Tensor:
    """Negative squared Euclidean distances ``[query, n_way]`` of features to class means."""
    return -(query[:, None] - prototypes).square().sum(-1)


def mean_squared_distance(points: Tensor) -> Tensor:
    """Mean of ``‖a − b‖²`` over the pairs of two or more rows; a tiny positive number if all coincide."""
    n = len(points)
    pairs = 2 * n * (points - points.mean(0)).square().sum()
    return (pairs / (n * (n - 1))).clamp_min(torch.finfo(points.dtype).tiny)
