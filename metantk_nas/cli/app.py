"""The program: its commands, and how errors leave it."""

import errno
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from metantk_nas.cli import bench, datasets, export, lists, runs
from metantk_nas.cli.screen import print_error, stderr, stdout
from metantk_nas.errors import MetaNTKError, UsageError

INTERRUPTED = 130
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class _TeachingGroup(TyperGroup):
    """Turns errors raised on purpose into one line and an exit code; ``--debug`` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
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


app = typer.Typer(
    cls=_TeachingGroup,
    name="metantk-nas",
    help="Rank untrained architectures for few-shot learning by their Meta Neural Tangent Kernel, then train the best.",
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


_COMMANDS: tuple[Callable[..., None], ...] = (
    runs.search,
    runs.score,
    runs.train,
    runs.predict,
    runs.report,
    export.export,
    lists.spaces,
    lists.learners,
    lists.searchers,
    lists.metrics,
)
for _command in _COMMANDS:
    app.command()(_command)

_bench = typer.Typer(no_args_is_help=True)
_bench.command()(bench.build)
_bench.command()(bench.correlate)
app.add_typer(_bench, name="bench", help="Measure how architectures learn from few images, and what foretells it.")

_datasets = typer.Typer(invoke_without_command=True)
_datasets.callback()(datasets.list_datasets)
_datasets.command()(datasets.check)
app.add_typer(_datasets, name="datasets")
