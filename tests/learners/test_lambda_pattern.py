from dataclasses import replace

import pytest
import torch

from metantk_nas.errors import UsageError
from metantk_nas.learners.anil import Anil
from metantk_nas.learners.base import HEAD_BIAS, HEAD_WEIGHT, AbstractLearner, meta_parameters
from metantk_nas.learners.lambda_pattern import LambdaPattern, _patterns, fastest_pattern, layers
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.registry import learner_name, make_learner
from metantk_nas.learners.trainer import TrainSettings, train
from metantk_nas.networks.build import build_network, resize
from metantk_nas.spaces.load import load_space
from tests.contracts.gradients import gradient, smooth_case
from tests.contracts.learner import DARTS_CELL, LearnerContract, episodes, make_model, predict

STEPS = {"inner_lr": 0.1, "inner_steps": 2, "inner_steps_test": 2}


class TestLambdaPattern(LearnerContract):
    name = "lambda_pattern"
    settings = {"pattern": "head"}  # noqa: RUF012 (a constant of the test)


class TestBoil(LearnerContract):
    name = "boil"


@pytest.mark.parametrize(
    ("pattern", "other"), [("11111", Maml(**STEPS)), ("00001", Anil(**STEPS)), ("head", Anil(**STEPS))]
)
def test_all_ones_is_maml_and_the_head_alone_is_anil(pattern: str, other: AbstractLearner) -> None:
    learner = LambdaPattern(pattern=pattern, **STEPS)
    model, episode = smooth_case(learner)
    torch.testing.assert_close(predict(learner, model, episode), predict(other, model, episode))
    torch.testing.assert_close(gradient(learner, model, episode), gradient(other, model, episode))


@pytest.mark.parametrize(("pattern", "digits"), [("body", "11110"), ("all", "11111"), ("01001", "01001")])
def test_the_layers_of_the_pattern_move_and_no_other(pattern: str, digits: str) -> None:
    learner = LambdaPattern(pattern=pattern)
    model, episode = smooth_case(learner)
    parameters = meta_parameters(learner, model)
    adapted = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=1)
    for digit, names in zip(digits, layers(parameters).values(), strict=True):
        assert any(not torch.equal(adapted[name], parameters[name]) for name in names) is (digit == "1")


def test_boil_leaves_the_head_and_is_called_so() -> None:
    learner = make_learner("boil")
    assert isinstance(learner, LambdaPattern)
    assert (learner.pattern, learner.inner_lr, learner_name(learner)) == ("body", 0.5, "boil")
    model, episode = smooth_case(learner)
    parameters = meta_parameters(learner, model)
    adapted = learner.adapted(model, parameters, episode.support_images, episode.support_labels, steps=1)
    assert all(adapted[name] is parameters[name] for name in (HEAD_WEIGHT, HEAD_BIAS))
    assert gradient(learner, model, episode)[HEAD_WEIGHT].any()  # learnt outside all the same


def test_the_layers_of_a_cell_network_are_its_cells() -> None:
    space = resize(load_space("darts_fewshot"), init_channels=4, n_cells=3)
    network = build_network(DARTS_CELL, space, n_outputs=5, in_channels=3)
    model = LambdaPattern().make_model(network)
    assert list(layers(dict(model.named_parameters()))) == ["stem.0", "stem.1", "cells.0", "cells.1", "cells.2", "head"]


@pytest.mark.parametrize("pattern", ["00000", "heads", "", "0120"])
def test_an_impossible_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="expected 'all', 'head', 'body', or a digit 0 or 1 for each layer"):
        LambdaPattern(pattern=pattern)


def test_a_pattern_of_another_length_names_the_layers() -> None:
    learner = LambdaPattern(pattern="011")
    with pytest.raises(UsageError, match=r"has 3 digits, but the network has 5 layers: blocks\.0, .*, head"):
        predict(learner, make_model(learner), episodes("novel")(0))


def test_the_cheapest_pattern_within_the_allowed_loss_is_found() -> None:
    """A head that starts at zero gives the layers below it no gradient, so a pattern without the head is chance."""
    learner = LambdaPattern(inner_steps_test=1, inner_lr=0.5)
    model = make_model(learner).eval()
    for parameter in model.network.head.parameters():
        torch.nn.init.zeros_(parameter)
    cheapest, careful, impossible = (
        fastest_pattern(learner, model, episodes("validation"), allowed_loss=loss, n_episodes=10)
        for loss in (1.0, 0.01, -2.0)
    )
    assert (cheapest.pattern, impossible.pattern) == ("00001", "11111")
    assert careful.pattern[-1] == "1"
    assert careful.found.mean >= careful.full.mean - 0.01
    assert impossible.found.mean == impossible.full.mean
    assert cheapest.speed_up == cheapest.full_seconds / cheapest.seconds > 0
    without = replace(learner, pattern="body")
    assert predict(without, model, episodes("validation")(0)).abs().max() == 0


def test_a_trained_model_adapts_its_head_faster_and_hardly_worse() -> None:
    learner = LambdaPattern()
    model = make_model(learner)
    train(learner, model, episodes("base"), None, TrainSettings(train_budget=60))
    choice = fastest_pattern(learner, model, episodes("validation"), allowed_loss=0.05, n_episodes=30)
    assert choice.pattern != "11111"
    assert choice.found.mean >= choice.full.mean - 0.05 > 0.5


def test_deep_networks_are_searched_through_runs_of_layers() -> None:
    assert len(_patterns(8)) == 2**8 - 1
    runs = _patterns(9)
    assert len(runs) == 9 * 10 / 2
    assert {"1" * 9, "0" * 8 + "1", "0" * 3 + "1" * 4 + "00"} <= set(runs)
    assert all("0" not in run.strip("0") for run in runs)
