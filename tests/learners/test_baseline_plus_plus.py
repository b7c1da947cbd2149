import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.baseline_plus_plus import BaselinePlusPlus, cosines
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient
from tests.contracts.learner import LearnerContract, in_double, make_model, predict, source


class TestBaselinePlusPlus(LearnerContract):
    name = "baseline_plus_plus"
    settings = {"inner_steps_test": 20}  # noqa: RUF012 (a constant of the test)


def test_the_head_says_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    features, head = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (7, 4))
    found = cosines(features, head)
    expected = torch.stack([torch.stack([cosine_similarity(row, own, dim=0) for own in head]) for row in features])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(cosines(9 * features, 0.1 * head), found)
    torch.testing.assert_close(cosines(head, head).diagonal(), torch.ones(4, dtype=torch.float64))


def test_training_is_classification_of_all_base_classes_by_scaled_cosines() -> None:
    learner = BaselinePlusPlus(scale=3.0)
    model, batch = in_double(make_model(learner), source(learner)(0))
    parameters = meta_parameters(learner, model)
    assert "network.head.bias" not in parameters
    features = model(batch.query_images).features
    logits = 3 * cosine_similarity(features[:, None], model.network.head.weight, dim=2)
    assert logits.shape == (30, 30)
    outcome = learner.episode_loss(model, parameters, batch)
    torch.testing.assert_close(outcome.loss, cross_entropy(logits, batch.query_labels))
    check_meta_gradient(learner, model, batch)


def test_without_steps_a_class_is_the_mean_direction_of_its_images() -> None:
    learner = BaselinePlusPlus(inner_steps_test=0, scale=3.0)
    case = feature_case(learner)
    directions = case.support / case.support.norm(dim=1, keepdim=True)
    means = torch.stack([directions[case.episode.support_labels == label].mean(0) for label in range(5)])
    expected = 3 * cosine_similarity(case.query[:, None], means, dim=2)
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected)


@pytest.mark.parametrize("n_steps", [1, 20])
def test_the_new_head_is_that_of_ordinary_gradient_descent(n_steps: int) -> None:
    learner = BaselinePlusPlus(inner_steps_test=n_steps, inner_lr=0.3)
    case = feature_case(learner)
    labels = case.episode.support_labels
    directions = case.support / case.support.norm(dim=1, keepdim=True)
    start = torch.stack([directions[labels == label].mean(0) for label in range(5)])
    head = torch.nn.Parameter(start / start.norm(dim=1, keepdim=True))
    optimiser = torch.optim.SGD([head], lr=0.3)
    losses = []
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss = cross_entropy(10 * cosine_similarity(case.support[:, None], head, dim=2), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    expected = 10 * cosine_similarity(case.query[:, None], head.detach(), dim=2)
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected)
    assert losses == sorted(losses, reverse=True)
