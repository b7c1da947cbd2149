"""Sine waves are pure functions of their index, in the range of the paper."""

import math

import pytest
import torch

from metantk_nas.episodes.sine import SineWaves
from metantk_nas.errors import DataError


def test_a_wave_is_a_sine_of_the_papers_range():
    for index in range(50):
        episode = SineWaves("base", 10, 100, seed=0)(index)
        x = torch.cat([episode.support_images, episode.query_images]).double()
        y = torch.cat([episode.support_labels, episode.query_labels]).double()
        assert x.shape == y.shape == (110, 1)
        assert x.abs().max() <= 5
        basis = torch.cat([x.sin(), x.cos()], dim=1)  # a·sin(x + φ) = a·cos φ · sin x + a·sin φ · cos x
        a_cos, a_sin = torch.linalg.lstsq(basis, y).solution.flatten().tolist()
        torch.testing.assert_close(
            basis @ torch.tensor([[a_cos], [a_sin]], dtype=torch.float64), y, rtol=1e-4, atol=1e-5
        )
        assert 0.1 <= math.hypot(a_cos, a_sin) <= 5
        assert a_sin >= -1e-6  # a phase from 0 to π


def test_equal_indices_give_equal_waves_and_every_stream_its_own():
    first = SineWaves("base", 5, 5, seed=0)(3)
    assert torch.equal(SineWaves("base", 5, 5, seed=0)(3).support_images, first.support_images)
    for other in (
        SineWaves("novel", 5, 5, seed=0),
        SineWaves("base", 5, 5, seed=1),
        SineWaves("base", 5, 5, 0, "other"),
    ):
        assert not torch.equal(other(3).support_images, first.support_images)


def test_a_wave_without_points_is_refused():
    with pytest.raises(DataError, match="n_shot >= 1"):
        SineWaves("base", 0, 5, seed=0)
