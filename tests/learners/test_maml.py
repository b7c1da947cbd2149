import pytest
import torch

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError
from metantk_nas.learners.base import AbstractLearner, MetaModel, meta_parameters
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.inner_loop import descend
from metantk_nas.learners.maml import Maml
from tests.contracts.learner import LearnerContract, episodes, in_double, make_model, predict
from tests.reference.finite_differences import directional_derivative


class TestMaml(LearnerContract):
    name = "maml"


class TestFirstOrderMaml(LearnerContract):
    name = "maml"
    settings = {"first_order": True, "inner_steps": 2, "inner_lr": 0.1}  # noqa: RUF012 (a constant of the test)


def smooth_case(learner: AbstractLearner) -> tuple[MetaModel, Episode]:
    model, episode = in_double(make_model(learner, width=4), episodes("base", n_query=2)(0))
    return model.train(), episode


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_second_order_gradients_equal_finite_differences(inner_steps: int) -> None:
    learner = Maml(inner_lr=0.1, inner_steps=inner_steps)
    model, episode = smooth_case(learner)
    parameters = meta_parameters(learner, model)
    gradients = meta_gradients(learner, model, parameters, [episode]).gradients
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in parameters.items()}
        expected = directional_derivative(lambda p: learner.episode_loss(model, p, episode).loss, parameters, direction)
        found = sum((gradients[name][0] * direction[name]).sum().item() for name in parameters)
        assert found == pytest.approx(expected, rel=1e-5)


def test_first_order_gradients_are_those_at_the_adapted_weights() -> None:
    second, first = Maml(inner_lr=0.1), Maml(inner_lr=0.1, first_order=True)
    model, episode = smooth_case(first)
    parameters = meta_parameters(first, model)
    found = meta_gradients(first, model, parameters, [episode]).gradients
    adapted = first._adapted(model, parameters, episode.support_images, episode.support_labels, steps=1)
    moved = {name: value.detach().requires_grad_() for name, value in adapted.items()}
    expected = meta_gradients(Maml(inner_steps=0), model, moved, [episode]).gradients
    full = meta_gradients(second, model, parameters, [episode]).gradients
    for name in parameters:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)
    assert any(not torch.allclose(found[name], full[name], rtol=1e-2) for name in parameters)


def test_descent_on_a_parabola_is_geometric() -> None:
    start = {"x": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    end = descend(lambda p: (p["x"] ** 2).sum() / 2, start, lr=0.1, steps=7)
    torch.testing.assert_close(end["x"], start["x"] * 0.9**7)
    assert descend(lambda p: p["x"].sum(), start, lr=0.1, steps=0) is start


def test_testing_takes_its_own_number_of_steps() -> None:
    one, three = Maml(inner_steps_test=1), Maml(inner_steps_test=3)
    model, episode = make_model(one), episodes("novel")(0)
    assert not torch.allclose(predict(one, model, episode), predict(three, model, episode))


def test_another_number_of_classes_is_refused() -> None:
    learner = Maml()
    episode = episodes("novel")(0)
    with pytest.raises(UsageError, match=r"trained for 5-way episodes and got 3 classes.*--n-way 3"):
        learner.adapt(make_model(learner), {}, episode.support_images[:3], episode.support_labels[:3], 3)
