import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import vmap
from torch.nn.functional import one_hot

from metantk_nas.kernels.svm import svm_coefficients


def rows(n_way: int, n_shot: int, n_features: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n_way + n_shot)
    labels = torch.arange(n_way).repeat_interleave(n_shot)
    centres = torch.randn(n_way, n_features, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), n_features, generator=generator, dtype=torch.float64)
    return (centres[labels] + 1.5 * noise) / n_features**0.5, labels


def objective(weights: Tensor, x: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """The primal, ``½ ‖W‖² + C Σ_n max_k (1 − [k = y_n] + w_k·x_n − w_{y_n}·x_n)``."""
    scores = x @ weights.T
    margins = 1 - one_hot(labels, len(weights)) + scores - scores.gather(1, labels[:, None])
    return weights.square().sum() / 2 + penalty * margins.max(dim=1).values.sum()


@pytest.mark.parametrize(("n_way", "n_shot"), [(2, 5), (5, 1), (5, 5), (8, 3)])
@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_it_equals_the_linear_machine_of_crammer_and_singer_in_scikit_learn(
    n_way: int, n_shot: int, penalty: float
) -> None:
    x, labels = rows(n_way, n_shot)
    coefficients = svm_coefficients(x @ x.T, one_hot(labels).double(), penalty=penalty)
    found = (x.T @ coefficients).T
    machine = LinearSVC(multi_class="crammer_singer", C=penalty, fit_intercept=False, tol=1e-10, max_iter=10**6)
    machine.fit(x.numpy(), labels.numpy())
    found = found[1:] - found[:1] if n_way == 2 else found  # of two classes scikit-learn keeps the difference
    # the interior point stops a billionth of C before the boundary
    torch.testing.assert_close(found, torch.from_numpy(machine.coef_), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_features", [4, 30])
def test_primal_and_dual_meet_and_the_constraints_hold(n_features: int) -> None:
    """Four features for forty rows: the kernel is singular and the rows cannot be told apart."""
    x, labels = rows(4, 10, n_features)
    targets = one_hot(labels).double()
    alpha = svm_coefficients(x @ x.T, targets, penalty=2.0)
    weights = (x.T @ alpha).T
    dual = (alpha * targets).sum() - weights.square().sum() / 2
    assert objective(weights, x, labels, 2.0).item() == pytest.approx(dual.item(), rel=1e-5)
    assert (alpha <= 2.0 * targets + 1e-12).all()
    assert alpha.sum(1).abs().max() < 1e-5


def test_its_derivative_is_that_of_the_solution() -> None:
    """Against finite differences, with some margins exact, some violated and some slack."""
    x, labels = rows(3, 4, 8)
    targets = one_hot(labels).double()

    def weights(x: Tensor) -> Tensor:
        return x.T @ svm_coefficients(x @ x.T, targets, penalty=1.0)

    assert gradcheck(weights, x.requires_grad_(), eps=1e-5, atol=1e-4)


def test_single_precision_is_solved_in_double() -> None:
    x, labels = rows(5, 5)
    targets = one_hot(labels).double()
    found = svm_coefficients((x @ x.T).float(), targets.float(), penalty=1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), svm_coefficients(x @ x.T, targets, penalty=1.0), rtol=1e-4, atol=1e-5)


def test_problems_are_solved_together() -> None:
    x, labels = rows(5, 3)
    targets = one_hot(labels).double()
    kernels = torch.stack([x @ x.T, 2 * x @ x.T])
    together = vmap(lambda k_ss: svm_coefficients(k_ss, targets, penalty=1.0))(kernels)
    for kernel, found in zip(kernels, together, strict=True):
        torch.testing.assert_close(found, svm_coefficients(kernel, targets, penalty=1.0))
