import pytest
import torch
from torch import nn

from metantk_nas.errors import UsageError
from metantk_nas.networks.norms import make_norm


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
