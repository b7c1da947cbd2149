import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.kernels.alignment import kernel_alignment
from metantk_nas.types import EpisodeLayout
from tests.reference.alignment import dense_alignment

LAYOUT = EpisodeLayout(n_episodes=2, n_support=3, n_query_total=6)
SUPPORT, QUERY = torch.tensor([[0, 1, 2], [2, 0, 1]]), torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 2, 1, 0]])


def rows_of(episode: int) -> list[int]:
    return [*range(6 * episode, 6 * episode + 6), *range(12 + 3 * episode, 15 + 3 * episode)]


def labels_of(episode: int) -> list[int]:
    return [*QUERY[episode].tolist(), *SUPPORT[episode].tolist()]


def random_kernels(seed: int, n: int = 2) -> torch.Tensor:
    jacobian = torch.randn(n, 18, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return jacobian @ jacobian.mT


def align(theta: torch.Tensor) -> torch.Tensor:
    return kernel_alignment(theta, LAYOUT, SUPPORT, QUERY)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_alignment_is_the_papers_mean_over_episodes(seed: int) -> None:
    theta = random_kernels(seed)
    for kernel, found in zip(theta.numpy(), align(theta).tolist(), strict=True):
        each = [dense_alignment(kernel[np.ix_(rows_of(e), rows_of(e))], labels_of(e)) for e in (0, 1)]
        assert found == pytest.approx(np.mean(each), rel=1e-10)
        assert abs(found) <= 1


def test_a_kernel_that_is_the_labels_is_aligned_with_them() -> None:
    theta = torch.zeros(18, 18, dtype=torch.float64)
    for episode in (0, 1):
        rows, labels = rows_of(episode), torch.tensor(labels_of(episode))
        theta[np.ix_(rows, rows)] = (labels[:, None] == labels).double()
    assert align(theta).item() == pytest.approx(1)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_neither_scale_nor_a_constant_matters(scale: float, shift: float) -> None:
    theta = random_kernels(0)
    torch.testing.assert_close(align(scale * theta + shift), align(theta), rtol=1e-6, atol=1e-6)


def test_what_one_episode_says_of_another_does_not_matter() -> None:
    theta = random_kernels(1)
    changed = theta.clone()
    changed[:, :6, 6:12] = changed[:, 6:12, :6] = 7
    assert torch.equal(align(changed), align(theta))


def test_a_constant_kernel_has_no_alignment() -> None:
    assert align(torch.ones(18, 18, dtype=torch.float64)).isnan()
