"""From the options that were given to what the package takes."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from metantk_nas.errors import UsageError, brief


def field_names(kind: Any) -> list[str]:
    """Names of the fields of a spec."""
    return [field.name for field in fields(kind)]


def make_spec(kind: Any, given: Mapping[str, Any]) -> Any:
    """Build a spec from the options that are its fields."""
    return kind(**{name: given[name] for name in field_names(kind) if name in given})


def make_train_spec(given: Mapping[str, Any]) -> Any:
    """Build the spec of a training."""
    from metantk_nas.experiment.spec import TrainSpec

    return make_spec(TrainSpec, {**given, "settings": read_settings(given["settings"] or [], "--set inner_lr=0.4")})


def is_default(ctx: typer.Context, name: str) -> bool:
    """Whether an option was left at its default."""
    source = ctx.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None, "inf": math.inf}
"""Values that JSON writes otherwise."""


def read_settings(texts: Sequence[str], example: str) -> dict[str, Any]:
    """Read ``name=value`` pairs; a value is one of `WORDS` in any case, JSON where it can be, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{brief(text)} is not a setting; expected NAME=VALUE, for example {example}.")
        try:
            found[name] = WORDS[value.lower()] if value.lower() in WORDS else json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def read_archs(given: Sequence[str]) -> list[str]:
    """Read architectures from arguments, files and stdin."""
    texts: list[str] = []
    for each in given:
        if each == "-":
            texts += sys.stdin.read().splitlines()
        elif "|" not in each and "(" not in each and Path(each).is_file():
            texts += _lines(Path(each))
        else:
            texts.append(each)
    if not (texts := [text.strip() for text in texts if text.strip()]):
        raise UsageError("no architecture was given; expected a text, a file with one a line, or - and lines on stdin.")
    return texts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read architectures from {path}: {error}; expected text, one a line.") from error


def command_words() -> list[str]:
    """Words of the command line, for manifests."""
    return ["metantk-nas", *sys.argv[1:]]
