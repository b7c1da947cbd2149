import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import one_hot

from metantk_nas.learners.lrd2 import LRD2, logistic_coefficients
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import N_WAY, LearnerContract, predict


class TestLRD2(LearnerContract):
    name = "lrd2"


@pytest.mark.parametrize("reg", [0.01, 0.5])
def test_after_many_steps_logits_are_those_of_scikit_learns_logistic_regression(reg: float) -> None:
    learner = LRD2(inner_steps=30, initial_reg=reg)
    case = feature_case(learner)
    support, query = case.unit_rows
    expected = []
    for label in range(N_WAY):
        regression = LogisticRegression(C=1 / reg, fit_intercept=False, tol=1e-10, max_iter=10_000)
        regression.fit(support.numpy(), (case.episode.support_labels == label).numpy())
        expected.append(torch.from_numpy(regression.decision_function(query.numpy())))
    found = predict(learner, case.model, case.episode)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=1e-5, atol=1e-5)


def test_its_steps_are_newtons() -> None:
    """In the weights, as a textbook has it: ``w ← (ZᵀSZ + λI)⁻¹ ZᵀS z``."""
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((8, 4)), rng.integers(0, 2, 8).astype(float)
    weights = np.zeros(4)
    for _ in range(3):
        probabilities = 1 / (1 + np.exp(-rows @ weights))
        spread = probabilities * (1 - probabilities)
        working = rows @ weights + (labels - probabilities) / spread
        hessian = rows.T @ (spread[:, None] * rows) + 0.2 * np.eye(4)
        weights = np.linalg.solve(hessian, rows.T @ (spread * working))
    kernel, targets = torch.from_numpy(rows @ rows.T), torch.from_numpy(labels)[:, None]
    found = logistic_coefficients(kernel, targets, 0.2, steps=3)
    np.testing.assert_allclose(rows.T @ found[:, 0].numpy(), weights, rtol=1e-10)


def test_sure_probabilities_keep_the_steps_finite() -> None:
    rows = 1e3 * torch.randn(10, 20, generator=torch.Generator().manual_seed(0))
    targets = one_hot(torch.arange(10) % 5).float()
    found = logistic_coefficients(rows @ rows.mT / rows.square().sum(1).mean(), targets, 1e-6, steps=10)
    assert found.isfinite().all()


def test_the_outer_gradient_flows_through_the_steps() -> None:
    learner = LRD2()
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))
