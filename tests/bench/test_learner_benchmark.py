"""The script benchmarks/learners.py, on images that are noise."""

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.errors import UsageError
from metantk_nas.experiment import training

FOLDER = Path(__file__).parents[2] / "benchmarks"

Run = Callable[..., list[dict[str, str]]]


def noise() -> FewShotDataset:
    rng = np.random.default_rng(0)
    images = {
        split: {f"{split}{i}": rng.integers(0, 256, (20, 16, 16, 1), dtype=np.uint8) for i in range(5)}
        for split in ("base", "validation", "novel")
    }
    return make_dataset("noise", images)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it finds its sibling `timing`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("learners_benchmark", FOLDER / "learners.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "learners_benchmark", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the script; gives the rows of its table."""
    dataset = noise()
    for module in (script, training):
        monkeypatch.setattr(module, "open_dataset", lambda *_: dataset)

    def call(*words: str, learner: str = "protonet", episodes: int = 20) -> list[dict[str, str]]:
        given = ["--problem", "glyphs-5-1", "--learner", learner, "--episodes", str(episodes), "--eval-episodes", "2"]
        given += ["--train-way", "5"]
        monkeypatch.setattr(sys, "argv", ["learners.py", *given, "--csv", str(tmp_path / "table.csv"), *words])
        script.main()
        rows: list[dict[str, str]] = script.read_rows(tmp_path / "table.csv")
        return rows

    return call


def test_a_stopped_table_goes_on_where_it_was(
    script: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_arch = script.train_arch
    seen: list[int] = []

    def crash(what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            seen.append(done)
            if done >= stop_at:
                raise KeyboardInterrupt

    monkeypatch.setattr(script, "train_arch", partial(train_arch, progress=crash))
    stop_at = 11
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "table.csv").exists()
    stop_at = 10**6
    seen.clear()
    (row,) = run()
    assert seen[0] == 11  # from the last validation on, every second episode
    assert (row["learner"], row["episodes"], row["budget"]) == ("protonet", "20", "20 episodes")
    assert 0 < float(row["adaptation_ms"]) < 1e3 * 60 * float(row["minutes"]) + 1e3
    assert 0 <= float(row["accuracy"]) <= 1

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("what is done was done again")

    monkeypatch.setattr(script, "train_arch", never)
    assert run("--json", str(tmp_path / "table.json")) == [row]
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == [row]
    with pytest.raises(SystemExit, match="rows of another budget, 20 episodes"):
        run(episodes=21)


def test_a_row_says_its_settings_and_others_are_another_row(run: Run) -> None:
    assert [row["settings"] for row in run(episodes=4)] == [""]
    words = ("--set", "protonet.learn_scale=false", "--set", "meta_batch_size=2", "--set", "maml.inner_lr=1")
    for _ in range(2):
        rows = run(*words, episodes=4)
        assert [row["settings"] for row in rows] == ["", "learn_scale=False meta_batch_size=2"]


def test_an_unknown_learner_is_named_before_anything_is_trained(run: Run) -> None:
    with pytest.raises(UsageError, match=r"learner 'protonets' not found.*Did you mean 'protonet'"):
        run(learner="maml,protonets")
    with pytest.raises(UsageError, match="learner 'mamll' not found"):
        run("--set", "mamll.inner_lr=0.5")


def test_settings_are_those_for_the_data_and_those_given(script: ModuleType) -> None:
    parse = script.given_settings
    assert parse("maml", ["maml.inner_lr=0.1", "anil.inner_lr=1", "maml.pattern=body"]) == {
        "inner_lr": 0.1,
        "pattern": "body",
    }
    assert parse("maml", ["precision=auto", "patience=none"]) == {"precision": "auto", "patience": None}
    assert script.Problem.parse("cifar_fs-5-1") == ("cifar_fs", 5, 1)
    problems = {str(script.Problem.parse(text)) for text in script.PROBLEMS.split(",")}
    assert {problem for _, problem in script.PUBLISHED} <= problems
    assert {name for name, _ in script.PUBLISHED} | set(script.PHOTOGRAPHS) <= set(script.LEARNERS)
    assert {*script.CLOSED_FORMS, *script.INNER_LOOPS} <= set(script.LEARNERS)
