"""Flat parameters and genotypes are the same thing, written twice."""

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metantk_nas.errors import GenotypeError
from metantk_nas.spaces.flat import decode, encode, parameters
from metantk_nas.spaces.load import available_spaces, load_space
from tests.spaces.strategies import genotypes, spaces


@pytest.mark.parametrize("name", available_spaces())
def test_there_are_as_many_assignments_as_genotypes(name):
    space = load_space(name)
    assert math.prod(map(len, parameters(space).values())) == space.size


def test_every_assignment_of_nas_bench_201_is_a_genotype_of_its_own():
    space = load_space("nas_bench_201")
    names = ["op_0_1", "op_0_2", "op_1_2", "op_0_3", "op_1_3", "op_2_3"]
    assert list(parameters(space)) == names
    found = {decode(space, dict(zip(names, ops, strict=True))) for ops in product(space.ops, repeat=6)}
    assert found == set(space.genotypes())


def test_names_and_values_say_what_they_mean():
    space = load_space("darts_fewshot")
    genotype = space.sample(random.Random(0))
    values = encode(space, genotype)
    first, second = genotype.cell("reduce")[2]
    assert values["reduce_n2_in"] == f"{first[1]},{second[1]}"
    assert (values["reduce_n2_op0"], values["reduce_n2_op1"]) == (first[0], second[0])
    assert "reduce_n0_in" not in values  # it has two inputs to read and reads both


@given(data=st.data())
def test_decode_undoes_encode(data):
    space = data.draw(spaces())
    genotype = data.draw(genotypes(space))
    values = encode(space, genotype)
    assert values.keys() == parameters(space).keys()
    assert all(value in parameters(space)[name] for name, value in values.items())
    assert decode(space, {**values, "learning_rate": "0.1"}) == genotype


def test_what_is_no_genotype_is_refused():
    space = load_space("nas_bench_201")
    values = encode(space, next(space.genotypes()))
    with pytest.raises(GenotypeError, match="'op_0_2' is missing"):
        decode(space, {name: value for name, value in values.items() if name != "op_0_2"})
    with pytest.raises(GenotypeError, match="Did you mean 'nor_conv_3x3'"):
        decode(space, {**values, "op_0_1": "nor_conv_3x4"})
    with pytest.raises(GenotypeError):
        encode(load_space("darts"), next(space.genotypes()))
