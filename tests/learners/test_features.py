import math

import pytest
import torch
from torch import nn

from metantk_nas.learners.features import linear_head, logit_scale, positive, positive_parameters, same_start
from metantk_nas.learners.registry import LEARNERS, make_learner
from tests.contracts.learner import make_model


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_linear_head_does_not_depend_on_the_unit_of_the_features() -> None:
    """But for the 1 of the bias, which then counts for less or more."""
    support, query, coefficients = features(6, 50), features(4, 50), features(6, 3)
    small, large = (linear_head(k * support, lambda _: coefficients)(k * query) for k in (1e3, 1e5))
    torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-5)


def test_a_linear_head_is_the_kernel_times_the_coefficients() -> None:
    support, query, coefficients = features(6, 5), features(4, 5), features(6, 3)
    kernels = []
    head = linear_head(support, lambda k_ss: kernels.append(k_ss) or coefficients, scale=3.0)
    unit = (support.square().sum(1) + 1).mean()
    torch.testing.assert_close(kernels[0], (support @ support.T + 1) / unit)
    torch.testing.assert_close(head(query), 3 * (query @ support.T + 1) / unit @ coefficients)


def test_positive_parameters_are_learnt_as_logarithms() -> None:
    numbers = positive_parameters(scale=10.0, reg=0.1)
    parameters = {f"extra.{name}": value for name, value in numbers.named_parameters()}
    assert positive(parameters, "scale").item() == pytest.approx(10)
    assert parameters["extra.log_reg"].item() == pytest.approx(math.log(0.1))
    assert logit_scale(parameters, torch.tensor([0, 1])) == positive(parameters, "scale")
    assert logit_scale(parameters, torch.tensor([0.5])) == 1


def test_a_start_of_its_own_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    weights = []
    for name in ("a", "a", "b"):
        with same_start(name):
            weights.append(nn.Linear(3, 3).weight)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", LEARNERS)
def test_models_start_alike(name: str) -> None:
    learner = make_learner(name)
    torch.manual_seed(1)
    one = make_model(learner)
    torch.manual_seed(2)
    other = make_model(learner)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
