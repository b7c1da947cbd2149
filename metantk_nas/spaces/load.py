"""Search spaces are TOML files: those shipped in the ``search_spaces`` package, a user's own by path, and plug-ins.

A plug-in's entry point in the group ``metantk_nas.spaces`` is the path of a TOML file, or a `Space`.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from metantk_nas import plugins
from metantk_nas.errors import SpaceError, brief, unknown_name
from metantk_nas.spaces.space import Skeleton, Space

MAX_BYTES = 20_000
"""Of a search space; reading TOML may take the square of its length."""


def available_spaces() -> tuple[str, ...]:
    """Names of the shipped spaces, sorted, then those of plug-ins."""
    return tuple(spaces_by_name())


@cache
def spaces_by_name() -> "plugins.Registry[Callable[[], Space]]":
    """What loads each space; ``broken`` names the plug-ins that cannot be."""
    entries = (entry.name for entry in files("search_spaces").iterdir())
    shipped = sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))
    return plugins.Registry(plugins.SPACES, {name: partial(_load_shipped, name) for name in shipped}, _read_plugin)


def load_space(name_or_path: str | os.PathLike[str]) -> Space:
    """Load a shipped space or a plug-in's by name, or a user's own by path.

    Args:
        name_or_path: a path if it ends in ``.toml`` or contains a path separator, else a name.

    Raises:
        SpaceError: no such space, an unreadable file, or a malformed one; the message names the file.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml") or "/" in text or os.sep in text:
        return _load_file(text)
    if text not in spaces_by_name():
        raise spaces_by_name().not_found("space", text, SpaceError)
    return spaces_by_name()[text]()


def _load_shipped(name: str) -> Space:
    return _parse((files("search_spaces") / f"{name}.toml").read_bytes(), f"{name}.toml")


def _load_file(text: str) -> Space:
    path = Path(os.path.expanduser(text))  # unlike Path.expanduser it leaves an unknown ~user alone
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise SpaceError(f"cannot read the search space {text}: {error.strerror}.") from error
    if content is None:
        raise SpaceError(f"{text} has more than {MAX_BYTES:,} bytes; a search space is a short TOML file.")
    return _parse(content, text)


def _read_plugin(name: str, offered: object) -> Mapping[str, Callable[[], Space]]:
    """What loads a plug-in's space, under the name of the entry point."""
    if not isinstance(offered, Space | str | os.PathLike):
        raise SpaceError(f"it is {offered!r}; expected the path of a TOML file, or a Space")
    space = offered if isinstance(offered, Space) else _load_file(os.fspath(offered))
    return {name: lambda: space}


def _parse(content: bytes, file_name: str) -> Space:
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or absurdly nested
        raise SpaceError(f"{file_name} is not valid TOML: {error}.") from error
    try:
        return build_space(document)
    except SpaceError as error:
        raise SpaceError(f"{file_name}: {error}") from error


def build_space(document: Mapping[str, object]) -> Space:
    """Build the space that a parsed TOML or JSON document describes.

    Raises:
        SpaceError: a key is missing, unknown or of the wrong type, or a value is impossible.
    """
    values = {"description": "", "source": "", **_read("space", document, TOP, optional=("description", "source"))}
    cell = _read("[cell]", values.pop("cell"), CELL)
    skeleton = _read("[skeleton]", values.pop("skeleton"), SKELETON, optional=("stem_multiplier", "final_norm"))
    return Space(cell_types=cell.pop("types"), skeleton=Skeleton(**skeleton), **cell, **values)


Reader = Callable[[object], Any]
"""Converts a TOML value; raises ValueError with what was expected."""


def _read(
    where: str, table: Mapping[str, object], readers: Mapping[str, Reader], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Convert every value of a TOML table; complain of keys that are missing, unknown or of the wrong type."""
    for key in table:
        if key not in readers:
            raise unknown_name(f"key of {where}", key, readers, SpaceError)
    missing = [key for key in readers if key not in table and key not in optional]
    if missing:
        needed = [key for key in readers if key not in optional]
        raise SpaceError(f"{where} lacks {', '.join(missing)}; it needs {', '.join(needed)}.")
    values = {}
    for key, value in table.items():
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise SpaceError(f"{key} in {where} is {brief(value)}; expected {error}.") from error
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(element, str) for element in value):
        raise ValueError("a list of strings")
    return tuple(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("an integer")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _edges(value: object) -> int | None:
    if value == "all":
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError('an integer or "all"')
    return value


def _fractions(value: object) -> tuple[Fraction, ...]:
    fractions = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and re.fullmatch(r"\d{1,4}/[1-9]\d{0,3}", text, re.ASCII) for text in fractions):
        raise ValueError('a list of fractions written as strings, such as ["1/3", "2/3"]')
    return tuple(map(Fraction, fractions))


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


TOP: Mapping[str, Reader] = {"name": _text, "description": _text, "source": _text, "cell": _table, "skeleton": _table}
CELL: Mapping[str, Reader] = {
    "types": _texts,
    "n_inputs": _integer,
    "n_nodes": _integer,
    "edges_per_node": _edges,
    "output": _text,
    "ops": _texts,
}
SKELETON: Mapping[str, Reader] = {
    "init_channels": _integer,
    "n_cells": _integer,
    "reduce_at": _fractions,
    "stem_multiplier": _integer,
    "final_norm": _boolean,
}
