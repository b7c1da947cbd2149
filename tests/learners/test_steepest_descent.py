import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import one_hot

from metantk_nas.learners.features import INITIAL_REG, INITIAL_SCALE
from metantk_nas.learners.steepest_descent import SteepestDescent, steepest_coefficients
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, predict


class TestSteepestDescent(LearnerContract):
    name = "steepest_descent"


def problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (4, 3))
    return rows, targets


def test_after_many_steps_logits_are_those_of_scikit_learns_ridge() -> None:
    learner = SteepestDescent(inner_steps=500)
    case = feature_case(learner)
    support, query = case.unit_rows
    ridge = Ridge(alpha=INITIAL_REG, fit_intercept=False)
    ridge.fit(support.numpy(), one_hot(case.episode.support_labels).numpy())
    expected = INITIAL_SCALE * torch.from_numpy(ridge.predict(query.numpy()))
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected, rtol=1e-4, atol=1e-4)


def test_its_steps_are_the_best_along_the_gradient_of_the_ridge_objective() -> None:
    """Against descent in the weights: gradient by autograd, step length from values of the objective alone."""
    rows, targets = problem()

    def objective(weights: Tensor) -> Tensor:
        return (rows @ weights - targets).square().sum() / 2 + 0.3 * weights.square().sum() / 2

    weights = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(4):
        start = weights.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective(start), start)
        ahead, here, behind = (objective(weights - length * slope) for length in (1, 0, -1))
        weights = weights - (behind - ahead) / (2 * (ahead + behind - 2 * here)) * slope  # vertex of a parabola
    found = steepest_coefficients(rows @ rows.T, targets, 0.3, steps=4)
    torch.testing.assert_close(rows.T @ found, weights)


def test_one_step_arrives_at_scaled_class_sums() -> None:
    rows, _ = problem()
    targets = one_hot(torch.tensor([0, 1, 1, 2, 0, 2, 2])).double()
    found = steepest_coefficients(rows @ rows.T, targets, 0.1, steps=1)
    torch.testing.assert_close(found, targets * found[0, 0])
    assert found[0, 0] > 0


def test_at_the_minimum_it_stays() -> None:
    identity = torch.eye(3, dtype=torch.float64)
    for targets in (identity, torch.zeros_like(identity)):
        found = steepest_coefficients(identity, targets, 1.0, steps=20)
        torch.testing.assert_close(found, targets / 2)


def test_the_outer_gradient_flows_through_the_steps() -> None:
    learner = SteepestDescent()
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))
