import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.scorers.findings import findings, spread


def test_what_has_a_signal_and_numbers_is_ok() -> None:
    (finding,) = findings({"a": torch.tensor([2.0]), "b": torch.tensor([0.0])}, torch.tensor([1.0]))
    assert (finding.values, finding.status, finding.reason) == ({"a": 2.0, "b": 0.0}, "ok", "")


@pytest.mark.parametrize(
    ("value", "signal", "status", "reason"),
    [
        (1.0, 0.0, "no_signal", "no path from input to output"),
        (math.nan, 0.0, "no_signal", "no path from input to output"),
        (1.0, math.nan, "not_finite", "NaN or infinite"),
        (math.inf, 1.0, "not_finite", "NaN or infinite"),
        (math.nan, 1.0, "not_finite", "NaN or infinite"),
    ],
)
def test_trouble_has_a_name_and_leaves_no_value(value: float, signal: float, status: str, reason: str) -> None:
    columns = {"a": torch.tensor([5.0, value]), "b": torch.tensor([6.0, 7.0])}
    healthy, sick = findings(columns, torch.tensor([1.0, signal]))
    assert healthy.status == "ok"
    assert sick.status == status
    assert reason in sick.reason
    assert all(math.isnan(number) for number in sick.values.values())


@settings(deadline=None)
@given(st.integers(2, 40), st.floats(1e-6, 1e6), st.sampled_from([torch.float32, torch.float64]))
def test_rows_that_differ_by_rounding_alone_have_no_spread(n_rows: int, scale: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n_rows)
    row = scale * torch.randn(1, 1, 8, generator=generator, dtype=dtype)
    noise = torch.finfo(dtype).eps / 4 * torch.randn(2, n_rows, 8, generator=generator, dtype=dtype)
    rows = row * (1 + noise)
    assert spread(rows).tolist() == [0, 0]
    rows[1, 0] *= 1.01
    assert spread(rows)[0] == 0
    assert spread(rows)[1] > 0


@settings(deadline=None)
@given(st.floats(1e-3, 1e3))
def test_spread_grows_with_its_rows(scale: float) -> None:
    rows = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(spread(scale * rows), scale * spread(rows))
    assert spread(rows)[0].item() == pytest.approx(math.sqrt(4 * 5 * rows[0].var(0, correction=0).mean().item()))
