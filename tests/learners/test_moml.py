from typing import Any

import torch

from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.inner_loop import fit_loss, flatten, unflatten, weights
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.moml import REPORT, Moml
from metantk_nas.learners.registry import make_train_settings
from metantk_nas.learners.trainer import train
from tests.contracts.gradients import check_meta_gradient, gradient, smooth_case
from tests.contracts.learner import LearnerContract, episodes, make_model


class TestMoml(LearnerContract):
    name = "moml"


def test_without_a_memory_it_is_maml() -> None:
    learner, other = Moml(memory_rate=1.0, inner_lr=0.1), Maml(inner_lr=0.1)
    model, episode = smooth_case(learner)
    model.extra.memory.normal_(generator=torch.Generator().manual_seed(0))
    found, expected = (gradient(some, model, episode) for some in (learner, other))
    for name in found.keys() - {REPORT}:
        torch.testing.assert_close(found[name], expected[name])


def test_the_query_set_is_judged_between_memory_and_adapted_weights() -> None:
    learner = Moml(memory_rate=0.6, inner_lr=0.1)
    model, episode = smooth_case(learner)
    start = weights(dict(model.named_parameters()))
    model.extra.memory.normal_(generator=torch.Generator().manual_seed(0))
    end = flatten(learner.adapted(model, start, episode.support_images, episode.support_labels, steps=1))
    between = unflatten(0.4 * model.extra.memory + 0.6 * end, like=start)
    found = learner.episode_loss(model, meta_parameters(learner, model), episode)
    torch.testing.assert_close(found.loss, fit_loss(model, episode.query_images, episode.query_labels)(between))


def test_gradients_equal_finite_differences_in_the_weights() -> None:
    learner = Moml(memory_rate=0.6, inner_lr=0.1)
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode, among=lambda name: name != REPORT)


def test_the_memory_is_a_moving_average_of_the_mean_adapted_weights() -> None:
    """Whatever the outer optimiser did to the report."""
    learner = Moml(memory_rate=0.3, inner_lr=0.1)
    model = make_model(learner)
    extra: Any = model.extra
    before, start = extra.memory.clone(), weights(dict(model.named_parameters()))
    assert torch.equal(before, flatten(start))
    ends = [
        flatten(learner.adapted(model, start, e.support_images, e.support_labels, steps=1)).detach()
        for e in (episodes("base")(index) for index in range(4))
    ]
    settings = make_train_settings("moml", train_budget=4, meta_batch_size=4)
    train(learner, model, episodes("base"), None, settings)
    torch.testing.assert_close(extra.memory, 0.7 * before + 0.3 * torch.stack(ends).mean(0))
    assert not extra.report.any()
    assert not torch.equal(extra.memory, flatten(weights(meta_parameters(learner, model))))
