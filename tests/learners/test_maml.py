import pytest
import torch

from metantk_nas.errors import UsageError
from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.maml import Maml
from tests.contracts.gradients import check_meta_gradient, gradient, smooth_case
from tests.contracts.learner import LearnerContract, episodes, make_model, predict


class TestMaml(LearnerContract):
    name = "maml"


class TestFirstOrderMaml(LearnerContract):
    name = "fomaml"


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_second_order_gradients_equal_finite_differences(inner_steps: int) -> None:
    learner = Maml(inner_lr=0.1, inner_steps=inner_steps)
    check_meta_gradient(learner, *smooth_case(learner))


def test_first_order_gradients_are_those_at_the_adapted_weights() -> None:
    second, first = Maml(inner_lr=0.1), Maml(inner_lr=0.1, first_order=True)
    model, episode = smooth_case(first)
    parameters = meta_parameters(first, model)
    found = gradient(first, model, episode)
    adapted = first.adapted(model, parameters, episode.support_images, episode.support_labels, steps=1)
    moved = {name: value.detach().requires_grad_() for name, value in adapted.items()}
    expected = meta_gradients(Maml(inner_steps=0), model, moved, [episode]).gradients
    full = gradient(second, model, episode)
    for name in parameters:
        torch.testing.assert_close(found[name], expected[name][0], rtol=1e-10, atol=1e-12)
    assert any(not torch.allclose(found[name], full[name], rtol=1e-2) for name in parameters)


def test_testing_takes_its_own_number_of_steps() -> None:
    one, three = Maml(inner_steps_test=1), Maml(inner_steps_test=3)
    model, episode = make_model(one), episodes("novel")(0)
    assert not torch.allclose(predict(one, model, episode), predict(three, model, episode))


def test_another_number_of_classes_is_refused() -> None:
    learner = Maml()
    episode = episodes("novel")(0)
    with pytest.raises(UsageError, match=r"trained for 5-way episodes and got 3 classes.*--n-way 3"):
        learner.adapt(make_model(learner), {}, episode.support_images[:3], episode.support_labels[:3], 3)
