import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError
from metantk_nas.evaluation import Evaluation, accuracy, evaluate, remembered_features
from metantk_nas.learners.base import bind
from metantk_nas.learners.registry import make_learner
from tests.contracts.learner import episodes, make_model


def episode(index: int) -> Episode:
    """Images are their own labels; in episode ``index`` the first ``index`` of 10 query images lie."""
    labels = torch.arange(10) % 5
    images = labels.clone().float()
    images[:index] = (images[:index] + 1) % 5
    return Episode(torch.zeros(5), torch.arange(5), images, labels, 5, ())


def adapt(support_images: Tensor, support_labels: Tensor, n_way: int) -> object:
    return lambda query_images: -(query_images[:, None] - torch.arange(n_way)).abs()


def test_it_counts_the_right_answers_of_each_episode() -> None:
    found = evaluate(adapt, episode, 4)
    np.testing.assert_allclose(found.values, [1.0, 0.9, 0.8, 0.7])
    assert found.mean == pytest.approx(0.85)


def test_the_interval_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(0).random(600)
    found = Evaluation(values, 0.0)
    assert found.ci95 == pytest.approx(1.96 * math.sqrt(values.var(ddof=1) / 600), rel=1e-12)
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert found.ci95 == pytest.approx((high - low) / 2, rel=1e-4)


def test_one_episode_has_no_interval() -> None:
    with pytest.raises(UsageError, match="at least 2 episodes; got 1"):
        evaluate(adapt, episode, 1)


def test_progress_is_told_and_no_gradient_is_kept() -> None:
    seen: list[int] = []
    grads: list[bool] = []

    def watching(support_images: Tensor, support_labels: Tensor, n_way: int) -> object:
        grads.append(torch.is_grad_enabled())
        return adapt(support_images, support_labels, n_way)

    evaluate(watching, episode, 3, on_episode=seen.append)
    assert seen == [1, 2, 3]
    assert not any(grads)


@pytest.mark.parametrize("name", ["protonet", "kernel", "rfs"])
def test_remembered_features_change_nothing_but_the_work(name: str) -> None:
    learner = make_learner(name)
    model = make_model(learner).eval()
    plain = evaluate(bind(learner, model), episodes("novel"), 30)
    rows_seen: list[int] = []
    model.network.blocks.register_forward_hook(lambda module, inputs, output: rows_seen.append(len(output)))
    with remembered_features(model.network):
        remembered = evaluate(bind(learner, model), episodes("novel"), 30)
    assert sum(rows_seen) <= 10 * 12  # every novel image at most once, of 30 * 30 asked for
    np.testing.assert_array_equal(remembered.values, plain.values)


def test_a_network_forgets_when_the_context_ends() -> None:
    network = make_model(make_learner("protonet")).eval().network
    images = episodes("novel")(0).query_images
    with remembered_features(network):
        before = network.features(images)
    for parameter in network.parameters():
        parameter.data.mul_(2)
    assert "features" not in vars(network)
    assert not torch.allclose(network.features(images), before)


def test_accuracy_of_logits() -> None:
    assert accuracy(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
