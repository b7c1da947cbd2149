"""Settings by name: what a dataclass declares is what it takes."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import metantk_nas
from metantk_nas.cli.given import read_settings
from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import TrainSpec
from metantk_nas.experiment.training import read_settings as read_training
from metantk_nas.settings import check_settings, default_settings


@dataclass
class Declared:
    needed: int
    steps: int = 3
    rate: float = 0.1
    flag: bool = False
    name: str = "x"
    way: Literal["up", "down"] = "up"
    patience: int | None = None
    layers: list[int] = field(default_factory=list)
    other: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"steps": 0, "rate": 2, "flag": True, "name": "", "way": "down", "patience": None},
        {"steps": np.int64(4), "rate": np.float32(0.5), "patience": 7, "other": "whatever"},
        {"rate": math.inf, "name": Path("photos")},
    ],
    ids=str,
)
def test_values_of_the_declared_kind_are_taken(given: dict[str, Any]) -> None:
    check_settings("setting", given, Declared)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 3}, "setting 'stepz' not found.*Did you mean 'steps'"),
        ({"needed": 3}, "setting 'needed' not found"),
        ({"steps": 1.5}, "steps is 1.5; expected a whole number"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"steps": None}, "steps is None; expected a whole number"),
        ({"rate": "fast"}, "rate is 'fast'; expected a number"),
        ({"rate": False}, "rate is False; expected a number"),
        ({"flag": 1}, "flag is 1; expected true or false"),
        ({"name": 3}, "name is 3; expected a text"),
        ({"way": "upp"}, "way 'upp' not found; available: down, up. Did you mean 'up'"),
        ({"way": 3}, "way is 3; expected up or down"),
        ({"patience": "soon"}, "patience is 'soon'; expected a whole number or none"),
    ],
    ids=str,
)
def test_other_values_are_refused_and_the_error_teaches(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_settings("setting", given, Declared)


def test_defaults_are_those_of_fields_that_have_one() -> None:
    assert default_settings(Declared) == {
        "steps": 3, "rate": 0.1, "flag": False, "name": "x", "way": "up", "patience": None, "other": (),
    }  # fmt: skip


def test_annotations_that_only_a_type_checker_can_read_allow_anything() -> None:
    @dataclass
    class Foreign:
        shape: "OnlyForTypeCheckers" = None  # type: ignore[name-defined]  # noqa: F821 (the point)

    check_settings("setting", {"shape": 3}, Foreign)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=None", None), ("a=TRUE", True), ("a=inf", math.inf), ("a=1e-3", 0.001), ("a=3", 3), ("a=cosine", "cosine")],
)
def test_words_on_the_command_line(text: str, value: object) -> None:
    assert read_settings([text], "a=1") == {"a": value}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_lrr": 0.1}, "available: (?!.*seed).*inner_lr, .*outer_lr.*Did you mean 'inner_lr'"),
        ({"schedule": "cosin"}, "schedule 'cosin' not found.*Did you mean 'cosine'"),
        ({"optimiser": "adamm"}, "optimiser 'adamm' not found"),
        ({"inner_lr": "fast"}, "inner_lr is 'fast'; expected a number"),
        ({"seed": 3}, "expected --seed"),
    ],
)
def test_a_training_with_settings_that_mean_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_training(TrainSpec(learner="maml", settings=settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": "3"}, "repeats is '3'; expected a whole number"),
        ({"budget": 2.5}, "budget is 2.5; expected a whole number or none"),
        ({"adaptation": "mamll"}, "adaptation 'mamll' not found.*Did you mean 'maml'"),
        ({"rotations": "yes"}, "rotations is 'yes'; expected true or false"),
    ],
)
def test_a_search_from_python_refuses_them_too(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metantk_nas.search(out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
