"""Settings that people give by name: ones that there are, each of the kind that its dataclass declares."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from metantk_nas.errors import UsageError, brief, unknown_name

_KINDS: Mapping[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: ((str, PathLike), "a text"),
    NoneType: (NoneType, "none"),
}


def default_settings(declared: Any) -> dict[str, Any]:
    """Fields of a dataclass that have a default, with it."""
    return {field.name: field.default for field in fields(declared) if field.default is not MISSING}


def check_settings(kind: str, given: Mapping[str, Any], declared: Any) -> None:
    """Refuse what a dataclass has no setting for: another name, or a value of another kind.

    Args:
        kind: what the settings are called in messages, for example ``"setting of learner 'maml':"``.
        given: values by name.
        declared: the dataclass. Annotations that are not of numbers, texts, truth values, None and literals allow
            anything.

    Raises:
        UsageError: names what was given and what was expected.
    """
    known = default_settings(declared)
    hints = _hints(declared)
    for name, value in given.items():
        if name not in known:
            raise unknown_name(kind, name, known)
        hint = hints.get(name, Any)
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if any(_fits(value, option) for option in options):
            continue
        choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
        if choices and isinstance(value, str):
            raise unknown_name(name, value, choices)
        expected = choices + [_KINDS[option][1] for option in options if option in _KINDS]
        raise UsageError(f"{name} is {brief(value)}; expected {' or '.join(expected)}.")


def _hints(declared: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(declared)
    except NameError:  # of a plug-in that names types which it imports for type checkers alone
        return {}


def _fits(value: object, option: Any) -> bool:
    if get_origin(option) is Literal:
        return value in get_args(option)
    if option not in _KINDS:
        return True
    return isinstance(value, _KINDS[option][0]) and (option is bool or not isinstance(value, bool))
