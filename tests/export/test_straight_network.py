"""The network without routing, which programs are traced from, against the one that trains."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metantk_nas.export.straight import live_nodes, straighten
from metantk_nas.spaces.genotype import Cell
from tests.export.networks import close, conv4, subject_in
from tests.networks.chunks import SPACES, small
from tests.spaces.strategies import genotypes, spaces


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_it_equals_the_network_that_trains_for_any_genotype(data):
    space = data.draw(spaces(max_nodes=5))
    subject = subject_in(space, data.draw(genotypes(space)))
    network = subject.network.double()
    images = torch.rand(3, 3, 9, 11, dtype=torch.float64)
    straight = straighten(network, subject.genotype)
    with torch.no_grad():
        assert close(straight(images), network(images), 1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_it_shares_the_weights_under_the_same_names(name):
    network = subject_in(small(name)).network
    straight = straighten(network, subject_in(small(name)).genotype)
    own, shared = dict(network.named_parameters()), dict(straight.named_parameters())
    assert own.keys() == shared.keys()
    assert all(own[key] is shared[key] for key in own)


def test_a_network_without_cells_stays_as_it_is():
    network = conv4().network
    assert straighten(network, None) is network


@pytest.mark.parametrize(
    ("cell", "n_inputs", "output", "expected"),
    [
        (((("skip_connect", 0),), (("skip_connect", 0),)), 1, "last", [1]),
        (((("skip_connect", 0),), (("skip_connect", 1),)), 1, "last", [0, 1]),
        (((("skip_connect", 0),), (("none", 1), ("skip_connect", 0))), 1, "last", [1]),
        (((("skip_connect", 0),), (("skip_connect", 1),)), 2, "last", [1]),
        (((("none", 0),), (("none", 1),)), 1, "concat", [0, 1]),
        (((("nor_conv_1x1", 0),), (("nor_conv_1x1", 1),), (("nor_conv_1x1", 1),)), 1, "last", [0, 2]),
    ],
)
def test_dead_nodes_are_found(cell: Cell, n_inputs: int, output: str, expected: list[int]):
    assert live_nodes(cell, n_inputs, output) == expected


def test_dead_nodes_never_matter():
    """Whatever the weights of a node that reaches no output are, the output stays."""
    space = replace(small("nas_bench_201"))
    text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    subject = subject_in(space, space.parse(text))
    images = subject.images(2)
    with torch.no_grad():
        before = subject.network(images)
        for name, parameter in subject.network.named_parameters():
            if ".ops.0_" in name or ".ops.1_" in name:
                parameter.fill_(torch.nan)
        assert torch.equal(straighten(subject.network, subject.genotype)(images), before)
