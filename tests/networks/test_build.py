import pytest
import torch

from metantk_nas.errors import GenotypeError, SpaceError
from metantk_nas.networks.build import ArchNetwork, build_network, resize
from metantk_nas.networks.conv4 import Conv4
from metantk_nas.spaces.load import load_space
from tests.contracts.space import draw
from tests.networks.chunks import SPACES, small


@pytest.mark.parametrize("name", SPACES)
def test_a_module_is_built_from_plain_values(name: str) -> None:
    genotype = draw(small(name), 1)[0]
    text = small(name).format(genotype)
    network = ArchNetwork(text, name, 4, 1, init_channels=4, n_cells=3, seed=2)
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 4)
    same = build_network(genotype, small(name), n_outputs=4, in_channels=1, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))


def test_conv4_needs_no_space() -> None:
    network = ArchNetwork("conv4", image_size=20)
    assert isinstance(network.network, Conv4)
    assert network(torch.randn(2, 3, 20, 20)).shape == (2, 5)


@pytest.mark.parametrize("name", SPACES)
def test_a_network_learns(name: str) -> None:
    """One step down the gradient lowers the loss, and every weight that the output sees moves."""
    space = small(name)
    network = build_network(draw(space, 1, seed=4)[0], space, n_outputs=3, in_channels=2)
    rows, labels = torch.randn(6, 2, 12, 12, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(network(rows), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_resizing_keeps_what_is_not_asked() -> None:
    space = load_space("darts")
    assert resize(space) == space
    assert resize(space, n_cells=5).skeleton.init_channels == 16
    assert resize(space, init_channels=7).skeleton.n_cells == 8
    with pytest.raises(SpaceError, match="init_channels is 0; expected 1"):
        resize(space, init_channels=0)


def test_a_genotype_of_another_space_is_refused() -> None:
    genotype = draw(small("darts_fewshot"), 1)[0]
    with pytest.raises(GenotypeError, match="has 3 nodes; cells of space 'darts' have 4"):
        build_network(genotype, small("darts"), n_outputs=3, in_channels=2)


def test_an_architecture_without_a_space_is_refused() -> None:
    with pytest.raises(GenotypeError, match="needs a search space; expected --space NAME, or --arch conv4"):
        build_network("|skip_connect~0|", None, n_outputs=3, in_channels=2)
