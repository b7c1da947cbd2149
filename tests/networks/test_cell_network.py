from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metantk_nas.networks.build import build_network, build_shared, resize
from metantk_nas.networks.cell import drop_path
from metantk_nas.networks.network import route
from metantk_nas.networks.ops import FactorizedReduction
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Skeleton, Space
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone, images, small
from tests.spaces.strategies import genotypes, spaces


def with_first_edge(space: Space, genotype: Genotype, op: str) -> Genotype:
    """The genotype with another operation on the first edge of its second nodes, reading the first state."""
    cells = []
    for cell_type, cell in genotype.cells:
        before, (first, *rest), *after = cell
        taken = {index for _, index in rest}
        cells.append((cell_type, (before, ((op, min({0, first[1]} - taken)), *rest), *after)))
    changed = Genotype(tuple(cells))
    space.check(changed)
    return changed


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_in_any_space_logits_in_a_chunk_are_those_of_the_candidates_alone(data: st.DataObject) -> None:
    space = data.draw(spaces(max_nodes=3, max_ops=4))
    chunk = data.draw(st.lists(genotypes(space), min_size=1, max_size=5))
    size = data.draw(st.sampled_from([3, 8, 9]))
    network = build_shared(space, n_outputs=3, in_channels=2, seed=1).double()
    found = network(images(2, size=size), route(space, chunk)).unflatten(0, (len(chunk), 2))
    for logits, genotype in zip(found, chunk, strict=True):
        alone = build_alone(space, genotype, seed=1).double()
        torch.testing.assert_close(logits, alone(images(2, size=size)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SPACES)
def test_what_everybody_skips_is_not_overwritten_by_what_some_add(name: str) -> None:
    """All candidates skip on the same edge and differ on another of the node: nobody's input may change."""
    space = small(name)
    chunk = draw(space, 6)
    skipping = [with_first_edge(space, genotype, "skip_connect") for genotype in chunk]
    network = build_shared(space, n_outputs=3, in_channels=2, seed=0).double()
    found = network(images(2), route(space, skipping)).unflatten(0, (6, 2))
    for logits, genotype in zip(found, skipping, strict=True):
        torch.testing.assert_close(logits, network(images(2), route(space, [genotype])), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SPACES)
def test_the_order_of_a_chunk_is_the_order_of_its_logits(name: str) -> None:
    space = small(name)
    network, chunk = build_shared(space, n_outputs=3, in_channels=2, seed=0).double(), draw(space, 4)
    order = [2, 0, 3, 1]
    before = network(images(2), route(space, chunk)).unflatten(0, (4, 2))
    after = network(images(2), route(space, [chunk[i] for i in order])).unflatten(0, (4, 2))
    torch.testing.assert_close(after, before[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [15, 28])
@pytest.mark.parametrize("name", SPACES)
def test_any_image_size_works(name: str, size: int) -> None:
    space = small(name)
    network = build_network(draw(space, 1)[0], space, n_outputs=5, in_channels=3, norm="group")
    features = network.features(torch.randn(2, 3, size, size))
    assert features.shape == (2, network.n_features)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize(("n_cells", "positions"), [(8, [2, 5]), (5, [1, 3]), (3, [1, 2]), (20, [6, 13])])
def test_reduction_cells_stand_at_a_third_and_two_thirds_and_double_the_channels(
    n_cells: int, positions: list[int]
) -> None:
    space = resize(load_space("darts"), init_channels=4, n_cells=n_cells)
    network = build_network(draw(space, 1)[0], space, n_outputs=5, in_channels=3)
    assert [i for i, cell_type in enumerate(network.cell_types) if cell_type == "reduce"] == positions
    reductions_so_far = [sum(position <= i for position in positions) for i in range(n_cells)]
    assert [cell.channels for cell in network.cells_in_order] == [4 * 2**n for n in reductions_so_far]
    assert network.n_features == 4 * 4 * 4  # four nodes of four times the channels
    assert not network.bridges


def test_nas_bench_201_reduces_by_residual_blocks_between_its_stages() -> None:
    space = load_space("nas_bench_201")
    network = build_network(draw(space, 1)[0], space, n_outputs=10, in_channels=3)
    assert list(network.bridges) == ["5", "10"]
    assert [cell.channels for cell in network.cells_in_order] == [16] * 5 + [32] * 5 + [64] * 5
    assert (network.stem[0].out_channels, network.n_features) == (16, 64)
    assert isinstance(network.final[0], nn.BatchNorm2d)


@pytest.mark.parametrize(("name", "channels"), [("darts", 12), ("darts_fewshot", 4), ("nas_bench_201", 4)])
def test_the_stem_has_its_multiple_of_the_channels(name: str, channels: int) -> None:
    network = build_network(draw(small(name), 1)[0], small(name), n_outputs=5, in_channels=3)
    assert network.stem[0].out_channels == channels


def test_inputs_of_a_darts_cell_are_brought_to_its_channels_and_resolution() -> None:
    """ReLU, 1×1 convolution, norm; a factorised reduction where the previous cell reduced."""
    space = resize(load_space("darts"), init_channels=4, n_cells=5)
    network = build_network(draw(space, 1)[0], space, n_outputs=5, in_channels=3)
    factorised = [[isinstance(m, FactorizedReduction) for m in cell.preprocess] for cell in network.cells_in_order]
    assert factorised == [[False, False], [False, False], [True, False], [False, False], [True, False]]
    assert [type(module) for module in network.cells[0].preprocess[0]] == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]


def test_the_scored_network_ends_with_norm_and_relu_and_the_trained_one_as_its_space_says() -> None:
    space = small("darts")
    shared = build_shared(space, n_outputs=3, in_channels=2, seed=0)
    assert [type(module) for module in shared.final] == [nn.GroupNorm, nn.ReLU]
    assert isinstance(build_network(draw(space, 1)[0], space, n_outputs=3, in_channels=2).final, nn.Identity)


@pytest.mark.parametrize("n_inputs", [1, 2])
@pytest.mark.parametrize("reduce_at", [(Fraction(0),), (Fraction(0), Fraction(1, 3)), (Fraction(1, 3), Fraction(1, 2))])
def test_reductions_may_stand_anywhere(n_inputs: int, reduce_at: tuple[Fraction, ...]) -> None:
    skeleton = Skeleton(init_channels=2, n_cells=6, reduce_at=reduce_at)
    for cell_types in (("cell",), ("normal", "reduce")):
        space = replace(
            load_space("darts"), cell_types=cell_types, n_inputs=n_inputs, edges_per_node=None, skeleton=skeleton
        )
        network = build_network(draw(space, 1)[0], space, n_outputs=3, in_channels=2, norm="group")
        assert network(images(2, size=9).float()).shape == (2, 3)
        assert network.n_features == 4 * 2 * 2 ** len(reduce_at)


def test_a_cell_without_a_path_outputs_the_heads_bias() -> None:
    space = small("nas_bench_201")
    network = build_network(NOTHING, space, n_outputs=3, in_channels=2)
    network.head.bias.data = torch.tensor([1.0, 2.0, 3.0])
    assert network.eval()(images(2).float()).tolist() == [[1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_cell_without_a_path_can_be_trained(norm: str) -> None:
    """Its last normalisation sees a constant, over which PyTorch 2.13 crashes if channels come last in memory."""
    network = build_network(NOTHING, small("nas_bench_201"), n_outputs=3, in_channels=2, norm=norm)
    network(images(4).float()).square().sum().backward()
    assert network.head.bias.grad is not None
    assert network.final[0].bias.grad is not None


def test_a_shared_network_asks_for_a_chunk() -> None:
    with pytest.raises(ValueError, match="pass the chunk to evaluate"):
        build_shared(small("nas_bench_201"), n_outputs=3, in_channels=2, seed=0)(images(1).float())


def test_a_routing_lists_the_users_of_each_choice() -> None:
    space = small("nas_bench_201")
    chunk = [
        space.parse("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"),
        space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"),
    ]
    routing = route(space, chunk)["cell"]
    assert routing.n_candidates == 2
    assert {choice: users.tolist() for choice, users in routing.users.items()} == {
        (0, 0, "nor_conv_3x3"): [1],
        (0, 0, "skip_connect"): [0],
        (2, 2, "nor_conv_1x1"): [0, 1],
    }


def test_a_subspace_uses_every_live_operation_and_equals_the_sum_of_them() -> None:
    """Un-pruned networks run beside finished ones in one chunk, each as if it were alone."""
    space = small("darts_fewshot")
    network, (genotype,) = build_shared(space, n_outputs=3, in_channels=2, seed=0).double(), draw(space, 1)
    whole = space.subspace()
    edge, ops = whole.slots[3]
    chunk = [whole, genotype, whole.without(edge, ops[2])]
    together = network(images(2).double(), route(space, chunk)).unflatten(0, (3, 2))
    for found, architecture in zip(together, chunk, strict=True):
        alone = network(images(2).double(), route(space, [architecture]))
        torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-10)
    assert (together[0] - together[2]).abs().min() > 1e-6


def test_users_say_whose_rows_each_module_sees() -> None:
    space = small("darts_fewshot")
    network, chunk = build_shared(space, n_outputs=3, in_channels=2, seed=0), draw(space, 3)
    seen: dict[nn.Module, int] = {}
    handles = [
        module.register_forward_hook(lambda module, args, _: seen.update({module: len(args[0])}))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.GroupNorm)
    ]
    used = route(space, chunk)
    network(images(2).float(), used)
    for handle in handles:
        handle.remove()
    users = dict(network.users(used))
    assert set(users) & set(seen)
    assert all(module in seen for module in users if isinstance(module, nn.Conv2d | nn.GroupNorm))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            assert module not in seen or seen[module] == 2 * len(users.get(module, range(3)))


def test_drop_path_drops_whole_rows_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    rows = drop_path(torch.ones(20_000, 2, 1, 1), 0.3)[:, :, 0, 0]
    assert torch.equal(rows[:, 0], rows[:, 1])
    torch.testing.assert_close(rows.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert rows.mean().item() == pytest.approx(1, abs=0.02)


def test_drop_path_is_on_in_training_alone_and_spares_identities() -> None:
    space, rows = small("nas_bench_201"), images(64).float()
    convolutions = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    identities = space.parse("|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")
    for genotype, drops in ((convolutions, True), (identities, False)):
        network = build_network(genotype, space, n_outputs=3, in_channels=2, norm="group")
        before = network.train()(rows)
        network.drop_path_prob = 0.5
        assert network.drop_path_prob == 0.5
        assert torch.equal(network.train()(rows), before) is not drops
        assert torch.equal(network.eval()(rows), before)
