"""What a program computes: features of images, or the classes of query images given labelled ones."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metantk_nas.export.straight import straighten
from metantk_nas.export.subject import Subject
from metantk_nas.learners.base import bind
from metantk_nas.learners.saved import TrainedLearner


class Normalise(nn.Module):
    """Normalises images in [0, 1] as the training images were.

    Args:
        mean: per channel, what is subtracted.
        std: per channel, what is then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images ``[row, channel, height, width]``."""
        return (images - self.mean) / self.std


class Features(nn.Module):
    """Features of images; those of a trained network take images in [0, 1].

    Args:
        subject: the network.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.normalise = _normalisation(subject.trained)
        self.network = straighten(subject.network, subject.genotype)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features ``[row, n_features]`` of images ``[row, channel, height, width]``."""
        network: Any = self.network
        features: Tensor = network.features(self.normalise(images))
        return features


class FewShotPredictor(nn.Module):
    """The whole of a trained learner: labelled images and others in [0, 1] in, logits out.

    Args:
        subject: the network with its learner.
        trained: that learner.
        n_way: number of classes.
    """

    def __init__(self, subject: Subject, trained: TrainedLearner, n_way: int) -> None:
        super().__init__()
        self.normalise = _normalisation(trained)
        self.model = copy.deepcopy(trained.model)
        self.model.network = straighten(self.model.network, subject.genotype)
        self.learner, self.n_way = trained.learner, n_way

    def forward(self, support_images: Tensor, support_labels: Tensor, query_images: Tensor) -> Tensor:
        """Compute logits ``[query, n_way]``.

        Args:
            support_images: ``[support, channel, height, width]``.
            support_labels: int64 ``[support]``, from 0 to ``n_way - 1``, each at least once.
            query_images: ``[query, channel, height, width]``.
        """
        adapt = bind(self.learner, self.model)
        return adapt(self.normalise(support_images), support_labels, self.n_way)(self.normalise(query_images))


def _normalisation(trained: TrainedLearner | None) -> nn.Module:
    return nn.Identity() if trained is None else Normalise(trained.mean, trained.std)
