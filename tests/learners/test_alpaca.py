from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm

from metantk_nas.episodes.episode import Episode
from metantk_nas.episodes.sine import SineWaves
from metantk_nas.learners.alpaca import PRIOR, Alpaca, posterior
from metantk_nas.learners.base import MetaModel, Outputs, meta_parameters
from metantk_nas.networks.mlp import Mlp
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import N_WAY, LearnerContract, in_double, predict

Array = NDArray[np.float64]
NOISE = 0.3


class TestAlpaca(LearnerContract):
    name = "alpaca"


class Textbook(NamedTuple):
    """Bayesian linear regression with known noise: weights ~ N(mean, σ² precision⁻¹) (Bishop 2006, section 3.3)."""

    mean: Array
    precision: Array

    def updated(self, rows: Array, targets: Array) -> "Textbook":
        precision = self.precision + rows.T @ rows
        return Textbook(np.linalg.inv(precision) @ (self.precision @ self.mean + rows.T @ targets), precision)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean ``[row, output]`` and variance ``[row]``."""
        spread = np.stack([row @ np.linalg.inv(self.precision) @ row for row in rows])
        return rows @ self.mean, NOISE * (1 + spread)


def as_after_training(model: MetaModel) -> None:
    """Give head, prior and noise values that no start has."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.network.head.weight.normal_(generator=generator)
        model.network.head.bias.normal_(generator=generator)
        model.extra["prior"] += 0.2 * torch.randn(model.extra["prior"].shape, generator=generator)
        model.extra["log_noise"].fill_(np.log(NOISE))


def prior(model: MetaModel, unit: float) -> Textbook:
    """What the model believes of weights on features in units of ``unit``."""
    factor = model.extra["prior"].detach().numpy()
    head = torch.cat([model.network.head.weight, model.network.head.bias[:, None]], dim=1).detach().numpy()
    return Textbook(unit * head.T, np.linalg.inv(factor @ factor.T))


def with_a_one(features: torch.Tensor) -> Array:
    return np.column_stack([features.detach().numpy(), np.ones(len(features))])


def unit_of(rows: Array) -> float:
    return float(np.sqrt((rows**2).sum(1).mean()))


def test_logits_are_mean_over_variance_of_the_textbook_posterior() -> None:
    learner = Alpaca()
    case = feature_case(learner)
    as_after_training(case.model)
    support, query = with_a_one(case.support), with_a_one(case.query)
    unit = unit_of(support)
    labels = np.eye(N_WAY)[case.episode.support_labels.numpy()]
    mean, variance = prior(case.model, unit).updated(support / unit, labels).predict(query / unit)
    found = predict(learner, case.model, case.episode)
    torch.testing.assert_close(found, torch.from_numpy(mean / variance[:, None]))


def regression_case() -> tuple[MetaModel, Episode]:
    torch.manual_seed(0)
    model = Alpaca().make_model(Mlp(width=5))
    as_after_training(model)
    return in_double(model, SineWaves("base", 8, 6, seed=0)(0))


def test_the_regression_loss_is_the_negative_log_density_of_the_textbook_posterior() -> None:
    learner = Alpaca()
    model, episode = regression_case()
    support, query = (with_a_one(model(x).features) for x in (episode.support_images, episode.query_images))
    unit = unit_of(support)
    known = prior(model, unit).updated(support / unit, episode.support_labels.numpy())
    mean, variance = known.predict(query / unit)
    expected = -norm.logpdf(episode.query_labels.numpy(), mean, np.sqrt(variance[:, None])).mean()
    outcome = learner.episode_loss(model, meta_parameters(learner, model), episode)
    torch.testing.assert_close(outcome.loss.detach(), torch.tensor(expected))
    torch.testing.assert_close(outcome.logits.detach(), torch.from_numpy(mean))
    torch.testing.assert_close(predict(learner, model, episode), torch.from_numpy(mean))


def test_the_label_loss_is_the_negative_log_density_among_one_hot_vectors() -> None:
    learner = Alpaca()
    model, episode = smooth_case(learner)
    as_after_training(model.eval())  # running statistics: the same features in one pass as in two
    parameters = meta_parameters(learner, model)
    support, query = (model(x) for x in (episode.support_images, episode.query_images))
    known = posterior(parameters, support, episode.support_labels, query)
    surprise = []
    for label, mean, variance in zip(episode.query_labels, *(part.detach().numpy() for part in known), strict=True):
        density = multivariate_normal(mean, variance * np.eye(N_WAY)).pdf(np.eye(N_WAY))
        surprise.append(-np.log(density[label] / density.sum()))
    loss = learner.episode_loss(model, parameters, episode).loss
    torch.testing.assert_close(loss.detach(), torch.tensor(np.mean(surprise)))


def test_far_from_the_support_set_it_is_less_sure() -> None:
    learner = Alpaca()
    case = feature_case(learner)
    parameters = meta_parameters(learner, case.model)
    support = Outputs(case.support, case.support.new_zeros(len(case.support), N_WAY))
    far = Outputs(10 * torch.cat([case.support[:1], -case.support[:1]]), case.support.new_zeros(2, N_WAY))
    near = posterior(parameters, support, case.episode.support_labels, support)
    away = posterior(parameters, support, case.episode.support_labels, far)
    assert parameters["extra.log_noise"].exp() < near.variance.min()
    assert away.variance.min() > near.variance.max()


def test_the_outer_gradient_flows_through_the_posterior() -> None:
    learner = Alpaca()
    model, episode = smooth_case(learner)
    as_after_training(model)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name in (PRIOR, "extra.log_noise"))
    check_meta_gradient(learner, *regression_case())
