from typing import Any

import pytest
import torch

from metantk_nas.episodes.sine import SineWaves
from metantk_nas.learners.alpha_maml import PROBE, AlphaMaml
from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.inner_loop import fit_loss
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.registry import make_train_settings
from metantk_nas.learners.trainer import train
from metantk_nas.networks.mlp import Mlp
from tests.contracts.gradients import gradient, smooth_case
from tests.contracts.learner import LearnerContract, make_model


class TestAlphaMaml(LearnerContract):
    name = "alpha_maml"


def test_the_first_step_is_that_of_maml_and_the_probe_sees_the_product_of_gradients() -> None:
    """∂L_Q(θ − α ∇L_S(θ))/∂α = −∇L_Q(θ_i)·∇L_S(θ)."""
    learner, other = AlphaMaml(inner_lr=0.1), Maml(inner_lr=0.1)
    model, episode = smooth_case(learner)
    found, expected = (gradient(some, model, episode) for some in (learner, other))
    for name in found.keys() - {PROBE}:
        torch.testing.assert_close(found[name], expected[name])
    point = {name: value.detach() for name, value in model.named_parameters() if name != PROBE}
    inner = torch.func.grad(fit_loss(model, episode.support_images, episode.support_labels))(point)
    moved = {name: value - 0.1 * inner[name] for name, value in point.items()}
    outer = torch.func.grad(fit_loss(model, episode.query_images, episode.query_labels))(moved)
    torch.testing.assert_close(found[PROBE], -sum((inner[name] * outer[name]).sum() for name in inner))


def gradients(model: Any, value: float, probe: float) -> dict[str, torch.Tensor]:
    everything = {name: torch.full_like(p, value) for name, p in model.named_parameters()}
    return {**everything, PROBE: torch.tensor(probe)}


def test_rates_follow_their_hypergradients() -> None:
    learner = AlphaMaml(inner_lr=0.5, inner_hyper_lr=0.1, outer_hyper_lr=0.2)
    model = make_model(learner)
    extra: Any = model.extra
    learner.after_step(model, gradients(model, 1.0, probe=-0.4))
    assert extra.inner_lr.item() == pytest.approx(0.5 * 1.1)
    assert learner.lr_factor(model) == 1  # there was no step before
    learner.after_step(model, gradients(model, 3.0, probe=100.0))
    assert extra.inner_lr.item() == pytest.approx(0.5 * 1.1 * 0.9)  # by a share of at most h
    assert learner.lr_factor(model) == pytest.approx(1.2)  # the same direction
    mean_square = 0.9 * (0.9 * 0.4**2 + 0.1 * 100**2) + 0.1 * 5**2
    learner.after_step(model, gradients(model, -2.0, probe=5.0))
    assert extra.inner_lr.item() == pytest.approx(0.5 * 1.1 * 0.9 * (1 - 0.1 * 5 / mean_square**0.5))
    assert learner.lr_factor(model) == pytest.approx(1.2 * 0.8)  # the opposite one
    assert extra.probe.item() == 0


def test_a_far_too_small_rate_grows_while_training() -> None:
    learner = AlphaMaml(inner_lr=1e-4)
    torch.manual_seed(0)
    model = learner.make_model(Mlp())
    settings = make_train_settings("alpha_maml", train_budget=200)
    train(learner, model, SineWaves("base", 10, 10, seed=0), None, settings)
    extra: Any = model.extra
    assert extra.inner_lr.item() > 3e-4
    assert 0.1 < learner.lr_factor(model) < 10
    assert learner.lr_factor(model) != 1
    assert meta_parameters(learner, model)[PROBE].item() == 0
