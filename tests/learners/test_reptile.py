from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.init import constant_

from metantk_nas.episodes.episode import Episode
from metantk_nas.episodes.sine import SineWaves
from metantk_nas.errors import UsageError
from metantk_nas.learners.base import HEAD_BIAS, HEAD_WEIGHT, MetaModel, meta_parameters
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.reptile import Reptile
from metantk_nas.networks.build import build_network
from tests.contracts.gradients import gradient, smooth_case
from tests.contracts.learner import LearnerContract


class TestReptile(LearnerContract):
    name = "reptile"
    settings = {"inner_steps": 3, "inner_steps_test": 5}  # noqa: RUF012 (a constant of the test)
    not_learnt = frozenset({HEAD_WEIGHT, HEAD_BIAS})


class TestReptileWithALearntHead(LearnerContract):
    name = "reptile"
    settings = {"inner_optimiser": "adam", "inner_lr": 0.01, "zero_head": False}  # noqa: RUF012 (a constant of the test)


def images_by_class(episode: Episode) -> tuple[Tensor, Tensor]:
    """All images of the task, and labels that run 0, 0, …, 1, 1, …: what the minibatches are dealt from."""
    labels, rows = torch.cat([episode.support_labels, episode.query_labels]).sort(stable=True)
    return torch.cat([episode.support_images, episode.query_images])[rows], labels


def trained_by_torch(model: MetaModel, optimiser: torch.optim.Optimizer, episode: Episode, steps: int) -> None:
    """Ordinary training on minibatches that are dealt out in turns, three of them."""
    images, labels = images_by_class(episode)
    for step in range(steps):
        optimiser.zero_grad()
        rows = slice(step % 3, None, 3)
        assert labels[rows].tolist() == [0, 1, 2, 3, 4]
        cross_entropy(model(images[rows]).logits, labels[rows]).backward()
        optimiser.step()


@pytest.mark.parametrize("inner_optimiser", ["sgd", "adam"])
def test_the_gradient_is_the_way_back_from_ordinary_training(inner_optimiser: str) -> None:
    learner = replace(
        Reptile(inner_lr=0.02, inner_steps=5, inner_batch_size=5, zero_head=False), inner_optimiser=inner_optimiser
    )
    model, episode = smooth_case(learner)
    found = gradient(learner, model, episode)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimiser: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    if inner_optimiser == "adam":
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02, betas=(0.0, 0.999))
    trained_by_torch(model, optimiser, episode, steps=5)
    for name, end in model.named_parameters():
        if "blocks" in name and name.endswith("0.bias"):
            continue  # in front of a normalisation its gradient is rounding, which Adam makes a step of
        torch.testing.assert_close(found[name], start[name] - end.detach(), rtol=1e-6, atol=1e-8)


def test_one_step_is_the_gradient_of_all_tasks_together_and_the_second_adds_that_of_fomaml() -> None:
    """Section 5.1 of the paper: g₁ + g₂, of which FOMAML with the first minibatch as support is g₂ alone."""
    one = Reptile(inner_lr=0.1, inner_steps=1, inner_batch_size=8, zero_head=False)
    two = replace(one, inner_steps=2)
    model, episode = smooth_case(one)
    images, labels = images_by_class(episode)
    assert len(labels) == 15  # one minibatch of at least eight
    halves = replace(one, inner_batch_size=7), replace(two, inner_batch_size=7)
    joint = replace(episode, query_images=images, query_labels=labels)
    plain = gradient(Maml(inner_steps=0), model, joint)
    first_half = replace(joint, query_images=images[::2], query_labels=labels[::2])
    split = Episode(images[::2], labels[::2], images[1::2], labels[1::2], 5, ())
    fomaml = gradient(Maml(inner_lr=0.1, first_order=True), model, split)
    g_1 = gradient(Maml(inner_steps=0), model, first_half)
    all_rows, after_one, after_two = (gradient(learner, model, episode) for learner in (one, *halves))
    for name in plain:
        torch.testing.assert_close(all_rows[name], 0.1 * plain[name])
        torch.testing.assert_close(after_one[name], 0.1 * g_1[name])
        torch.testing.assert_close(after_two[name], 0.1 * (g_1[name] + fomaml[name]))


def test_adapting_has_a_rate_of_its_own() -> None:
    learner = Reptile(inner_lr=0.5, inner_lr_test=0.02, inner_steps_test=3, zero_head=False)
    model, episode = smooth_case(learner)
    task = (episode.support_images, episode.support_labels, episode.n_way)
    found = learner.adapt(model, meta_parameters(learner, model), *task)(episode.query_images)
    expected = Maml(inner_lr=0.02, inner_steps_test=3).adapt(model, meta_parameters(learner, model), *task)
    torch.testing.assert_close(found, expected(episode.query_images))
    training = (gradient(each, model, episode) for each in (learner, replace(learner, inner_lr_test=None)))
    torch.testing.assert_close(*training)


def with_head(model: MetaModel, value: float) -> MetaModel:
    copy = deepcopy(model)
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        constant_(copy.get_parameter(name), value)
    return copy


def test_a_zero_head_is_that_of_a_network_whose_head_is_zero_and_stays_so() -> None:
    learner = Reptile(inner_lr=0.1)
    model, episode = smooth_case(learner)
    found = gradient(learner, model, episode)
    expected = gradient(replace(learner, zero_head=False), with_head(model, 0.0), episode)
    for name in found:
        if name in (HEAD_WEIGHT, HEAD_BIAS):
            assert not found[name].any()
            assert expected[name].any()
        else:
            torch.testing.assert_close(found[name], expected[name])
    task = (episode.support_images, episode.support_labels, episode.n_way)
    predictions = [
        each.adapt(start, meta_parameters(each, start), *task)(episode.query_images)
        for each, start in (
            (learner, model),
            (learner, with_head(model, 3.0)),
            (replace(learner, zero_head=False), with_head(model, 0.0)),
        )
    ]
    torch.testing.assert_close(predictions[1], predictions[0])
    torch.testing.assert_close(predictions[2], predictions[0])


def test_a_head_of_real_targets_is_meta_learned() -> None:
    """The outputs of a regression do not change places from task to task."""
    learner = Reptile(inner_lr=0.02)
    model = learner.make_model(build_network("mlp", None, n_outputs=1, in_channels=1, norm=learner.norm))
    waves = SineWaves("base", 5, 10, seed=0)
    found, expected = (gradient(each, model, waves(0)) for each in (learner, replace(learner, zero_head=False)))
    assert found[HEAD_WEIGHT].any()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_zero_head_needs_two_steps(steps: int) -> None:
    with pytest.raises(UsageError, match=f"inner_steps is {steps}; expected at least 2.*set zero_head to false"):
        Reptile(inner_steps=steps)


def test_an_unknown_inner_optimiser_is_refused() -> None:
    with pytest.raises(UsageError, match=r"inner optimiser 'adm' not found.*Did you mean 'adam'"):
        Reptile(inner_optimiser="adm")  # type: ignore[arg-type]  # the point


def test_a_minibatch_of_no_images_is_refused() -> None:
    with pytest.raises(UsageError, match="inner_batch_size is 0; expected at least 1 image"):
        Reptile(inner_batch_size=0)
