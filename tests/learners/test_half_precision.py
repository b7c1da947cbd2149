"""Sixteen bits only where the machine has them."""

import pytest
import torch

from metantk_nas.learners import precision
from metantk_nas.learners.precision import has_bfloat16, pick_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_sixteen_bits_where_the_device_has_them(monkeypatch, has, expected):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    assert pick_precision("auto", CPU) == expected
    assert pick_precision("bfloat16", CPU) == "bfloat16"
    assert pick_precision("float32", CPU) == "float32"


@pytest.mark.parametrize(
    ("instructions", "expected"), [((), False), (("avx512_bf16",), True), (("amx_tile",), True)], ids=str
)
def test_a_processor_has_them_by_its_instructions(monkeypatch, instructions, expected):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda has=name in instructions: has)
    assert has_bfloat16(CPU) is expected


def test_of_an_unknown_device_nothing_is_promised():
    assert not has_bfloat16(torch.device("meta"))
