import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch.nn.functional import one_hot

from metantk_nas.errors import UsageError
from metantk_nas.learners.features import INITIAL_SCALE
from metantk_nas.learners.metaoptnet import MetaOptNet
from tests.contracts.features import feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, predict


class TestSupportVectorMachine(LearnerContract):
    name = "metaoptnet"


class TestRidge(LearnerContract):
    name = "metaoptnet"
    settings = {"convex_head": "ridge"}  # noqa: RUF012 (a constant of the test)


@pytest.mark.parametrize("penalty", [0.5, 10.0])
def test_logits_are_those_of_scikit_learns_support_vector_machine(penalty: float) -> None:
    learner = MetaOptNet(penalty=penalty)
    case = feature_case(learner)
    support, query = case.unit_rows
    machine = LinearSVC(multi_class="crammer_singer", C=penalty, fit_intercept=False, tol=1e-10, max_iter=10**6)
    machine.fit(support.numpy(), case.episode.support_labels.numpy())
    expected = INITIAL_SCALE * torch.from_numpy(machine.decision_function(query.numpy()))
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected, rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_scikit_learns_ridge() -> None:
    learner = MetaOptNet(convex_head="ridge", inner_reg=0.3)
    case = feature_case(learner)
    support, query = case.unit_rows
    ridge = Ridge(alpha=0.3, fit_intercept=False).fit(support.numpy(), one_hot(case.episode.support_labels).numpy())
    expected = INITIAL_SCALE * torch.from_numpy(ridge.predict(query.numpy()))
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("convex_head", ["svm", "ridge"])
def test_the_outer_gradient_flows_through_the_optimality_conditions(convex_head: str) -> None:
    learner = MetaOptNet(convex_head=convex_head)  # type: ignore[arg-type]  # of the two names
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode, rel=1e-4)


def test_an_unknown_head_names_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"convex head 'smv' not found.*Did you mean 'svm'"):
        MetaOptNet(convex_head="smv")  # type: ignore[arg-type]  # the point of the test
