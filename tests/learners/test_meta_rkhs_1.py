import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import MetaModel, meta_parameters
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.meta_rkhs_1 import MetaRkhs1
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, predict


class TestMetaRkhs1(LearnerContract):
    name = "meta_rkhs_1"


def losses(model: MetaModel, episode: Episode, *rates: float, bounded: bool = False) -> torch.Tensor:
    """Energies at some inner rates."""
    found = []
    for rate in rates:
        learner = MetaRkhs1(inner_lr=rate, bounded=bounded)
        found.append(learner.episode_loss(model, meta_parameters(learner, model), episode).loss.detach())
    return torch.stack(found)


def maml_losses(model: MetaModel, episode: Episode, *rates: float) -> torch.Tensor:
    """What one step of MAML arrives at."""
    parameters = meta_parameters(Maml(), model)
    return torch.stack([Maml(inner_lr=rate).episode_loss(model, parameters, episode).loss.detach() for rate in rates])


def test_the_energy_is_the_first_order_expansion_of_one_step_maml() -> None:
    """They differ by α² at least: half the rate, a quarter of the difference; the slope at α = 0 is the same."""
    model, episode = smooth_case(MetaRkhs1())
    rates = 4e-6, 2e-6, 1e-6  # small, so that no unit of a ReLU changes sides
    expansion, maml = losses(model, episode, *rates), maml_losses(model, episode, *rates)
    difference = expansion - maml
    torch.testing.assert_close(difference[:-1] / difference[1:], torch.full((2,), 4.0).double(), rtol=0.02, atol=0)
    start = losses(model, episode, 0.0)
    torch.testing.assert_close(start, maml_losses(model, episode, 0.0))
    assert (difference.abs() < 0.02 * (maml - start).abs()).all()


def test_with_one_sample_the_energy_is_the_papers() -> None:
    """``L − α ‖∇L‖²``, the gradient by plain autograd."""
    model, episode = smooth_case(MetaRkhs1())
    images, labels = episode.query_images, episode.query_labels
    loss = cross_entropy(model(images).logits, labels)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    expected = loss.detach() - 0.3 * sum(slope.square().sum() for slope in slopes)
    same = Episode(images, labels, images, labels, episode.n_way, ())
    torch.testing.assert_close(losses(model, same, 0.3)[0], expected)


@pytest.mark.parametrize("bounded", [False, True])
def test_the_meta_gradient_equals_finite_differences(bounded: bool) -> None:
    learner = MetaRkhs1(bounded=bounded)
    check_meta_gradient(learner, *smooth_case(learner))


def test_the_bound_changes_nothing_to_first_order_and_keeps_the_energy_from_being_negative() -> None:
    model, episode = smooth_case(MetaRkhs1())
    twin = Episode(episode.query_images, episode.query_labels, episode.query_images, episode.query_labels, 5, ())
    rates = 2e-3, 1e-3, 5e-4  # support and query are one sample: a step promises a decrease
    difference = losses(model, twin, *rates, bounded=True) - losses(model, twin, *rates)
    torch.testing.assert_close(difference[:-1] / difference[1:], torch.full((2,), 4.0).double(), rtol=0.02, atol=0)
    assert losses(model, twin, 100.0)[0] < 0 <= losses(model, twin, 100.0, bounded=True)[0]


class Linear(nn.Module):
    """Three numbers from four, without a bias: of one row the kernel is ``|x|² I``."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3, bias=False)

    def features(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


@pytest.mark.parametrize("rate", [1e-3, 0.3, 3.0])
def test_the_bounded_energy_is_what_a_step_makes_of_the_squared_error_of_a_linear_model(rate: float) -> None:
    torch.manual_seed(0)
    model = MetaModel(Linear().double())
    row, target = torch.randn(1, 4).double(), torch.randn(1, 3).double()
    episode = Episode(row, target, row, target, 3, ())
    expected = maml_losses(model, episode, rate)
    torch.testing.assert_close(losses(model, episode, rate, bounded=True), expected)
    assert (losses(model, episode, rate) < expected).all()


def test_the_energy_is_finite_where_rounding_leaves_gradients_but_no_loss() -> None:
    model = MetaModel(Linear())
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.weight[0, 0] = 18  # the loss is ln(1 + 2e⁻¹⁸), which is 0 in float32
    row, label = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0])
    assert cross_entropy(model(row).logits, label) == 0
    assert losses(model, Episode(row, label, row, label, 3, ()), 0.1, bounded=True).tolist() == [0.0]


def test_new_tasks_take_the_steps_of_maml() -> None:
    learner = MetaRkhs1(inner_lr=0.2, inner_steps_test=3)
    model, episode = smooth_case(learner)
    expected = predict(Maml(inner_lr=0.2, inner_steps_test=3), model, episode)
    torch.testing.assert_close(predict(learner, model, episode), expected)
