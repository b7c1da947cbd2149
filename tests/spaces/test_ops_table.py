import pytest

from metantk_nas.networks.ops import OPS as IMPLEMENTED
from metantk_nas.networks.ops import make_op
from metantk_nas.spaces.ops import OPS


def test_every_named_operation_is_implemented_and_the_other_way_round() -> None:
    assert set(OPS) == set(IMPLEMENTED) | {"none"}


@pytest.mark.parametrize("name", sorted(set(OPS) - {"none"}))
def test_an_operation_is_parametric_if_it_has_weights_at_stride_1(name: str) -> None:
    assert OPS[name].parametric == any(True for _ in make_op(name, channels=4, stride=1, norm="batch").parameters())


def test_exactly_one_operation_is_zero_and_one_is_the_identity() -> None:
    assert {name: traits.kind for name, traits in OPS.items() if traits.kind != "operation"} == {
        "none": "zero",
        "skip_connect": "identity",
    }


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_operation_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    assert OPS[name].description
    assert "arXiv" in OPS[name].source
