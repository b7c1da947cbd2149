import pytest
import torch

from metantk_nas.kernels import precision
from metantk_nas.kernels.precision import exact_float32, onednn_is_exact, outer_product


def test_products_keep_the_digits_of_float32() -> None:
    """Inside the context products are as exact as float32 allows; TF32 or bfloat16 would be off by 1e-3."""
    left, right = torch.randn(2, 6, 40, 900, generator=torch.Generator().manual_seed(0)).unbind()
    exact = left.double() @ right.double().mT
    with exact_float32():
        for product in (left @ right.mT, torch.stack([a @ b.T for a, b in zip(left, right, strict=True)])):
            assert (product - exact).norm() < 2e-6 * exact.norm()


def test_the_setting_is_given_back_whatever_happens() -> None:
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # set up at run time
    before = settings.fp32_precision

    @exact_float32()
    def fail() -> None:
        assert settings.fp32_precision == ("bf16" if onednn_is_exact() else before)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert settings.fp32_precision == before


def test_a_library_with_fewer_digits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with matrix tiles would compute in bfloat16; it keeps PyTorch's own products."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    precision.onednn_is_exact.cache_clear()
    try:
        assert not onednn_is_exact()
    finally:
        precision.onednn_is_exact.cache_clear()


@pytest.mark.parametrize("n_candidates", [1, 3])
def test_an_outer_product_is_that_of_each_candidate(n_candidates: int) -> None:
    jacobian = torch.randn(n_candidates, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(outer_product(jacobian), torch.einsum("crp,csp->crs", jacobian, jacobian))
