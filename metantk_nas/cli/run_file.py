"""Run files: the options of a search as TOML. All that is said of an option comes from its declaration."""

import inspect
import json
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli.declared import read_annotation, read_kind, word_for
from metantk_nas.cli.screen import stdout
from metantk_nas.errors import UsageError, brief, unknown_name

WIDTH = 100
MAX_BYTES = 20_000
"""Of a run file; reading TOML may take the square of its length."""
MAX_BITS = 1_024
"""Of a whole number: as large as a real number can be; Python writes no numbers of thousands of digits."""
HEADER = """\
# A run file of metantk-nas: metantk-nas search --config {name}
#
# Every setting stands here with its default. Take away the '#' before its name to set it; a word
# in CAPITALS stands where there is no default. Options on the command line win over this file, and
# this file wins over a preset."""
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text, or a list of texts",
    Path: "a path as text",
    list: "a table of settings",
}
Value = Any


@dataclass(frozen=True)
class Setting:
    """An option of a command, as it stands in a run file.

    Args:
        name: its key.
        kind: type of its value; ``list`` where the option takes NAME=VALUE again and again.
        choices: the values it may have, where it may not have any.
        default: None where there is none.
        option: its declaration.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Value
    option: Any

    @property
    def expected(self) -> str:
        """What its value must be, in words."""
        if self.option.parser is not None:
            return "a number such as 200000, or a text such as '2M'"
        return f"one of {', '.join(self.choices)}" if self.choices else KINDS[self.kind]


def init(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file to write.")] = Path("run.toml"),
    debug: opt.Debug = False,
) -> None:
    """Write a run file with every setting of a search, its default and its meaning, to edit and to keep.

    `metantk-nas search --config FILE` uses it.
    """
    group: Any = ctx.find_root().command
    text = format_run_file(settings_of(group.commands["search"].callback), file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already, and is kept as it is; name another file.") from None
    except OSError as error:
        raise UsageError(f"cannot write {file} ({error.strerror}); check the path and its permissions.") from error
    stdout.print(f"{file}: edit it, then run metantk-nas search --config {file}", highlight=False, soft_wrap=True)


def use_run_file(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the settings of a run file the defaults of the command at hand."""
    if path is not None and ctx.command.callback is not None:
        ctx.default_map = {**(ctx.default_map or {}), **read_run_file(path, settings_of(ctx.command.callback))}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Run file with settings (see `init`). Options that are given win over it.",
        callback=use_run_file,
        is_eager=True,
        rich_help_panel=opt.WHAT,
    ),
]


def settings_of(command: Callable[..., Any]) -> dict[str, Setting]:
    """The options of a command that a run file may set, by name: all that stand in a panel, but for the file itself."""
    found = {}
    for name, parameter in inspect.signature(inspect.unwrap(command)).parameters.items():
        kind, option = read_annotation(parameter.annotation)
        if option is not None and option.rich_help_panel is not None and name != "config":
            found[name] = Setting(name, *read_kind(kind), parameter.default, option)
    return found


def format_run_file(settings: Mapping[str, Setting], name: str) -> str:
    """Text of a run file in which every setting is commented out.

    Args:
        settings: what ``settings_of`` returns.
        name: what the file is called.
    """
    panels: dict[str, list[Setting]] = {}
    for setting in settings.values():
        panels.setdefault(setting.option.rich_help_panel, []).append(setting)
    lines = [HEADER.format(name=name)]
    for panel, members in panels.items():
        lines += ["", f"# ---- {panel} ----"]
        for setting in members:
            lines += ["", *_comment(setting), f"#{setting.name} = {_default(setting)}"]
    return "\n".join(lines) + "\n"


def read_run_file(path: Path, settings: Mapping[str, Setting]) -> dict[str, Value]:
    """Read a run file as words of a command line, by name.

    Args:
        path: TOML file.
        settings: what ``settings_of`` returns.

    Raises:
        UsageError: the file is missing or malformed, or holds a setting that is unknown or of another kind.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        content = tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the run file {path}: {error}. `metantk-nas init` writes one to edit.") from error
    words = {}
    for name, value in content.items():
        if name not in settings:
            raise unknown_name(f"{path}: setting", name, settings)
        words[name] = _to_words(path, settings[name], value)
    return words


def _comment(setting: Setting) -> Iterator[str]:
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    text = f"{(setting.option.help or '').rstrip('.')}.{choices}"
    yield from (f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False))


def _default(setting: Setting) -> str:
    """Default as TOML, or a word in capitals in its place."""
    if setting.default is None:
        if setting.kind is list:
            return "{ NAME = VALUE }"
        word = setting.option.metavar or word_for(setting.kind)
        return word if setting.kind in (int, float) else f'"{word}"'
    if isinstance(setting.default, str | Path):
        return json.dumps(str(setting.default), ensure_ascii=False)
    return str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)


def _to_words(path: Path, setting: Setting, value: Value) -> Value:
    """Turn a TOML value into what would stand on the command line."""
    if setting.kind is list and isinstance(value, dict):
        with suppress(TypeError, ValueError, RecursionError):  # dates, numbers of thousands of digits, endless nests
            return [f"{name}={json.dumps(each)}" for name, each in value.items()]
    if setting.kind is str and isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if not _fits(setting, value):
        raise UsageError(f"{path}: {setting.name} is {brief(value)}; expected {setting.expected}.")
    return value if isinstance(value, bool) else str(value)


def _fits(setting: Setting, value: Value) -> bool:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return False
    if setting.kind is bool or isinstance(value, bool):
        return setting.kind is bool and isinstance(value, bool)
    if setting.choices:
        return value in setting.choices
    if setting.option.parser is not None:
        return isinstance(value, int | str)
    allowed: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), Path: (str,)}
    return isinstance(value, allowed.get(setting.kind, ()))
