"""Distributions that add a space, a metric and a learner, as README shows them, and broken ones beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metantk_nas import plugins
from metantk_nas.errors import SpaceError, UsageError
from metantk_nas.plugins import Registry

SPACE = """
name = "tiny"
description = "two nodes, fully connected"
source = "an example"
[cell]
types = ["cell"]
n_inputs = 1
n_nodes = 2
edges_per_node = "all"
output = "last"
ops = ["skip_connect", "nor_conv_3x3"]
[skeleton]
init_channels = 4
n_cells = 3
reduce_at = ["1/3", "2/3"]
final_norm = true
"""
SPACE_MODULE = "from pathlib import Path\n\nPATH = Path(__file__).with_name('tiny.toml')\n"
METRIC_MODULE = """
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.types import Metric


class LogitSpread(AbstractScorer):
    name = "logit_spread"
    metrics = (Metric("logit_spread", True, "deviation of the logits", "an example"),)

    def __init__(self, setup):
        self.setup = setup

    def score(self, architectures, repeat):
        network = self.setup.network(repeat)
        chunk = network.route(architectures, self.setup.device)
        logits = network(self.setup.rows(repeat).images, chunk).unflatten(0, (len(architectures), -1))
        return [Finding({self.name: each.std().item()}) for each in logits]
"""
LEARNER_MODULE = """
from dataclasses import dataclass

from torch.nn.functional import normalize

from metantk_nas.learners.base import MetaModel
from metantk_nas.learners.features import AbstractFeatureLearner
from metantk_nas.learners.protonet import class_means
from metantk_nas.learners.registry import LearnerInfo


@dataclass(frozen=True)
class CosineNet(AbstractFeatureLearner):
    scale: float = 10.0

    def make_model(self, network):
        return MetaModel(network)

    def make_head(self, parameters, features, labels, n_way):
        means = normalize(class_means(features, labels, n_way))
        return lambda query: self.scale * normalize(query) @ means.T


INFO = LearnerInfo("cosine", "an example", "class mean with the most similar direction", CosineNet)
"""
ENTRY_POINTS = """
[metantk_nas.spaces]
tiny = example_space:PATH
darts = example_space:PATH
lost = example_space:NOWHERE

[metantk_nas.metrics]
logit_spread = example_metric:LogitSpread
wrong = example_space:PATH

[metantk_nas.learners]
cosine = example_learner:INFO
other_name = example_learner:INFO
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a distribution as pip leaves it behind."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in (("space", SPACE_MODULE), ("metric", METRIC_MODULE), ("learner", LEARNER_MODULE)):
        (folder / f"example_{name}.py").write_text(text, encoding="utf-8")
    (folder / "tiny.toml").write_text(SPACE, encoding="utf-8")
    information = folder / "example-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()]), "COLUMNS": "200"}
    line = [sys.executable, "-m", "metantk_nas", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def test_lists_show_what_plug_ins_add_and_name_those_that_are_broken(installed):
    done = command(installed, "spaces", "--json")
    names = [row["name"] for row in json.loads(done.stdout)]
    assert names == ["darts", "darts_fewshot", "nas_bench_201", "tiny"]
    assert "Plug-in 'lost' (example_space:NOWHERE) of the distribution example 1.0" in done.stderr
    assert "AttributeError" in done.stderr
    assert "'darts' (example_space:PATH)" in done.stderr
    assert "darts is there already" in done.stderr
    code = (
        "from metantk_nas.learners.registry import LEARNERS; from metantk_nas.scorers.registry import METRICS\n"
        "print(*list(LEARNERS)[-2:], *list(METRICS)[-2:], *LEARNERS.broken, *METRICS.broken)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), os.getcwd()])}
    line = [sys.executable, "-c", code]
    found = subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout
    assert found.startswith("rfs cosine ")
    assert "logit_spread Plug-in 'other_name'" in found
    assert "expected a LearnerInfo whose name is 'other_name'" in found
    assert "expected the class of an AbstractScorer" in found


def test_a_search_uses_a_space_a_metric_and_a_learner_of_plug_ins(installed, tmp_path):
    small = ["--image-size", 16, "--n-episodes", 1, "--repeats", 1, "--budget", 3, "--n-way", 3]
    training = ["--train-top", 1, "--learner", "cosine", "--train-budget", 4, "--eval-episodes", 4, "--eval-query", 2]
    words = ["--space", "tiny", "--rank-by", "logit_spread,trace", *small, *training, "--out", tmp_path / "run"]
    done = command(installed, "search", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(row["logit_spread"] > 0 for row in found["top"])
    assert found["evaluation"][0]["learner"] == "cosine"


def test_a_name_that_is_missing_comes_with_the_plug_ins_that_are_broken(installed, tmp_path):
    done = command(installed, "search", "--space", "lost", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "available: darts, darts_fewshot, nas_bench_201, tiny." in done.stderr
    assert "Plug-in 'lost' (example_space:NOWHERE)" in done.stderr


def test_what_is_built_in_asks_no_plug_in(monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda **_: pytest.fail("entry points were read"))
    registry = Registry(plugins.SPACES, {"darts": 1}, lambda name, offered: {name: offered})
    assert registry["darts"] == 1
    assert "darts" in registry
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [])
    assert list(registry) == ["darts"]
    assert len(registry) == 1
    with pytest.raises(SpaceError, match=r"space 'dart' not found; available: darts, mine\. Did you mean 'darts'\?"):
        raise registry.not_found("space", "dart", SpaceError, also=["mine"])
    with pytest.raises(UsageError):
        raise registry.not_found("space", "dart")
