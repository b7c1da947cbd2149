"""From a search to labels on a device that does not mix with the processor, as a GPU does not: the same figures."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import metantk_nas
from metantk_nas.bench.build import BenchSpec, build_table
from metantk_nas.experiment import memory
from metantk_nas.experiment.workbench import pick_device
from metantk_nas.integrations.few_shot import FewShotClassifier
from metantk_nas.kernels.precision import exact_float32
from metantk_nas.learners import precision
from metantk_nas.scorers.registry import METRICS
from tests.devices import OtherDevice
from tests.simulated_device import NAME, simulated_device
from tests.small_search import SMALL
from tests.test_experiment import same

EVERY = ",".join(name for name in METRICS if name != "latency_ms")
Call = Callable[..., Any]


@pytest.fixture
def on_device(other_device: OtherDevice, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call something where ``--device`` means the other device; a simulated one has the memory of a GPU."""
    if other_device is simulated_device:
        for table in (memory.BYTES_PER_ACTIVATION, memory.MAX_CHUNK):
            monkeypatch.setitem(table, NAME, table["cuda"])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**33, 2**34))

    def call(function: Call, *args: Any, **kwargs: Any) -> Any:
        with other_device() as device:
            return call_on(device, function, *args, **kwargs)

    return call


def on_processor(function: Call, *args: Any, **kwargs: Any) -> Any:
    return call_on(torch.device("cpu"), function, *args, **kwargs)


def call_on(device: torch.device, function: Call, *args: Any, **kwargs: Any) -> Any:
    """Call something where ``--device`` means this device, and all is computed in float32."""
    with pytest.MonkeyPatch.context() as patch, exact_float32():
        patch.setattr(precision, "has_bfloat16", lambda _: False)
        for name, module in sys.modules.items():
            if name.startswith("metantk_nas.") and getattr(module, "pick_device", None) is pick_device:
                patch.setattr(module, "pick_device", lambda _: device)
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    "settings",
    [{"metrics": EVERY, "budget": 4}, {"searcher": "pruning", "repeats": 1, "budget": None}],
    ids=["every metric", "pruning"],
)
def test_a_search_finds_the_same(on_device: Call, tmp_path: Path, settings: dict[str, Any]) -> None:
    given = {name: value for name, value in {**SMALL, **settings}.items() if value is not None}
    found, expected = (
        call(metantk_nas.search, out=tmp_path / call.__name__, **given).frame.drop(columns="seconds")
        for call in (on_device, on_processor)
    )
    same(found, expected)


def own_network() -> nn.Module:
    convolutions = [(nn.Conv2d(n_in, 16, 3), nn.BatchNorm2d(16), nn.ReLU()) for n_in in (1, 16)]
    return nn.Sequential(*(layer for layers in convolutions for layer in layers), nn.AvgPool2d(4), nn.Flatten())


def test_a_network_of_ones_own_gets_the_same_row(on_device: Call) -> None:
    found, expected = (
        call(metantk_nas.score_module, own_network, data="glyphs", image_size=16, repeats=1, n_way=3)
        for call in (on_device, on_processor)
    )
    assert found["status"] == "ok"
    for name in ("condition_number", "trace", "params", "macs"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_a_learner_that_was_trained_there_predicts_here(on_device: Call, tmp_path: Path) -> None:
    tables, models = [], []
    for call in (on_device, on_processor):
        run = tmp_path / call.__name__
        metantk_nas.search(out=run, **{**SMALL, "budget": 2})
        settings = {"n_validation_episodes": 2}
        tables.append(call(metantk_nas.train, run, learner="r2d2", train_budget=6, eval_episodes=4, settings=settings))
        models += (run / "models").glob("*.pt")
    pd.testing.assert_series_equal(tables[0]["accuracy"], tables[1]["accuracy"], rtol=1e-4)
    found = [probabilities(model, call) for model in models for call in (on_device, on_processor)]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-3, atol=1e-4)


def probabilities(model: Path, call: Call) -> np.ndarray:
    """What a trained learner says of digits after forty of them."""
    images, labels = load_digits(n_class=5, return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) / 16
    classifier = FewShotClassifier(model=model)
    call(classifier.fit, images[:40], labels[:40])
    return call(classifier.predict_proba, images[40:80])


def test_a_table_of_trained_networks_is_the_same(on_device: Call, tmp_path: Path) -> None:
    small = {"data": "glyphs", "init_channels": 4, "n_cells": 3, "image_size": 16, "sample": 1}
    spec = BenchSpec(**small, train_budget=3, eval_episodes=2, eval_query=3)
    found, expected = (
        call(build_table, spec, tmp_path / call.__name__).drop(columns="seconds") for call in (on_device, on_processor)
    )
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)
