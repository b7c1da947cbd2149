import math

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import grad, vmap

from metantk_nas.kernels.smoother import kernel_coefficients, kernel_smoother
from tests.reference.smoother import dense_smoother


def kernels(*batch: int, n_support: int = 6, n_query: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(*batch, n, 9, generator=generator, dtype=torch.float64) for n in (n_support, n_query))
    return query @ support.mT, support @ support.mT


@pytest.mark.parametrize("inner_time", [0.0, 1e-3, 0.1, 1.0, 30.0, math.inf])
@pytest.mark.parametrize("inner_reg", [0.0, 1e-5, 1e-3, 1.0])
def test_it_equals_the_dense_matrix_exponential(inner_time: float, inner_reg: float) -> None:
    k_qs, k_ss = kernels(3, 2)
    found = kernel_smoother(k_qs, k_ss, inner_time=inner_time, inner_reg=inner_reg)
    for index in np.ndindex(3, 2):
        expected = dense_smoother(k_qs[index].numpy(), k_ss[index].numpy(), inner_time, inner_reg)
        np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-10, atol=1e-10)


def test_at_inner_time_zero_nothing_is_learnt() -> None:
    assert not kernel_smoother(*kernels(), inner_time=0.0, inner_reg=1e-3).any()


def test_a_long_inner_time_approaches_the_exact_solution() -> None:
    found, limit = (kernel_smoother(*kernels(), inner_time=t, inner_reg=1e-3) for t in (1e9, math.inf))
    torch.testing.assert_close(found, limit, rtol=1e-10, atol=1e-10)


def test_gradient_descent_in_function_space_approaches_it() -> None:
    """Many small steps of f ← f − η K(·, S)(f_S − Y), the flow whose solution the formula is (λ = 0)."""
    k_qs, k_ss = kernels()
    targets = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    support, query = torch.zeros(6, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    n_steps, step = 20_000, 1e-5
    for _ in range(n_steps):
        residual = targets - support
        support, query = support + step * k_ss @ residual, query + step * k_qs @ residual
    found = kernel_smoother(k_qs, k_ss, inner_time=n_steps * step, inner_reg=0.0) @ targets
    torch.testing.assert_close(found, query, rtol=1e-3, atol=1e-3)


def test_infinite_time_is_kernel_ridge_regression() -> None:
    k_qs, k_ss = kernels()
    targets = torch.eye(6, 3, dtype=torch.float64)
    ridge = KernelRidge(alpha=0.2, kernel="precomputed").fit(k_ss.numpy(), targets.numpy())
    found = kernel_smoother(k_qs, k_ss, inner_time=math.inf, inner_reg=0.2) @ targets
    np.testing.assert_allclose(found.numpy(), ridge.predict(k_qs.numpy()), rtol=1e-10)


def test_a_singular_kernel_without_ridge_takes_the_limit() -> None:
    """A direction with s = 0 and λ = 0 has the gain τ, the limit of (1 − exp(−τs)) / s."""
    k_ss = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    found = kernel_smoother(torch.eye(2, dtype=torch.float64), k_ss, inner_time=3.0, inner_reg=0.0)
    torch.testing.assert_close(found.diagonal(), torch.tensor([(1 - math.exp(-6)) / 2, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("inner_time", [2.0, math.inf])
def test_trouble_is_nan_and_stays_with_its_own_member_of_the_batch(inner_time: float) -> None:
    k_qs, k_ss = kernels(2)
    k_ss[0, 1, 2] = torch.nan
    found = kernel_smoother(k_qs, k_ss, inner_time=inner_time, inner_reg=1e-3)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1], kernel_smoother(k_qs[1], k_ss[1], inner_time=inner_time, inner_reg=1e-3))


def test_a_kernel_that_is_not_positive_definite_is_nan() -> None:
    k_ss = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert kernel_smoother(k_ss, k_ss, inner_time=math.inf, inner_reg=0.0).isnan().all()


@pytest.mark.parametrize("inner_time", [0.7, math.inf])
def test_it_is_differentiable(inner_time: float) -> None:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (4, 3))

    def smooth(support: Tensor, query: Tensor) -> Tensor:
        return kernel_smoother(query @ support.mT, support @ support.mT, inner_time=inner_time, inner_reg=0.1)

    assert gradcheck(smooth, (support.requires_grad_(), query.requires_grad_()))


def test_equal_support_images_leave_the_infinite_time_gradient_finite() -> None:
    support = torch.ones(4, 5, dtype=torch.float64, requires_grad=True)
    kernel_smoother(support @ support.mT, support @ support.mT, inner_time=math.inf, inner_reg=0.1).sum().backward()
    assert support.grad is not None
    assert support.grad.isfinite().all()


@pytest.mark.parametrize("inner_time", [0.5, math.inf])
def test_coefficients_predict_what_the_smoother_does(inner_time: float) -> None:
    k_qs, k_ss = kernels(3)
    residuals = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    coefficients = kernel_coefficients(k_ss, residuals, inner_time=inner_time, inner_reg=0.1)
    smoother = kernel_smoother(k_qs, k_ss, inner_time=inner_time, inner_reg=0.1)
    torch.testing.assert_close(k_qs @ coefficients, smoother @ residuals)


def test_a_learnt_ridge_has_a_gradient() -> None:
    k_qs, k_ss = kernels()
    reg = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda reg: kernel_smoother(k_qs, k_ss, inner_time=math.inf, inner_reg=reg), reg)


@pytest.mark.parametrize(("inner_time", "inner_reg"), [(0.3, 0.0), (4.0, 0.0), (4.0, 0.1)])
@pytest.mark.parametrize("kernel", ["equal rows", "the same for every output", "nothing"])
def test_equal_eigenvalues_leave_the_finite_time_gradient_right(
    kernel: str, inner_time: float, inner_reg: float
) -> None:
    """Where autograd through an eigendecomposition divides by zero."""
    k_ss = {
        "equal rows": torch.ones(6, 6, dtype=torch.float64),
        "the same for every output": torch.kron(kernels(n_support=2)[1], torch.eye(3, dtype=torch.float64)),
        "nothing": torch.zeros(6, 6, dtype=torch.float64),
    }[kernel]
    generator = torch.Generator().manual_seed(0)
    residuals, root = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (2, 6))
    direction = root @ root.T  # stays positive semi-definite

    def along(step: Tensor) -> Tensor:
        moved = k_ss + step * direction
        return kernel_coefficients(moved, residuals, inner_time=inner_time, inner_reg=inner_reg)

    assert gradcheck(along, torch.tensor(0.0, dtype=torch.float64, requires_grad=True), atol=1e-4, rtol=1e-4)


def test_the_finite_time_gradient_runs_under_vmap() -> None:
    _, k_ss = kernels(3)

    def total(k_ss: Tensor) -> Tensor:
        return kernel_coefficients(k_ss, torch.ones_like(k_ss[:, :1]), inner_time=0.7, inner_reg=0.1).sum()

    together = vmap(grad(total))(k_ss)
    for kernel, found in zip(k_ss, together, strict=True):
        torch.testing.assert_close(found, grad(total)(kernel))
