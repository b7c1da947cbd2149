import math

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from metantk_nas.errors import UsageError
from metantk_nas.learners.base import MetaModel, bind, meta_parameters, outputs
from metantk_nas.learners.features import INITIAL_SCALE
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.kernel import Kernel
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec
from metantk_nas.learners.tangent import tangent_rows
from metantk_nas.networks.build import resize
from metantk_nas.spaces.load import load_space
from tests.contracts.learner import IMAGE_SIZE, N_WAY, LearnerContract, episodes, in_double, make_model, predict
from tests.reference.dense_ntk import dense_ntk
from tests.reference.finite_differences import directional_derivative

NAS_BENCH_CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


class TestFeatureKernel(LearnerContract):
    name = "kernel"


class TestTangentKernel(LearnerContract):
    name = "kernel"
    settings = {"kernel": "ntk"}  # noqa: RUF012 (a constant of the test)
    n_train = 160
    least_accuracy = 0.5


def with_a_head(learner: Kernel, *, width: int = 16) -> MetaModel:
    """A model whose head is no longer at zero, as after some training."""
    model = make_model(learner, width=width)
    torch.nn.init.normal_(model.network.head.weight, generator=torch.Generator().manual_seed(0))
    return model


def test_the_feature_kernel_is_kernel_ridge_regression_of_the_residual() -> None:
    learner = Kernel(inner_reg=0.3)
    model, episode = in_double(with_a_head(learner), episodes("novel", n_shot=3)(0))
    parameters = meta_parameters(learner, model)
    support, query = (outputs(model, parameters, x) for x in (episode.support_images, episode.query_images))
    residual = torch.eye(N_WAY)[episode.support_labels] - support.logits
    x_support, x_query, residual = (t.detach().numpy() for t in (support.features, query.features, residual))
    gram = x_support @ x_support.T + 1
    ridge = KernelRidge(alpha=0.3 * gram.diagonal().mean(), kernel="precomputed").fit(gram, residual)
    expected = query.logits.detach() + torch.from_numpy(ridge.predict(x_query @ x_support.T + 1))
    torch.testing.assert_close(predict(learner, model, episode), INITIAL_SCALE * expected, rtol=1e-6, atol=1e-6)


def test_tangent_rows_give_the_dense_ntk() -> None:
    learner = Kernel(kernel="ntk")
    model, episode = in_double(with_a_head(learner, width=4), episodes("novel")(0))
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(name.endswith("weight") and parameter.ndim > 1)
    weights = {f"network.{k}": p for k, p in model.network.named_parameters() if p.requires_grad}
    rows = tangent_rows(model, weights, episode.query_images).gradients.detach()
    expected = torch.from_numpy(dense_ntk(model.network, episode.query_images))
    torch.testing.assert_close(rows @ rows.T, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("settings", [{}, {"kernel": "ntk"}, {"inner_time": 2.0}])
def test_the_outer_gradient_flows_through_the_closed_form(settings: dict[str, object]) -> None:
    learner = Kernel(**settings)
    model, episode = in_double(with_a_head(learner, width=4), episodes("base", n_query=2)(0))
    parameters = meta_parameters(learner, model.train())
    gradients = meta_gradients(learner, model, parameters, [episode]).gradients
    generator = torch.Generator().manual_seed(0)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in parameters.items()}
    expected = directional_derivative(lambda p: learner.episode_loss(model, p, episode).loss, parameters, direction)
    found = sum((gradients[name][0] * direction[name]).sum().item() for name in parameters)
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_inner_time_means_no_adaptation() -> None:
    learner = Kernel(inner_time=0.0)
    model, episode = in_double(with_a_head(learner), episodes("novel")(0))
    plain = outputs(model, meta_parameters(learner, model), episode.query_images).logits.detach()
    torch.testing.assert_close(predict(learner, model, episode), INITIAL_SCALE * plain)


def test_a_long_inner_time_approaches_infinity() -> None:
    model, episode = in_double(with_a_head(Kernel()), episodes("novel")(0))
    found, limit = (predict(Kernel(inner_time=t), model, episode) for t in (1e6, math.inf))
    torch.testing.assert_close(found, limit)


def test_an_unknown_kernel_names_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"kernel 'features' not found.*Did you mean 'feature'"):
        Kernel(kernel="features")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("name", ["kernel", "meta_rkhs_2"])
def test_predictions_of_a_cell_are_the_same_where_nothing_is_learnt(name: str) -> None:
    """Gradients meet where branches of a cell begin, and autograd adds them up in another way under ``no_grad``."""
    learner = make_learner(name, **({"kernel": "ntk"} if name == "kernel" else {}))
    space = resize(load_space("nas_bench_201"), init_channels=4, n_cells=3)
    spec = NetworkSpec(NAS_BENCH_CELL, space, N_WAY, 1, IMAGE_SIZE)
    model, episode = in_double(learner.make_model(spec.build(learner.norm, seed=0)), episodes("novel")(0))
    adapt = bind(learner, model)
    expected = adapt(episode.support_images, episode.support_labels, N_WAY)(episode.query_images)
    found = predict(learner, model, episode)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach())
