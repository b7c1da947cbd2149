import math

import pytest
import torch
from torch import Tensor, nn

from metantk_nas.networks.build import resize
from metantk_nas.rng import child_seed
from metantk_nas.scorers.gradients import GradientScorer, SynFlowScorer, run_with_gradients, weight_gradients
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.spaces.load import load_space
from tests.contracts.scorer import ScorerContract, assert_close, make_setup
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone
from tests.reference import saliency as reference


class TestGradientScorer(ScorerContract):
    scorer = GradientScorer


class TestSynFlowScorer(ScorerContract):
    scorer = SynFlowScorer


def episode_labels(setup: ScoringSetup, repeat: int) -> Tensor:
    rows = setup.rows(repeat)
    return torch.tensor([*rows.query_labels.flatten().tolist(), *rows.support_labels.flatten().tolist()])


@pytest.mark.parametrize("space", SPACES)
def test_norm_and_sensitivity_are_those_of_a_network_built_alone(space: str) -> None:
    setup = make_setup(space, seed=4, n_shot=2, dtype=torch.float64)
    chunk, rows, labels = draw(setup.space, 3, seed=2), setup.rows(1), episode_labels(setup, 1)
    for finding, genotype in zip(GradientScorer(setup).score(chunk, 1), chunk, strict=True):
        alone = build_alone(setup.space, genotype, seed=child_seed(4, "repeat", 1), in_channels=3).double()
        assert dict(finding.values) == pytest.approx(
            {
                "grad_norm": reference.grad_norm(alone, rows.images, labels),
                "snip": reference.snip(alone, rows.images, labels),
            },
            rel=1e-9,
        )


@pytest.mark.parametrize("space", SPACES)
def test_synflow_is_the_slope_of_the_output_as_all_weights_grow(space: str) -> None:
    setup = make_setup(space, seed=4)
    chunk = draw(setup.space, 3, seed=2)
    for finding, genotype in zip(SynFlowScorer(setup).score(chunk, 1), chunk, strict=True):
        seed = child_seed(4, "repeat", 1)
        alone = build_alone(setup.space, genotype, seed=seed, norm="none", in_channels=3).double()
        flow = reference.flow_by_scaling(alone, torch.ones(1, 3, 12, 12, dtype=torch.float64))
        assert finding.values["synflow"] == pytest.approx(math.log(flow), rel=1e-7)


@pytest.mark.parametrize("space", SPACES)
def test_in_single_precision_chunks_agree_to_four_digits(space: str) -> None:
    wide = resize(load_space(space), init_channels=16, n_cells=3)
    single, double = (GradientScorer(make_setup(wide, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    chunk = draw(wide, 3, seed=1)
    together = single.score(chunk, 0)
    assert_close([single.score([genotype], 0)[0] for genotype in chunk], together, rel=1e-4)
    assert_close(together, double.score(chunk, 0), rel=1e-4)


LAYERS = [
    nn.Conv2d(4, 6, 3, padding=1, bias=False),
    nn.Conv2d(4, 6, (1, 5), stride=(1, 2), padding=(0, 2), bias=False),
    nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=4, bias=False),
    nn.Conv2d(4, 6, 1, groups=2),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layers_gradients_are_those_of_each_candidate_on_its_own(layer: nn.Conv2d) -> None:
    layer = layer.double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3 * 2, 4, 7, 5, generator=generator, dtype=torch.float64)
    grads = torch.randn(layer(inputs).shape, generator=generator, dtype=torch.float64)
    found = weight_gradients(layer, inputs, grads, n_candidates=3)
    for gradient, rows, above in zip(found, inputs.split(2), grads.split(2), strict=True):
        (expected,) = torch.autograd.grad(layer(rows), layer.weight, above)
        torch.testing.assert_close(gradient, expected)


def test_no_gradient_is_left_behind() -> None:
    setup = make_setup()
    GradientScorer(setup).score(draw(setup.space, 3), 0)
    assert all(parameter.grad is None for parameter in setup.network(0).parameters())
    assert not any(module._forward_hooks for module in setup.network(0).modules())


def test_the_flow_of_a_deep_network_does_not_overflow() -> None:
    """Its logarithm is beyond what single precision could hold, which ends at 88."""
    deep = resize(load_space("nas_bench_201"), init_channels=4, n_cells=60)
    chain = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
    (finding,) = SynFlowScorer(make_setup(deep)).score([deep.parse(chain)], 0)
    assert finding.status == "ok"
    assert finding.values["synflow"] > 88


def test_synflow_sees_no_data_and_no_sign() -> None:
    first, second = make_setup(), make_setup(n_shot=2, n_episodes=1)
    chunk = draw(first.space, 2)
    assert SynFlowScorer(first).score(chunk, 0) == SynFlowScorer(second).score(chunk, 0)
    network = SynFlowScorer(first)._network(0)
    assert all((parameter >= 0).all() for parameter in network.parameters())


@pytest.mark.parametrize("scorer", [GradientScorer, SynFlowScorer])
def test_a_cell_without_a_path_has_no_signal(scorer: type[GradientScorer | SynFlowScorer]) -> None:
    setup = make_setup()
    healthy, nothing = scorer(setup).score([draw(setup.space, 1)[0], setup.space.parse(NOTHING)], 0)
    assert healthy.status == "ok"
    assert nothing.status == "no_signal"
    assert "no path from input to output" in nothing.reason
    assert all(math.isnan(value) for value in nothing.values.values())


def test_an_output_that_is_the_same_for_every_image_has_no_signal() -> None:
    """The last normalisation shifts by one: the head still has a gradient, but no image has a say in it."""
    setup = make_setup()
    setup.network(0).final[0].bias.data.fill_(1)
    (constant,) = GradientScorer(setup).score([setup.space.parse(NOTHING)], 0)
    assert constant.status == "no_signal"


def test_a_layer_behind_constant_features_has_its_gradient() -> None:
    setup = make_setup()
    network, images, seen = setup.network(0), setup.rows(0).images, dict[nn.Module, Tensor]()
    network.final[0].bias.data.fill_(1)
    chunk = [setup.space.parse(NOTHING)]
    run_with_gradients(network, chunk, images, Tensor.sum, lambda layer, _, found: seen.update({layer: found}))
    assert torch.equal(seen[network.head], torch.full((1, 3, network.n_features), float(len(images))))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_touches_its_users_alone(broken: float) -> None:
    setup = make_setup()
    cell = "|{}~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    chunk = [setup.space.parse(cell.format(op)) for op in ("nor_conv_3x3", "nor_conv_1x1")]
    setup.network(0).cells[0].ops["0_0_nor_conv_3x3"][1].weight.data.fill_(broken)
    first, second = GradientScorer(setup).score(chunk, 0)
    assert first.status == "not_finite"
    assert second.status == "ok"


def test_more_paths_carry_more_flow() -> None:
    setup = make_setup()
    texts = [
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|",
    ]
    few, many = SynFlowScorer(setup).score([setup.space.parse(text) for text in texts], 0)
    assert few.values["synflow"] < many.values["synflow"]


def test_a_dead_branch_carries_nothing() -> None:
    setup = make_setup()
    text = "|none~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"
    genotype = setup.space.parse(text)
    whole, live = SynFlowScorer(setup).score([genotype, setup.space.parse(text.replace("nor_conv_3x3~1", "none~1"))], 0)
    assert whole.status == "ok"
    assert_close([whole], [live])
