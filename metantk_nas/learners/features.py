"""What learners share that learn features, and make a head for each task from the features of its support set."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import (
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Parameters,
    Predictor,
    outputs,
    task_loss,
)
from metantk_nas.networks.norms import NormKind
from metantk_nas.rng import child_seed

INITIAL_SCALE = 10.0
INITIAL_REG = 0.1

Head = Callable[[Tensor], Tensor]
"""From query features ``[query, feature]`` to logits ``[query, n_way]``, or to real predictions."""


class AbstractFeatureLearner(AbstractLearner):
    """Interface of learners whose head is a function of the support features alone: closed forms and metrics.

    There is no inner loop over images and no head to begin with, so any number of classes will do.

    Attributes:
        query_loss: from what the head says of the query set and its labels to the loss.
    """

    head: ClassVar[Literal["way", "base_classes", "unused"]] = "unused"
    query_loss: ClassVar[Callable[[Tensor, Tensor], Tensor]] = staticmethod(task_loss)

    @property
    def norm(self) -> NormKind:
        """Running statistics: predictions do not depend on the images beside an image."""
        return "batch"

    @abstractmethod
    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Make a head.

        Args:
            parameters: meta-parameters.
            features: of the support set, ``[support, feature]``.
            labels: int64 ``[support]``, or real targets ``[support, n_way]``.
            n_way: number of classes, or of targets.
        """

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the loss of the query set; support and query share one pass, as in the code of ProtoNet."""
        support, query = episode_features(model, parameters, episode)
        logits = self.make_head(parameters, support, episode.support_labels, episode.n_way)(query)
        return EpisodeLoss(type(self).query_loss(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Make the head."""
        support = outputs(model, parameters, support_images).features
        head = self.make_head(parameters, support, support_labels, n_way)
        return lambda query_images: head(outputs(model, parameters, query_images).features)


def episode_features(model: MetaModel, parameters: Parameters, episode: Episode) -> tuple[Tensor, Tensor]:
    """Compute the features of support and query set in one pass."""
    features = outputs(model, parameters, torch.cat([episode.support_images, episode.query_images])).features
    support, query = features.tensor_split([len(episode.support_labels)])
    return support, query


def linear_head(features: Tensor, solve: Callable[[Tensor], Tensor], scale: Tensor | float = 1.0) -> Head:
    """Make the linear head ``W = Zᵀ a`` that a dual problem gives: n × n numbers whatever the number of features.

    Rows Z are features and a 1 for the bias. Features differ by orders of magnitude between architectures, so the
    kernel ``Z Zᵀ`` is measured in units of its mean diagonal, and a regulariser needs no unit.

    Args:
        features: of the support set, ``[support, feature]``.
        solve: from the kernel ``[support, support]`` to coefficients a ``[support, n_way]``.
        scale: what logits are multiplied by.
    """
    rows = with_bias(features)
    unit = mean_diagonal(rows)
    weight = rows.mT @ solve(rows @ rows.mT / unit) * (scale / unit)
    return lambda query: with_bias(query) @ weight


def with_bias(features: Tensor) -> Tensor:
    """Append a column of ones."""
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def mean_diagonal(rows: Tensor) -> Tensor:
    """Mean of the diagonal of ``rows @ rows.mT``."""
    return rows.square().sum(1).mean()


def positive_parameters(**values: float) -> nn.ParameterDict:
    """Make learnt positive numbers by name, such as a scale; what is stored and learnt is their logarithm."""
    return nn.ParameterDict({f"log_{name}": torch.tensor(math.log(value)) for name, value in values.items()})


def positive(parameters: Parameters, name: str) -> Tensor:
    """Return one of the `positive_parameters`."""
    return parameters[f"extra.log_{name}"].exp()


def logit_scale(parameters: Parameters, labels: Tensor) -> Tensor | float:
    """Return the learnt factor of logits; real predictions have none."""
    return 1.0 if labels.is_floating_point() else positive(parameters, "scale")


@contextmanager
def same_start(name: str) -> Iterator[None]:
    """Draw the first weights of a learner's own layers from a stream of their own, alike in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child_seed(0, "start", name))
        yield
