"""The program: its commands, and how errors leave it."""

import errno
import inspect
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from metantk_nas.cli import bench, datasets, export, lists, past, run_file, runs
from metantk_nas.cli.declared import name_values
from metantk_nas.cli.interrupts import interrupts_kept
from metantk_nas.cli.screen import print_error, stderr, stdout
from metantk_nas.errors import MetaNTKError, UsageError

INTERRUPTED = 130
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def _in_words(params: list[Any]) -> list[Any]:
    """Let help show no value behind options that take none, and no type behind arguments: their name says it."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        if param.param_type_name == "argument":
            param.display_type_rich = _nothing
    return params


def _nothing(ctx: Any) -> None:
    """Show nothing."""


class _Command(TyperCommand):
    """A command whose help is in words."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _in_words(super().get_params(ctx))


class _Group(TyperGroup):
    """A group of commands whose help is in words."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _in_words(super().get_params(ctx))


class _TeachingGroup(_Group):
    """Turns errors raised on purpose into one line and an exit code; ``--debug`` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with interrupts_kept():
                return super().invoke(ctx)
        except MetaNTKError as error:
            if ctx.meta.get("debug"):
                raise
            print_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno not in FULL_DISK or ctx.meta.get("debug"):
                raise
            print_error(f"no space is left for {error.filename or 'the results'}; free some and run the command again.")
            raise typer.Exit(UsageError.exit_code) from error
        except KeyboardInterrupt:
            stderr.print("Interrupted; what was done is kept, and the same command goes on from there.")
            raise typer.Exit(INTERRUPTED) from None


EXAMPLE = """\
A first look, in seconds:

metantk-nas search --space nas_bench_201 --budget 12 --init-channels 8 --n-cells 3

Then open the report that it names. Every command explains itself with --help."""

app = typer.Typer(
    cls=_TeachingGroup,
    name="metantk-nas",
    epilog=EXAMPLE,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        try:
            version = metadata.version("metantk-nas")
        except metadata.PackageNotFoundError:
            version = "of a checkout that is not installed"
        stdout.print(f"metantk-nas {version}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Rank untrained architectures for few-shot learning by their Meta Neural Tangent Kernel, then train the best."""


MAKE, KEEP, KNOW = "Search, train, use", "Look back, hand on", "What there is"

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    MAKE: (run_file.init, runs.search, runs.score, runs.train, runs.predict),
    KEEP: (past.report, past.rerun, export.export),
    KNOW: (lists.spaces, lists.learners, lists.searchers, lists.metrics),
}


def _add(group: typer.Typer, command: Callable[..., None], panel: str | None = None) -> None:
    """Add a command; the lines of its docstring's paragraphs are joined, for help to break them anew."""
    name_values(command)
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    group.command(cls=_Command, help=text, rich_help_panel=panel)(command)


for _panel, _members in _COMMANDS.items():
    for _command in _members:
        _add(app, _command, _panel)

_bench = typer.Typer(cls=_Group, no_args_is_help=True)
_add(_bench, bench.build)
_add(_bench, bench.correlate)
_ABOUT_BENCH = "Measure how architectures learn from few images, and what foretells it."
app.add_typer(_bench, name="bench", help=_ABOUT_BENCH, rich_help_panel=KEEP)

_datasets = typer.Typer(cls=_Group, invoke_without_command=True)
_datasets.callback()(datasets.list_datasets)
_add(_datasets, datasets.check)
app.add_typer(_datasets, name="datasets", rich_help_panel=KNOW)
