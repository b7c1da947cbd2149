import copy
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metantk_nas.episodes.episode import Episode
from metantk_nas.episodes.sine import SineWaves
from metantk_nas.learners import meta_rkhs_2
from metantk_nas.learners.base import HEAD_BIAS, HEAD_WEIGHT, AbstractLearner, MetaModel, meta_parameters
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.meta_rkhs_2 import MetaRkhs2
from metantk_nas.learners.trainer import Progress, TrainSettings, train
from metantk_nas.networks.mlp import Mlp
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, episodes, in_double, make_model, predict
from tests.reference.dense_ntk import dense_jacobian, dense_ntk

Array = NDArray[np.float64]


class TestMetaRkhs2(LearnerContract):
    name = "meta_rkhs_2"


class Linearised(NamedTuple):
    """A network as the method sees it: Jacobians of support and query logits, end to end, and logits before."""

    support: Array
    query: Array
    residual: Array
    before: Array

    @property
    def unit(self) -> float:
        return float((self.support**2).sum(1).mean())

    @property
    def eigenvalues(self) -> Array:
        """Of H(S, S), in units of its mean diagonal."""
        return np.linalg.eigvalsh(self.support @ self.support.T / self.unit)


def case(learner: AbstractLearner) -> tuple[MetaModel, Episode, Linearised]:
    """A small Conv-4 late in training, linearised."""
    model, episode = smooth_case(learner, width=8)
    torch.nn.init.normal_(model.network.head.weight, generator=torch.Generator().manual_seed(0))
    model.progress = 1.0
    return model, episode, linearisation(model, episode)


def linearisation(model: MetaModel, episode: Episode) -> Linearised:
    """Dense Jacobians, one backward pass a logit."""
    jacobians = (
        dense_jacobian(with_statistics_of(x, model.network), x) for x in (episode.support_images, episode.query_images)
    )
    with torch.no_grad():
        support, query = (model(x).logits for x in (episode.support_images, episode.query_images))
    residual = torch.eye(5)[episode.support_labels] - support
    return Linearised(*jacobians, residual.numpy().ravel(), query.numpy().ravel())


def with_statistics_of(images: torch.Tensor, network: torch.nn.Module) -> torch.nn.Module:
    """A copy with running statistics, which are those of the images."""
    frozen = copy.deepcopy(network)
    pairs = zip(network.modules(), frozen.modules(), strict=True)
    norms = {one: other for one, other in pairs if isinstance(one, torch.nn.BatchNorm2d)}

    def freeze(norm: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        norms[norm].track_running_stats = True
        norms[norm].running_var, norms[norm].running_mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)

    hooks = [norm.register_forward_pre_hook(freeze) for norm in norms]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return frozen.eval()


def kernel_regression(dense: Linearised) -> torch.Tensor:
    """``f(x) + H(x, S) H(S, S)⁻¹ (Y − f(S))``."""
    coefficients = np.linalg.solve(dense.support @ dense.support.T, dense.residual)
    return torch.from_numpy(dense.before + dense.query @ (dense.support.T @ coefficients)).reshape(-1, 5)


def gradient_flow(dense: Linearised, time: float, n_steps: int) -> torch.Tensor:
    """Move the weights of the linearised network down the squared error, by the classic Runge–Kutta method."""
    step, weights = time / n_steps, np.zeros(dense.support.shape[1])

    def velocity(weights: Array) -> Array:
        return dense.support.T @ (dense.residual - dense.support @ weights) / dense.unit

    for _ in range(n_steps):
        first = velocity(weights)
        second = velocity(weights + step / 2 * first)
        third = velocity(weights + step / 2 * second)
        fourth = velocity(weights + step * third)
        weights = weights + step / 6 * (first + 2 * second + 2 * third + fourth)
    return torch.from_numpy(dense.before + dense.query @ weights).reshape(-1, 5)


def test_at_infinite_time_it_is_kernel_regression_of_the_residual() -> None:
    learner = MetaRkhs2(inner_time=math.inf, inner_reg=0.0)
    model, episode, dense = case(learner)
    assert dense.eigenvalues[0] > 1e-3  # so that the inverse, and the limits below, mean something
    expected = kernel_regression(dense)
    torch.testing.assert_close(predict(learner, model, episode), expected, rtol=1e-7, atol=1e-7)
    late = predict(MetaRkhs2(inner_time=30 / dense.eigenvalues[0]), model, episode)
    torch.testing.assert_close(late, expected, rtol=1e-7, atol=1e-7)
    ridges = [predict(MetaRkhs2(inner_time=math.inf, inner_reg=reg), model, episode) for reg in (1e-2, 1e-5, 1e-8)]
    errors = [float((found - expected).abs().max()) for found in ridges]
    assert errors[0] > 1e-3
    assert errors[0] > 100 * errors[1] > 10_000 * errors[2]


@pytest.mark.parametrize("time", [0.3, 3.0, 10.0])
def test_at_finite_time_it_is_gradient_flow_of_the_linearised_network(time: float) -> None:
    learner = MetaRkhs2(inner_time=time)
    model, episode, dense = case(learner)
    expected = gradient_flow(dense, time, n_steps=1000)
    torch.testing.assert_close(predict(learner, model, episode), expected, rtol=1e-7, atol=1e-7)
    assert not torch.allclose(expected, kernel_regression(dense), atol=1e-3)


def test_no_time_is_no_adaptation() -> None:
    learner = MetaRkhs2(inner_time=0.0)
    model, episode, dense = case(learner)
    torch.testing.assert_close(predict(learner, model, episode), torch.from_numpy(dense.before).reshape(-1, 5))


def test_one_output_is_regressed_on_with_the_plain_ntk() -> None:
    torch.manual_seed(0)
    learner = MetaRkhs2(inner_time=math.inf, inner_reg=0.1)
    model, episode = in_double(MetaModel(Mlp()), SineWaves("novel", 4, 6, seed=0)(0))
    rows = torch.cat([episode.support_images, episode.query_images])
    ntk = dense_ntk(model.network, rows, biases=True)
    before = model(rows).logits.detach().numpy()
    k_ss, k_qs = ntk[:4, :4], ntk[4:, :4]
    ridged = k_ss + 0.1 * np.diag(k_ss).mean() * np.eye(4)
    expected = before[4:] + k_qs @ np.linalg.solve(ridged, episode.support_labels.numpy() - before[:4])
    torch.testing.assert_close(predict(learner, model, episode), torch.from_numpy(expected))


@pytest.mark.parametrize("learner", [MetaRkhs2(), MetaRkhs2(inner_time=math.inf, inner_reg=0.1)])
def test_the_outer_gradient_flows_through_the_closed_form(learner: MetaRkhs2) -> None:
    model, episode, _ = case(learner)
    check_meta_gradient(learner, model, episode)


@pytest.mark.parametrize("learner", [MetaRkhs2(), MetaRkhs2(inner_time=math.inf, inner_reg=0.1)])
def test_with_a_head_of_zeros_features_say_what_all_tangents_say(learner: MetaRkhs2) -> None:
    """The same loss, and the same gradient of all but the head, which is not to move."""
    model, episode, _ = case(learner)
    for part in model.network.head.parameters():
        torch.nn.init.zeros_(part)
    parameters = meta_parameters(learner, model)
    model.progress = 1.0
    slow = meta_gradients(learner, model, parameters, [episode])
    model.progress = 0.0
    fast = meta_gradients(learner, model, parameters, [episode])
    torch.testing.assert_close(fast.losses, slow.losses)
    torch.testing.assert_close(fast.logits, slow.logits)
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        assert not fast.gradients.pop(name).any()
        assert slow.gradients.pop(name).any()
    torch.testing.assert_close(fast.gradients, slow.gradients)


def test_with_a_head_of_zeros_it_adapts_by_features() -> None:
    learner = MetaRkhs2()
    model, episode, _ = case(learner)
    for part in model.network.head.parameters():
        torch.nn.init.zeros_(part)
    dense = linearisation(model, episode)
    expected = gradient_flow(dense, learner.inner_time, n_steps=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meta_rkhs_2, "tangent_rows", None)
        torch.testing.assert_close(predict(learner, model, episode), expected, rtol=1e-7, atol=1e-7)


def test_the_head_stays_zero_for_its_share_of_the_budget() -> None:
    n_moved: dict[int, int] = {}
    learner = MetaRkhs2(zero_head_share=0.5)
    model = make_model(learner)
    settings = TrainSettings(train_budget=8, meta_batch_size=1, patience=None)

    def count(step: Progress) -> None:
        n_moved[step.episode] = sum(int(part.any()) for part in model.network.head.parameters())

    train(learner, model, episodes("base"), None, settings, on_step=count)
    assert n_moved == {episode: 2 * (episode > 4) for episode in range(1, 9)}
