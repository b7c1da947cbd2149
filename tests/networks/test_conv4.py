from math import ceil

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from metantk_nas.errors import GenotypeError, ShapeError
from metantk_nas.networks.build import build_network
from metantk_nas.networks.conv4 import Conv4, conv4_variant
from metantk_nas.networks.norms import NormKind


@pytest.mark.parametrize(("image_size", "n_features"), [(28, 64), (32, 256), (84, 1600)])
def test_features_have_the_sizes_of_the_literature(image_size: int, n_features: int) -> None:
    network = Conv4(3, 5, image_size=image_size)
    images = torch.zeros(2, 3, image_size, image_size)
    assert network.n_features == n_features
    assert network.features(images).shape == (2, n_features)
    assert network(images).shape == (2, 5)


@pytest.mark.parametrize("image_size", [16, 17, 28, 31, 32, 33, 84])
def test_strides_round_up(image_size: int) -> None:
    """28 → 14 → 7 → 4 → 2, as in the code of Reptile, whose padding keeps the last row and column."""
    network = Conv4(1, 5, strided=True, image_size=image_size)
    assert network.n_features == 64 * ceil(image_size / 16) ** 2
    assert network(torch.zeros(2, 1, image_size, image_size)).shape == (2, 5)


def test_it_has_the_published_number_of_parameters() -> None:
    """ProtoNet's embedding for grey images: 111,936 (Snell et al. 2017, 64 filters, biases and norm included)."""
    network = Conv4(1, 5, image_size=28)
    assert sum(p.numel() for name, p in network.named_parameters() if "head" not in name) == 111_936


def test_it_is_built_by_its_name() -> None:
    network = build_network("conv4", None, n_outputs=7, in_channels=1, norm="batch", seed=0, image_size=28)
    assert isinstance(network, Conv4)
    assert isinstance(network.head, nn.Linear)
    assert network.head.out_features == 7


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("conv4", ((64, 64, 64, 64), False)),
        ("conv4-32", ((32, 32, 32, 32), False)),
        ("conv4-96-192-384-512", ((96, 192, 384, 512), False)),
        ("conv4-strided", ((64, 64, 64, 64), True)),
        ("conv4-32-strided", ((32, 32, 32, 32), True)),
        ("conv4-best.pt", None),
        ("|conv4~0|", None),
    ],
)
def test_the_text_says_how_many_filters_and_what_halves(
    text: str, variant: tuple[tuple[int, ...], bool] | None
) -> None:
    assert conv4_variant(text) == variant
    if variant is not None:
        widths, strided = variant
        network = build_network(text, None, n_outputs=5, in_channels=3, image_size=32)
        assert tuple(block[0].out_channels for block in network.blocks) == widths  # type: ignore[union-attr]
        assert network.n_features == 4 * widths[-1]
        assert any(isinstance(module, nn.MaxPool2d) for module in network.modules()) is not strided


@pytest.mark.parametrize(
    "text",
    [
        "conv4-0",
        "conv4-64-64",
        "conv4-1-2-3-4-5",
        "conv4-64-64-64-0",
        "conv4-2049",
        "conv4-strided-32",
        "conv4-8-strided-8",
    ],
)
def test_filters_that_do_not_make_four_blocks_are_refused(text: str) -> None:
    with pytest.raises(GenotypeError, match=f"'{text}' is no Conv-4; expected conv4, or filters as in conv4-32"):
        build_network(text, None, n_outputs=5, in_channels=3)


def test_images_too_small_for_four_poolings_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 16 pixels; got 15"):
        Conv4(1, 5, image_size=15)


@pytest.mark.parametrize(("norm", "depends"), [("batch", False), ("batch_stats", True), ("group", False)])
def test_only_batch_stats_let_an_image_see_its_neighbours(norm: NormKind, depends: bool) -> None:
    network = Conv4(1, 5, width=16, image_size=16, norm=norm).eval()
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    alone, together = network(images[:2]), network(images)[:2]
    assert torch.allclose(alone, together, atol=1e-5) is not depends


def test_batch_stats_work_under_vmap_of_a_gradient() -> None:
    network = Conv4(1, 5, width=8, image_size=16, norm="batch_stats")
    weights = {name: value.detach() for name, value in network.named_parameters()}
    images = torch.randn(3, 5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)

    def loss(weights: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(network, weights, (rows,)), labels)

    together = vmap(grad(loss), in_dims=(None, 0))(weights, images)
    for index in range(3):
        for name, value in grad(loss)(weights, images[index]).items():
            torch.testing.assert_close(together[name][index], value, rtol=1e-4, atol=1e-5)
