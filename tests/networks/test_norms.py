import pytest
import torch
from torch import nn

from metantk_nas.errors import UsageError
from metantk_nas.networks.norms import held_statistics, make_norm


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (4, 4), (16, 16), (48, 16), (96, 16), (20, 10), (24, 12), (17, 1), (62, 2)]
)
def test_there_are_16_groups_or_as_many_as_divide_the_channels(channels: int, groups: int) -> None:
    norm = make_norm("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


def test_only_batch_keeps_running_statistics() -> None:
    assert list(dict(make_norm("batch", 3).named_buffers())) == ["running_mean", "running_var", "num_batches_tracked"]
    for norm in ("batch_stats", "group", "none"):
        assert not list(make_norm(norm, 3).buffers())


def test_no_normalisation_is_the_identity() -> None:
    images = torch.randn(2, 3, 4, 4)
    assert make_norm("none", 3)(images) is images


@pytest.mark.parametrize("norm", ["batch", "batch_stats", "group"])
def test_scale_and_shift_are_optional(norm: str) -> None:
    assert [p.shape for p in make_norm(norm, 4).parameters()] == [(4,), (4,)]
    assert not list(make_norm(norm, 4, affine=False).parameters())


def test_an_unknown_normalisation_is_named_with_its_near_miss() -> None:
    with pytest.raises(UsageError, match=r"normalisation 'groups' not found; .*Did you mean 'group'\?"):
        make_norm("groups", 4)


def stack(*, affine: bool) -> nn.Sequential:
    """Two layers with a normalisation after each, weights and shifts drawn."""
    torch.manual_seed(0)
    layers = [
        layer
        for n_in, n_out in ((2, 3), (3, 4))
        for layer in (nn.Conv2d(n_in, n_out, 3), make_norm("batch_stats", n_out, affine=affine), nn.Tanh())
    ]
    network = nn.Sequential(*layers).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_whose_statistics_are_held_is_normalised_as_ever(affine: bool) -> None:
    """Values, and derivatives through the statistics."""
    network = stack(affine=affine)
    images = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    weights = list(network.parameters())

    def seen(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (output, *torch.autograd.grad(output.square().sum(), weights, retain_graph=True))

    expected = seen(network(images))
    with held_statistics(network, lambda: network(images)):
        found = seen(network(images))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(network(images), expected[0])


def test_images_do_not_see_each_other_where_statistics_are_held() -> None:
    network = stack(affine=True)
    images, others = torch.randn(2, 5, 2, 8, 8, dtype=torch.float64)
    with held_statistics(network, lambda: network(images)):
        together = network(others)
        alone = torch.cat([network(image[None]) for image in others])
    torch.testing.assert_close(alone, together)
    assert not torch.allclose(network(others), together, atol=1e-2)


def test_statistics_are_let_go_after_an_error() -> None:
    network, images = stack(affine=True), torch.randn(5, 2, 8, 8, dtype=torch.float64)
    expected = network(images)
    with pytest.raises(KeyError), held_statistics(network, lambda: network(images)):
        raise KeyError
    torch.testing.assert_close(network(images), expected)
    assert all("forward" not in vars(module) for module in network)
