import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metantk_nas.networks.build import build_network, resize
from metantk_nas.networks.cost import CostModel
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, small

HEAD_BIASES = 10
"""The benchmark counts their additions too; ours are the products alone."""


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def measured_macs(network: nn.Module, *shape: int) -> float:
    """Half of the floating-point operations that PyTorch counts while the network runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() / 2


def measured_activations(network: nn.Module, *shape: int) -> int:
    sizes: list[int] = []
    layers = [module for module in network.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(lambda *call: sizes.append(call[2].numel())) for layer in layers]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(sizes)


def test_every_cell_of_nas_bench_201_has_the_published_parameters_and_flops(
    nas_bench_201_rows: list[dict[str, str]],
) -> None:
    space = load_space("nas_bench_201")
    cost = CostModel(space, n_outputs=10, in_channels=3, image_size=32)
    assert len(nas_bench_201_rows) == 15_625
    for row in nas_bench_201_rows:
        found = cost(space.parse(row["arch_str"]))
        assert found.params == int(row["params_cifar10"]), row["arch_str"]
        assert Decimal(found.macs + HEAD_BIASES) == 1_000_000 * Decimal(row["flops_cifar10_M"]), row["arch_str"]


def published(data_folder: Path) -> list[tuple[Space, Genotype, dict[str, Any]]]:
    found = []
    for record in json.loads((data_folder / "searched_fewshot_genotypes.json").read_text()):
        space = resize(load_space("darts_fewshot"), init_channels=record["init_channels"], n_cells=record["n_cells"])
        cells = [
            (cell_type, tuple(tuple((op, source) for op, source in node) for node in record[cell_type]))
            for cell_type in space.cell_types
        ]
        found.append((space, Genotype(tuple(cells)), record))
    return found


def test_the_published_few_shot_genotypes_have_the_published_parameters(data_folder: Path) -> None:
    records = published(data_folder)
    assert len(records) == 6
    costs = {space: CostModel(space, n_outputs=64, in_channels=3, image_size=32) for space, _, _ in records}
    for space, genotype, record in records:
        space.check(genotype)
        network = build_network(genotype, space, n_outputs=64, in_channels=3)
        assert n_parameters(network) == costs[space](genotype).params == record["params_with_head"]
        assert n_parameters(network) - n_parameters(network.head) == record["params_without_head"]


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 15)])
@pytest.mark.parametrize("name", SPACES)
def test_costs_are_those_of_the_network_that_is_built(name: str, channels: int, size: int) -> None:
    space = small(name)
    cost = CostModel(space, n_outputs=7, in_channels=channels, image_size=size)
    for genotype in draw(space, 4):
        network, found = build_network(genotype, space, n_outputs=7, in_channels=channels), cost(genotype)
        assert found.params == n_parameters(network)
        assert found.macs == measured_macs(network, channels, size, size)
        assert found.activations == measured_activations(network, channels, size, size)


def test_none_is_free_and_a_foreign_operation_is_no_none() -> None:
    space = small("nas_bench_201")
    cost = CostModel(space, n_outputs=7, in_channels=3, image_size=8)
    network = build_network(NOTHING, space, n_outputs=7, in_channels=3)
    assert cost(space.parse(NOTHING)).params == n_parameters(network)
    foreign = Genotype((("cell", ((("sep_conv_3x3", 0),), (), ())),))
    with pytest.raises(KeyError, match="sep_conv_3x3"):
        cost(foreign)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_live_gets_a_gradient(seed: int) -> None:
    space = small("nas_bench_201")
    genotype = next(found for found in draw(space, 100, seed) if space.is_connected(found))
    model = CostModel(space, n_outputs=3, in_channels=3, image_size=8)
    network = build_network(genotype, space, n_outputs=3, in_channels=3, seed=0)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    network(images).square().sum().backward()
    weights = [each for each in network.parameters() if each.ndim > 1]
    reached = [each.numel() for each in weights if each.grad is not None and each.grad.any()]
    alone = build_network(space.representative(genotype), space, n_outputs=3, in_channels=3, seed=0)
    assert sum(each.numel() for each in alone.parameters() if each.ndim > 1) == sum(reached)
    assert model.live(genotype).params == sum(each.numel() for each in alone.parameters()) <= model(genotype).params


def test_genotypes_of_one_function_have_one_live_cost() -> None:
    space = small("nas_bench_201")
    model = CostModel(space, n_outputs=3, in_channels=3, image_size=8)
    dead = "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    alive = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    assert model.live(space.parse(dead)) == model.live(space.parse(alive))
    assert model.live(space.parse(dead)).params == model(space.parse(alive)).params
    assert model(space.parse(dead)).params > model(space.parse(alive)).params
    assert model.live(space.subspace()) == model(space.subspace())
