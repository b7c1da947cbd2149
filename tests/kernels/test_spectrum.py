import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metantk_nas.kernels.spectrum import Spectra, spectra


def with_eigenvalues(*eigenvalues: float) -> Tensor:
    """A symmetric kernel with these eigenvalues and no special directions."""
    size = len(eigenvalues)
    random = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(random)
    return rotation @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ rotation.T


def spectrum(*eigenvalues: float, compute_dtype: torch.dtype = torch.float32) -> Spectra:
    return spectra(with_eigenvalues(*eigenvalues)[None], compute_dtype=compute_dtype)


positive = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


@settings(deadline=None)
@given(positive)
def test_every_number_is_that_of_the_eigenvalues(eigenvalues: list[float]) -> None:
    found, ordered = spectrum(*eigenvalues), sorted(eigenvalues)
    assert found.status == ("ok",)
    assert found.reason == ("",)
    torch.testing.assert_close(found.eigenvalues[0], torch.tensor(ordered, dtype=torch.float64))
    assert found.smallest.item() == pytest.approx(ordered[0])
    assert found.largest.item() == pytest.approx(ordered[-1])
    assert found.condition_number.item() == pytest.approx(ordered[-1] / ordered[0])
    assert found.trace.item() == pytest.approx(sum(ordered))
    weights = [value / sum(ordered) for value in ordered]
    assert found.spectral_entropy.item() == pytest.approx(-sum(p * math.log(p) for p in weights))


@settings(deadline=None)
@given(positive)
def test_entropy_and_effective_rank_are_bounded(eigenvalues: list[float]) -> None:
    found, size = spectrum(*eigenvalues), len(eigenvalues)
    assert 0 <= found.spectral_entropy.item() <= math.log(size) + 1e-12
    assert 1 <= found.effective_rank.item() <= size + 1e-9


def test_equal_eigenvalues_have_the_full_effective_rank() -> None:
    assert spectrum(3, 3, 3, 3).effective_rank.item() == pytest.approx(4)
    assert spectrum(3, 3, 3, 3).spectral_entropy.item() == pytest.approx(math.log(4))


@settings(deadline=None)
@given(positive, st.floats(1e-3, 1e3))
def test_scaling_a_kernel_keeps_its_condition_number(eigenvalues: list[float], scale: float) -> None:
    before, after = spectrum(*eigenvalues), spectrum(*(scale * value for value in eigenvalues))
    assert after.condition_number.item() == pytest.approx(before.condition_number.item())
    assert after.spectral_entropy.item() == pytest.approx(before.spectral_entropy.item())
    assert after.trace.item() == pytest.approx(scale * before.trace.item())
    assert after.status == before.status


@pytest.mark.parametrize("smallest", [0.0, 1e-9, -1e-9, -1e-5, -0.5])
def test_a_kernel_that_is_singular_to_working_precision_is_not_ok(smallest: float) -> None:
    """In float32 two rows that should be equal give a smallest eigenvalue of either sign."""
    found = spectrum(smallest, 1, 2)
    assert found.status == ("singular",)
    assert "is zero to working precision (largest 2): images that the network cannot tell apart" in found.reason[0]


def test_the_threshold_follows_the_precision_of_the_entries() -> None:
    assert spectrum(1e-9, 1, 2, compute_dtype=torch.float64).status == ("ok",)
    assert spectrum(1e-16, 1, 2, compute_dtype=torch.float64).status == ("singular",)
    epsilon = torch.finfo(torch.float32).eps
    assert spectrum(2 * 3 * epsilon, 1, 1).status == ("ok",)
    assert spectrum(0.5 * 3 * epsilon, 1, 1).status == ("singular",)


@pytest.mark.parametrize("kernel", [torch.zeros(3, 3), -torch.eye(3)])
def test_a_kernel_without_a_positive_eigenvalue_has_no_signal(kernel: Tensor) -> None:
    found = spectra(kernel.double()[None], compute_dtype=torch.float32)
    assert found.status == ("no_signal",)
    assert "no path from input to output" in found.reason[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_trouble_has_a_name_and_stays_with_its_own_kernel(value: float) -> None:
    broken = with_eigenvalues(1, 2, 3)
    broken[0, 1] = value
    found = spectra(
        torch.stack([with_eigenvalues(1, 2, 3), broken, with_eigenvalues(0, 1, 2)]), compute_dtype=torch.float32
    )
    assert found.status == ("ok", "not_finite", "singular")
    assert found.reason[1] == "entries are NaN or infinite"
    assert found.eigenvalues[1].isnan().all()
    assert found.condition_number[1].isnan()
    assert found.condition_number[0].item() == pytest.approx(3)
