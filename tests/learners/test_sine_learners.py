"""Learners that say they regress learn sine waves."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metantk_nas.episodes.sine import SineWaves
from metantk_nas.evaluation import evaluate
from metantk_nas.learners.base import bind
from metantk_nas.learners.registry import LEARNERS, make_learner, make_train_settings
from metantk_nas.learners.trainer import train
from metantk_nas.networks.build import build_network

SMALL_STEPS = {"inner_lr": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {
    "maml": SMALL_STEPS,
    "fomaml": SMALL_STEPS,
    "boil": SMALL_STEPS,
    "lambda_pattern": SMALL_STEPS,
    "anil": SMALL_STEPS,
    "reptile": {"inner_lr": 0.02},
    "meta_sgd": SMALL_STEPS,
    "maml_plus_plus": SMALL_STEPS,
    "alpha_maml": SMALL_STEPS,
    "cavia": {"inner_lr": 0.1},
    "imaml": {**SMALL_STEPS, "inner_steps": 5, "inner_steps_test": 5},
    "moml": SMALL_STEPS,
    "steepest_descent": {"inner_steps": 10},
}
"""Targets up to 5 and squared errors make for steeper losses than the images that the defaults are meant for."""


@pytest.mark.parametrize("name", [name for name, info in LEARNERS.items() if info.factory.regresses])
def test_a_few_hundred_sine_waves_lower_the_squared_error(name: str) -> None:
    learner = make_learner(name, **SETTINGS.get(name, {}))
    model = learner.make_model(build_network("mlp", None, n_outputs=1, in_channels=1, norm=learner.norm))
    rate = 0.3 if make_train_settings(name).optimiser == "sgd" else 0.01
    settings = make_train_settings(name, train_budget=1200, outer_lr=rate, meta_batch_size=8, vectorise=True)

    def errors() -> NDArray[np.float64]:
        found = evaluate(bind(learner, model.eval()), SineWaves("novel", 10, 10, seed=0), 60)
        assert found.measure == "mse"
        return found.values

    before = errors().mean()
    curve = train(learner, model, SineWaves("base", 10, 10, seed=0), None, settings)
    assert errors().mean() < 0.9 * before
    assert curve[-1].train_loss < curve[0].train_loss
