import pytest
import torch

from metantk_nas.episodes.sine import SineWaves
from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.maml_plus_plus import INNER_LR, NORMS, MamlPlusPlus
from metantk_nas.networks.mlp import Mlp
from tests.contracts.gradients import check_meta_gradient, gradient, smooth_case
from tests.contracts.learner import LearnerContract, in_double


class TestMamlPlusPlus(LearnerContract):
    name = "maml_plus_plus"
    settings = {"inner_steps": 2, "inner_steps_test": 2}  # noqa: RUF012 (a constant of the test)


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_gradients_equal_finite_differences_early_and_late(progress: float) -> None:
    """Of weights, rates and every step's normalisation, with the losses of all steps and of the last."""
    learner = MamlPlusPlus(inner_steps=3, first_order_share=0.0)
    model, episode = smooth_case(learner)
    model.progress = progress
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name in (INNER_LR, NORMS))


@pytest.mark.parametrize("first_order", [False, True])
def test_without_normalisation_layers_it_ends_as_maml(first_order: bool) -> None:
    learner = MamlPlusPlus(inner_lr=0.01, inner_steps=3, multi_step_share=0.0, first_order_share=0.5)
    network = Mlp()
    model, episode = in_double(learner.make_model(network), SineWaves("base", 10, 10, seed=0)(0))
    model.progress = 0.4 if first_order else 0.6
    other = Maml(inner_lr=0.01, inner_steps=3, first_order=first_order)
    found, expected = (gradient(some, model, episode) for some in (learner, other))
    for name in found.keys() - {INNER_LR}:
        torch.testing.assert_close(found[name], expected[name])
    assert found[INNER_LR].shape == (3, 3)  # three layers, three steps
    assert found[INNER_LR].all()


def test_the_losses_of_all_steps_count_at_first_and_the_last_alone_in_the_end() -> None:
    learner = MamlPlusPlus(inner_steps=4, multi_step_share=0.2)
    assert learner.importance(0.0) == pytest.approx([0.25] * 4)
    assert learner.importance(0.1) == pytest.approx([0.125] * 3 + [0.625])
    assert learner.importance(0.1999) == pytest.approx([0.0075] * 3 + [0.9775])  # the floor
    assert learner.importance(0.2) == learner.importance(1.0) == [0, 0, 0, 1]


def test_the_loss_is_the_weighted_sum_of_the_steps() -> None:
    learner = MamlPlusPlus(inner_steps=2)
    model, episode = smooth_case(learner)
    torch.nn.init.normal_(model.extra["norms"], generator=torch.Generator().manual_seed(0))
    parameters = meta_parameters(learner, model)
    support = episode.support_images, episode.support_labels
    by_step = [
        torch.nn.functional.cross_entropy(
            torch.func.functional_call(
                model, dict(learner.adapted(model, parameters, *support, steps=steps)), (episode.query_images,)
            ).logits,
            episode.query_labels,
        )
        for steps in (1, 2)
    ]
    outcome = learner.episode_loss(model, parameters, episode)
    torch.testing.assert_close(outcome.loss, (by_step[0] + by_step[1]) / 2)


def test_each_step_has_normalisation_of_its_own_and_the_inner_loop_leaves_it() -> None:
    learner = MamlPlusPlus(inner_steps=3)
    model, episode = smooth_case(learner)
    width = 4
    assert model.extra["norms"].shape == (2, 4 * 2 * width)
    torch.nn.init.normal_(model.extra["norms"], generator=torch.Generator().manual_seed(0))
    parameters = meta_parameters(learner, model)
    own = "network.blocks.2.1.bias"
    for steps, expected in [(1, model.get_parameter(own)), (2, model.extra["norms"][0, 20:24])]:
        adapted = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=steps)
        assert torch.equal(adapted[own], expected)
    beyond = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=5)
    assert torch.equal(beyond[own], model.extra["norms"][1, 20:24])


def test_a_single_step_needs_no_further_normalisation() -> None:
    learner = MamlPlusPlus(inner_steps=1, inner_steps_test=1)
    model, episode = smooth_case(learner)
    assert NORMS not in meta_parameters(learner, model)
    model.progress = 1.0
    check_meta_gradient(learner, model, episode)
