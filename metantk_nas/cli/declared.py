"""What the declaration of a command says of its options and arguments."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo

WORDS = {int: "N", float: "NUMBER", Path: "PATH"}


def read_annotation(annotation: Any) -> tuple[Any, Any]:
    """Type of a parameter, and its `typer.Option` or `typer.Argument`; None where it has none."""
    kind, *notes = get_args(annotation) or (annotation,)
    return kind, next((note for note in notes if hasattr(note, "rich_help_panel")), None)


def read_kind(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """Type and choices behind ``X | None``, ``Literal`` and ``list[X]``."""
    known = [each for each in get_args(annotation) if each is not NoneType]
    if NoneType in get_args(annotation):
        return read_kind(known[0])
    if get_origin(annotation) is Literal:
        return str, tuple(known)
    return get_origin(annotation) or annotation, ()


def word_for(kind: type) -> str:
    """What stands for a value of this type where a person reads it."""
    return WORDS.get(kind, "TEXT")


def name_values(command: Callable[..., Any]) -> None:
    """Give a word to every value that has none: help would show Python's name of its type, such as ``list[Path]``."""
    for name, parameter in inspect.signature(command).parameters.items():
        annotation, note = read_annotation(parameter.annotation)
        kind, choices = read_kind(annotation)
        if note is None or note.metavar is not None or kind is bool:
            continue
        note.metavar = name.upper() if isinstance(note, ArgumentInfo) else "|".join(choices) or word_for(kind)
