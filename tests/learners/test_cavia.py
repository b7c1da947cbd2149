import torch
from torch.nn.functional import linear, mse_loss, relu

from metantk_nas.episodes.sine import SineWaves
from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.cavia import FILM, Cavia, modulated
from metantk_nas.networks.mlp import Mlp
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, in_double


class TestCavia(LearnerContract):
    """Slower than the others: one vector must say which of five outputs stands for which class."""

    name = "cavia"
    n_train = 160
    least_accuracy = 0.4


def test_gradients_equal_finite_differences() -> None:
    learner = Cavia(n_context=7)
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=FILM.__eq__)


def test_normalisation_layers_move_by_a_few_numbers_and_nothing_else_does() -> None:
    learner = Cavia(n_context=2)
    model, episode = smooth_case(learner)
    parameters = meta_parameters(learner, model)
    shifts = []
    for steps in (0, 1, 2, 3):
        adapted = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=steps)
        moved = {name for name in parameters if not torch.equal(adapted[name], parameters[name])}
        assert moved == (set(modulated(model)) if steps else set())
        shifts.append(torch.cat([(adapted[name] - parameters[name]).flatten() for name in modulated(model)]))
    assert modulated(model) == [f"network.blocks.{i}.1.{kind}" for i in range(4) for kind in ("weight", "bias")]
    assert torch.linalg.matrix_rank(torch.stack(shifts).detach()) == 2


def test_without_normalisation_it_is_a_context_beside_each_layers_input() -> None:
    """The paper's perceptron: numbers that start at zero are fed in beside the input, and are all that adapts."""
    learner = Cavia(n_context=5, inner_lr=0.1, inner_steps_test=3)
    torch.manual_seed(0)
    model, episode = in_double(learner.make_model(Mlp()), SineWaves("novel", 10, 10, seed=0)(0))
    network = model.network
    film = model.extra["film"].detach().split([40, 40], dim=1)
    layers = [network.layers[0], network.layers[2]]

    def forward(rows: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        for layer, extra in zip(layers, film, strict=True):
            beside = torch.cat([rows, context.expand(len(rows), 5)], dim=1)
            rows = relu(linear(beside, torch.cat([layer.weight, extra.T], dim=1), layer.bias))
        return network.head(rows)

    context = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        (slope,) = torch.autograd.grad(
            mse_loss(forward(episode.support_images, context), episode.support_labels), context
        )
        context = (context - 0.1 * slope).detach().requires_grad_()
    predict = learner.adapt(model, meta_parameters(learner, model), episode.support_images, episode.support_labels, 1)
    torch.testing.assert_close(predict(episode.query_images), forward(episode.query_images, context))
