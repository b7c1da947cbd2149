import math

import pytest
import torch
from torch import nn

from metantk_nas.networks.build import resize
from metantk_nas.rng import child_seed
from metantk_nas.scorers.expressivity import ZenScorer
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from tests.contracts.scorer import ScorerContract, assert_close, make_setup
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone
from tests.reference.zen_score import zen_score


class TestZenScorer(ScorerContract):
    scorer = ZenScorer


def gaussian_alone(setup: ScoringSetup, genotype: Genotype, seed: int) -> nn.Module:
    """The network of one architecture with plain batch normalisation and weights from N(0, 1)."""
    network = build_alone(setup.space, genotype, norm="batch_stats", n_outputs=1, in_channels=3)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            generator = torch.Generator().manual_seed(child_seed(seed, name))
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
    return network.double()


@pytest.mark.parametrize("space", SPACES)
def test_the_score_is_that_of_the_papers_algorithm_on_a_network_built_alone(space: str) -> None:
    setup = make_setup(space, seed=4, dtype=torch.float64)
    chunk = draw(setup.space, 3, seed=2)
    generator = torch.Generator().manual_seed(child_seed(4, "zen", 1, "images"))
    images, noise = torch.randn(2, 16, 3, 12, 12, generator=generator).double()
    for finding, genotype in zip(ZenScorer(setup).score(chunk, 1), chunk, strict=True):
        alone = gaussian_alone(setup, genotype, child_seed(4, "zen", 1))
        assert finding.values["zen_score"] == pytest.approx(zen_score(alone, images, images + 0.01 * noise), rel=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_in_single_precision_chunks_agree_to_four_digits(space: str) -> None:
    wide = resize(load_space(space), init_channels=16, n_cells=3)
    single, double = (ZenScorer(make_setup(wide, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    chunk = draw(wide, 3, seed=1)
    together = single.score(chunk, 0)
    assert_close([single.score([genotype], 0)[0] for genotype in chunk], together, rel=1e-4)
    assert_close(together, double.score(chunk, 0), rel=1e-4)


def test_half_the_step_is_half_the_reaction(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make_setup(dtype=torch.float64)
    chunk = draw(setup.space, 4, seed=1)
    whole = ZenScorer(setup).score(chunk, 0)
    monkeypatch.setattr(ZenScorer, "step", 0.005)
    for full, half in zip(whole, ZenScorer(setup).score(chunk, 0), strict=True):
        assert full.values["zen_score"] - half.values["zen_score"] == pytest.approx(math.log(2), abs=0.1)


def test_wider_layers_are_more_expressive() -> None:
    """Normalisation would hide how many weights are summed up."""
    found = []
    for width in (4, 16):
        setup = make_setup(resize(load_space("nas_bench_201"), init_channels=width, n_cells=3))
        found.append(
            [finding.values["zen_score"] for finding in ZenScorer(setup).score(draw(setup.space, 4, seed=1), 0)]
        )
    assert all(narrow + 1 < wide for narrow, wide in zip(*found, strict=True))


def test_a_dead_branch_adds_nothing() -> None:
    """The score is that of the canonical key: what only zeros reach divides by nothing."""
    setup = make_setup(dtype=torch.float64)
    text = "|none~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"
    chunk = [setup.space.parse(cell) for cell in (text, text.replace("nor_conv_3x3~1", "none~1"))]
    whole, live = ZenScorer(setup).score(chunk, 0)
    assert whole.status == "ok"
    assert_close([whole], [live])


def test_a_cell_without_a_path_has_no_signal() -> None:
    setup = make_setup()
    healthy, nothing = ZenScorer(setup).score([draw(setup.space, 1)[0], setup.space.parse(NOTHING)], 0)
    assert healthy.status == "ok"
    assert nothing.status == "no_signal"
    assert "no path from input to output" in nothing.reason
    assert math.isnan(nothing.values["zen_score"])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_touches_its_users_alone(broken: float) -> None:
    setup = make_setup()
    scorer = ZenScorer(setup)
    cell = "|{}~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    chunk = [setup.space.parse(cell.format(op)) for op in ("nor_conv_3x3", "nor_conv_1x1")]
    scorer._network(0).cells[0].ops["0_0_nor_conv_3x3"][1].weight.data.fill_(broken)
    first, second = scorer.score(chunk, 0)
    assert first.status == "not_finite"
    assert second.status == "ok"


def test_no_hook_is_left_behind() -> None:
    setup = make_setup()
    scorer = ZenScorer(setup)
    scorer.score(draw(setup.space, 2), 0)
    assert not any(module._forward_hooks for module in scorer._network(0).modules())
