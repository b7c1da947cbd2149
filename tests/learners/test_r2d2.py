import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import one_hot

from metantk_nas.learners.r2d2 import R2D2
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, predict


class TestR2D2(LearnerContract):
    name = "r2d2"


def test_logits_are_those_of_scikit_learns_ridge() -> None:
    learner = R2D2(initial_reg=0.3, initial_scale=7.0)
    case = feature_case(learner)
    support, query = case.unit_rows
    ridge = Ridge(alpha=0.3, fit_intercept=False).fit(support.numpy(), one_hot(case.episode.support_labels).numpy())
    expected = 7 * torch.from_numpy(ridge.predict(query.numpy()))
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected, rtol=1e-6, atol=1e-6)


def test_real_targets_are_not_scaled() -> None:
    learner = R2D2(initial_reg=1e-12)
    case = feature_case(learner)
    targets = torch.randn(len(case.support), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = dict(case.model.named_parameters())
    found = learner.make_head(parameters, case.support, targets, 2)(case.support)
    torch.testing.assert_close(found, targets, rtol=1e-4, atol=1e-4)


def test_the_outer_gradient_flows_through_the_ridge() -> None:
    learner = R2D2()
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))


def test_more_rows_than_features_are_no_matter() -> None:
    """Woodbury's identity holds both ways; here W has fewer rows than the dual problem."""
    rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 4
    parameters = {"extra.log_reg": torch.tensor(-1.0), "extra.log_scale": torch.tensor(0.0)}
    found = R2D2().make_head(parameters, rows, labels, 4)(rows)
    lifted = torch.cat([rows, torch.ones(20, 1)], dim=1)
    lifted = lifted / lifted.square().sum(1).mean().sqrt()
    gram = lifted.T @ lifted + torch.tensor(-1.0).exp() * torch.eye(4)
    expected = lifted @ torch.linalg.solve(gram, lifted.T @ one_hot(labels).double())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
