"""Support and query features of a small model in float64, to hold a head against another implementation of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import AbstractLearner, MetaModel, meta_parameters, outputs
from tests.contracts.learner import episodes, in_double, make_model


class FeatureCase(NamedTuple):
    model: MetaModel
    episode: Episode
    support: Tensor
    query: Tensor

    @property
    def unit_rows(self) -> tuple[Tensor, Tensor]:
        """Features and a 1, in units of the root mean squared norm of the support rows."""
        support, query = (torch.cat([part, torch.ones(len(part), 1)], dim=1) for part in (self.support, self.query))
        unit = support.square().sum(1).mean().sqrt()
        return support / unit, query / unit


def feature_case(learner: AbstractLearner, *, n_shot: int = 3) -> FeatureCase:
    """A model in evaluation mode, an episode, and its features."""
    model, episode = in_double(make_model(learner), episodes("novel", n_shot=n_shot)(0))
    parameters = meta_parameters(learner, model)
    images = (episode.support_images, episode.query_images)
    support, query = (outputs(model, parameters, some).features.detach() for some in images)
    return FeatureCase(model, episode, support, query)
