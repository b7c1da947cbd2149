"""Is the gradient of an episode's loss its derivative? For learners that differentiate through their inner loop."""

from collections.abc import Callable

import pytest
import torch

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import AbstractLearner, MetaModel, meta_parameters
from metantk_nas.learners.gradients import meta_gradients
from tests.contracts.learner import episodes, in_double, make_model
from tests.reference.finite_differences import directional_derivative


def smooth_case(learner: AbstractLearner, *, width: int = 4) -> tuple[MetaModel, Episode]:
    """A small model in training mode and an episode, in float64."""
    model, episode = in_double(make_model(learner, width=width), episodes("base", n_query=2)(0))
    return model.train(), episode


def gradient(learner: AbstractLearner, model: MetaModel, episode: Episode) -> dict[str, torch.Tensor]:
    """The meta-gradient of one episode, by parameter."""
    found = meta_gradients(learner, model, meta_parameters(learner, model), [episode]).gradients
    return {name: value[0] for name, value in found.items()}


def check_meta_gradient(
    learner: AbstractLearner,
    model: MetaModel,
    episode: Episode,
    *,
    among: Callable[[str], bool] = lambda name: True,
    rel: float = 1e-5,
) -> None:
    """Compare with central differences along three random directions in the parameters called ``among``."""
    parameters = meta_parameters(learner, model)
    found = gradient(learner, model, episode)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) * among(name)
            for name, value in parameters.items()
        }
        expected = directional_derivative(lambda p: learner.episode_loss(model, p, episode).loss, parameters, direction)
        along = sum((found[name] * direction[name]).sum().item() for name in parameters)
        assert along == pytest.approx(expected, rel=rel)
