import copy
import math

import pytest
import torch
from torch import nn

from metantk_nas.networks.build import build_network, build_shared
from metantk_nas.networks.init import initialise
from tests.contracts.space import draw
from tests.networks.chunks import SPACES, build_alone, small


@pytest.mark.parametrize("name", SPACES)
def test_a_weight_is_the_same_alone_and_in_the_shared_network(name: str) -> None:
    space = small(name)
    shared = build_shared(space, n_outputs=3, in_channels=2, seed=5).state_dict()
    for genotype in draw(space, 3):
        alone = build_alone(space, genotype, seed=5).state_dict()
        assert alone.keys() <= shared.keys()
        assert all(torch.equal(value, shared[name]) for name, value in alone.items())


def test_no_two_layers_and_no_two_seeds_share_their_weights() -> None:
    weights = [
        parameter.flatten()[:4].tolist()
        for seed in (0, 1)
        for parameter in build_shared(small("darts"), n_outputs=3, in_channels=2, seed=seed).parameters()
        if parameter.ndim > 1
    ]
    assert len({tuple(some) for some in weights}) == len(weights)


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    space = small("darts_fewshot")
    built = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        shared = build_shared(space, n_outputs=3, in_channels=2, seed=0)
        alone = build_network(draw(space, 1)[0], space, n_outputs=3, in_channels=2)
        assert torch.equal(torch.get_rng_state(), before)
        built.append([*shared.parameters(), *alone.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*built, strict=True))


def layers() -> nn.Sequential:
    """A convolution, a depthwise one, a normalisation and a head."""
    return nn.Sequential(
        nn.Conv2d(8, 64, 3), nn.Conv2d(64, 64, 5, groups=64), nn.BatchNorm2d(64), nn.GroupNorm(4, 64), nn.Linear(64, 50)
    )


def test_convolutions_are_kaiming_normal_by_fan_out() -> None:
    network = layers()
    initialise(network, 0, kaiming_head=True)
    for layer, fan_out in ((network[0], 64 * 9), (network[1], 64 * 25), (network[4], 50)):
        assert layer.weight.mean().abs() < 0.1 * math.sqrt(2 / fan_out)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert not layer.bias.any()


def test_a_head_to_train_is_uniform_by_fan_in() -> None:
    network = layers()
    initialise(network, 0, kaiming_head=False)
    head = network[4].weight
    assert 0.99 / 8 < head.abs().max().item() <= 1 / 8
    assert head.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)
    assert not network[4].bias.any()


def test_normalisation_returns_to_its_identity() -> None:
    network = layers()
    fresh = {name: value for name, value in copy.deepcopy(network.state_dict()).items() if name[0] in "23"}
    for value in network.state_dict().values():
        value.add_(1)
    initialise(network, 0, kaiming_head=True)
    state = network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in fresh.items())


def test_weights_keep_the_precision_of_the_network() -> None:
    single, double = layers(), layers().double()
    for network in (single, double):
        initialise(network, 0, kaiming_head=True)
    assert torch.equal(double[0].weight, single[0].weight.double())
