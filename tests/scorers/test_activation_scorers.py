from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from metantk_nas.rng import child_seed
from metantk_nas.scorers.activations import ActivationOverlapScorer, LinearRegionScorer
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Skeleton
from tests.contracts.scorer import ScorerContract, make_setup, noise_dataset
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone
from tests.reference.activation_patterns import dense_linear_regions, dense_naswot, patterns


class TestActivationOverlapScorer(ScorerContract):
    scorer = ActivationOverlapScorer


class TestLinearRegionScorer(ScorerContract):
    scorer = LinearRegionScorer


@pytest.mark.parametrize("space", SPACES)
def test_naswot_is_the_log_determinant_of_the_papers_kernel(space: str) -> None:
    setup = make_setup(space, seed=4, n_episodes=1)
    chunk = draw(setup.space, 3)
    found = ActivationOverlapScorer(setup).score(chunk, 1)
    for finding, genotype in zip(found, chunk, strict=True):
        alone = build_alone(setup.space, genotype, seed=child_seed(4, "repeat", 1), in_channels=3)
        expected = dense_naswot(patterns(alone, setup.rows(1).images))
        assert finding.values["naswot"] == pytest.approx(expected, rel=1e-6)


def test_an_image_that_two_episodes_share_counts_once() -> None:
    setup = make_setup(dataset=noise_dataset(n_classes=3, n_images=2), n_episodes=3, seed=4)
    (genotype,) = draw(setup.space, 1)
    (finding,) = ActivationOverlapScorer(setup).score([genotype], 0)
    alone = build_alone(setup.space, genotype, seed=child_seed(4, "repeat", 0), in_channels=3)
    images = {image.numpy().tobytes(): image for image in setup.rows(0).images}
    assert len(images) == 6
    assert finding.status == "ok"
    assert finding.values["naswot"] == pytest.approx(dense_naswot(patterns(alone, torch.stack([*images.values()]))))


def test_images_that_switch_on_the_same_units_are_singular() -> None:
    """A cell without a path switches on nothing, whatever the image."""
    setup = make_setup()
    healthy, nothing = ActivationOverlapScorer(setup).score([draw(setup.space, 1)[0], setup.space.parse(NOTHING)], 0)
    assert healthy.status == "ok"
    assert nothing.status == "singular"
    assert "images that the network cannot tell apart" in nothing.reason


def thin_alone(setup: ScoringSetup, genotype: Genotype, seed: int) -> nn.Module:
    """One channel, one cell of each type, no stem and no normalisation."""
    n_types = len(setup.space.cell_types)
    skeleton = Skeleton(1, n_types, (Fraction(1, 2),) if n_types == 2 else ())
    thin = replace(setup.space, skeleton=skeleton)
    network = build_alone(thin, genotype, seed=seed, norm="none", n_outputs=1, in_channels=1)
    network.stem = nn.Sequential()
    return network


@pytest.mark.parametrize("space", SPACES)
def test_linear_regions_are_the_different_patterns_of_a_thin_network(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearRegionScorer, "n_samples", 60)
    setup = make_setup(space, seed=4)
    chunk = draw(setup.space, 3, seed=2)
    found = LinearRegionScorer(setup).score(chunk, 1)
    for finding, genotype in zip(found, chunk, strict=True):
        counts = []
        for index in range(3):
            seed = child_seed(4, "linear_regions", 1, index)
            inputs = torch.randn(60, 1, 3, 3, generator=torch.Generator().manual_seed(child_seed(seed, "inputs")))
            counts.append(dense_linear_regions(patterns(thin_alone(setup, genotype, seed), inputs)))
        assert finding.values["n_linear_regions"] == pytest.approx(sum(counts) / 3)


def test_a_cell_without_a_path_has_one_region() -> None:
    setup = make_setup()
    (finding,) = LinearRegionScorer(setup).score([setup.space.parse(NOTHING)], 0)
    assert finding.values["n_linear_regions"] == 1
    assert finding.status == "ok"


def test_more_convolutions_cut_the_inputs_into_more_regions() -> None:
    setup = make_setup()
    texts = [
        "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|",
    ]
    few, many = LinearRegionScorer(setup).score([setup.space.parse(text) for text in texts], 0)
    assert few.values["n_linear_regions"] < many.values["n_linear_regions"]
