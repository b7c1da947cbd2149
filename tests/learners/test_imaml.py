from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.base import MetaModel, meta_parameters
from metantk_nas.learners.imaml import Imaml, conjugate_gradient
from metantk_nas.learners.inner_loop import fit_loss, flatten
from tests.contracts.gradients import check_meta_gradient, gradient
from tests.contracts.learner import LearnerContract


class TestImaml(LearnerContract):
    name = "imaml"
    settings = {"inner_lr": 0.2, "inner_steps": 4, "inner_steps_test": 4, "cg_steps": 2}  # noqa: RUF012 (a constant of the test)
    n_train = 60


class LinearModel(nn.Module):
    """Logistic regression on six numbers: with the proximal term, a strongly convex inner problem."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def features(self, rows: Tensor) -> Tensor:
        return rows


def convex_case() -> tuple[MetaModel, Episode]:
    torch.manual_seed(0)
    rows, labels = torch.randn(18, 6, dtype=torch.float64), torch.arange(18) % 3
    return MetaModel(LinearModel().double()), Episode(rows[:6], labels[:6], rows[6:], labels[6:], 3, ())


def unrolled_gradient(learner: Imaml, model: MetaModel, episode: Episode) -> Tensor:
    """The meta-gradient of MAML: back through every step of the proximal descent, by plain autograd."""
    start = [value.detach().clone().requires_grad_() for value in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    support, query = (
        fit_loss(model, images, labels)
        for images, labels in (
            (episode.support_images, episode.support_labels),
            (episode.query_images, episode.query_labels),
        )
    )
    fast = start
    for _ in range(learner.inner_steps):
        distance = sum(((a - b) ** 2).sum() for a, b in zip(fast, start, strict=True))
        loss = support(dict(zip(names, fast, strict=True))) + learner.inner_reg / 2 * distance
        slopes = torch.autograd.grad(loss, fast, create_graph=True)
        fast = [value - learner.inner_lr * slope for value, slope in zip(fast, slopes, strict=True)]
    found = torch.autograd.grad(query(dict(zip(names, fast, strict=True))), start)
    return torch.cat([part.flatten() for part in found])


def test_the_gradient_approaches_that_of_maml_as_the_inner_loop_converges() -> None:
    model, episode = convex_case()
    errors = []
    for inner_steps in (5, 20, 80, 320):
        learner = Imaml(inner_reg=0.3, inner_lr=0.3, inner_steps=inner_steps, cg_steps=30, cg_damping=0.0)
        expected = unrolled_gradient(learner, model, episode)
        found = flatten(gradient(learner, model, episode))
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-8


def test_the_gradient_is_the_derivative_of_the_converged_loss() -> None:
    learner = Imaml(inner_reg=0.3, inner_lr=0.3, inner_steps=300, cg_steps=30, cg_damping=0.0)
    check_meta_gradient(learner, *convex_case())


@pytest.mark.parametrize("damping", [0.0, 4.0])
def test_the_gradient_solves_the_implicit_equation(damping: float) -> None:
    """(I + ∇²L_S(φ)/(λ + δ)) g = ∇L_Q(φ), with a dense Hessian, wherever the inner loop has stopped."""
    learner = Imaml(inner_reg=0.7, inner_lr=0.2, inner_steps=3, cg_steps=30, cg_damping=damping)
    model, episode = convex_case()
    parameters = meta_parameters(learner, model)
    end = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=3)
    vector = flatten(end).detach()

    def on(images: Tensor, labels: Tensor, vector: Tensor) -> Tensor:
        weight, bias = vector[:18].reshape(3, 6), vector[18:]
        return torch.nn.functional.cross_entropy(images @ weight.T + bias, labels)

    hessian = torch.autograd.functional.hessian(lambda v: on(episode.support_images, episode.support_labels, v), vector)
    direct = torch.func.grad(lambda v: on(episode.query_images, episode.query_labels, v))(vector)
    expected = torch.linalg.solve(torch.eye(21, dtype=torch.float64) + hessian / (0.7 + damping), direct)
    torch.testing.assert_close(flatten(gradient(learner, model, episode)), expected)
    none = flatten(gradient(replace(learner, cg_steps=0), model, episode))
    torch.testing.assert_close(none, direct)


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.tensor([0.5, 0.5, 0.5, 2, 2, 2, 5, 5, 5], dtype=torch.float64)) @ basis.T
    target = torch.randn(9, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, target)
    errors = [(conjugate_gradient(lambda v: matrix @ v, target, steps=n) - exact).norm().item() for n in range(6)]
    assert errors[2] > 1e-3
    assert max(errors[3:]) < 1e-12  # and nothing happens once there is nothing left to do


@pytest.mark.parametrize("eigenvalues", [(-1.0, -2.0, -3.0), (2.0, 1.0, -4.0)])
def test_conjugate_gradients_stop_where_curvature_is_not_positive(eigenvalues: tuple[float, ...]) -> None:
    matrix, target = torch.diag(torch.tensor(eigenvalues)), torch.tensor([1.0, 2.0, 0.5])
    found = conjugate_gradient(lambda v: matrix @ v, target, steps=10)
    assert found.isfinite().all()
    assert found @ target > 0
    if max(eigenvalues) < 0:
        assert torch.equal(found, target)
