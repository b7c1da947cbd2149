import torch

from metantk_nas.learners.maml import Maml
from metantk_nas.learners.meta_sgd import INNER_LR, MetaSgd
from tests.contracts.gradients import check_meta_gradient, gradient, smooth_case
from tests.contracts.learner import LearnerContract, predict


class TestMetaSgd(LearnerContract):
    name = "meta_sgd"
    settings = {"inner_lr": 0.3}  # noqa: RUF012 (a constant of the test)


def test_constant_rates_are_maml() -> None:
    learner, other = MetaSgd(inner_lr=0.3, inner_steps=2), Maml(inner_lr=0.3, inner_steps=2, inner_steps_test=1)
    model, episode = smooth_case(learner)
    torch.testing.assert_close(predict(learner, model, episode), predict(other, model, episode))
    found, expected = (gradient(some, model, episode) for some in (learner, other))
    assert found[INNER_LR].any()
    for name in found.keys() - {INNER_LR}:
        torch.testing.assert_close(found[name], expected[name])


def test_gradients_in_weights_and_rates_equal_finite_differences() -> None:
    learner = MetaSgd(inner_steps=2)
    model, episode = smooth_case(learner)
    torch.nn.init.uniform_(model.extra.inner_lr, 0.005, 0.1, generator=torch.Generator().manual_seed(0))
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=INNER_LR.__eq__)
