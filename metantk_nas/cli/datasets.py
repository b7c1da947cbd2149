"""Commands on data sets: list them, check one."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from metantk_nas.cli import options as opt
from metantk_nas.cli.screen import escape, print_json, print_list, progress_bars, stdout
from metantk_nas.errors import UsageError

if TYPE_CHECKING:
    from metantk_nas.episodes.check import DatasetCheck

N_SKIPPED = 10
"""Files that were left out, as many as are shown; ``--json`` has all."""


def list_datasets(ctx: typer.Context, as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the data sets, or check one."""
    if ctx.invoked_subcommand is not None:
        return
    from metantk_nas.episodes.load import available_datasets

    rows = [
        {"name": info.name, "description": info.description, "source": info.source, "licence": info.licence}
        for info in available_datasets().values()
    ]
    print_list(["name", "description", "source", "licence"], rows, as_json=as_json)


def check(
    data: Annotated[str, typer.Argument(metavar="PATH_OR_NAME", help="A folder or zip of images, a name, or hf:NAME.")],
    data_root: opt.DataRoot = None,
    image_size: opt.ImageSize = 32,
    n_way: opt.NWay = 5,
    n_shot: opt.NShot = 1,
    n_query: opt.NQuery = 1,
    train_query: opt.TrainQuery = 5,
    eval_query: opt.EvalQuery = 15,
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Say what a data set holds before hours are spent on it; exit code 2 if nothing can be ranked on it.

    Looks at every file: classes, sizes, channels, damage, duplicates. Options say which episodes a search and a
    training will ask for.
    """
    from metantk_nas.episodes.check import check_dataset

    with progress_bars() as progress:
        found = check_dataset(
            data,
            image_size=image_size,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            train_query=train_query,
            eval_query=eval_query,
            data_root=data_root,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print_check(found)
    if found.reason:
        raise UsageError(found.reason)
    if not as_json:
        _print_uses(found, f"{n_way}-way {n_shot}-shot")


def _print_check(found: "DatasetCheck") -> None:
    """Print classes and images by split, and what deserves attention."""
    channels = "colour" if found.n_channels == 3 else "grey"
    n_images, n_classes = (sum(getattr(split, name) for split in found.splits) for name in ("n_images", "n_classes"))
    size = f"{channels}, at {found.image_size}x{found.image_size}"
    table = Table(title=escape(f"{found.name}: {n_images:,} images of {n_classes:,} classes, {size}"))
    for name in ("split", "classes", "images", "least … median … most", "classes to draw from"):
        table.add_column(name, justify="right" if name in ("classes", "images") else "left")
    for split in found.splits:
        counts = f"{split.fewest:,} … {split.median:,g} … {split.most:,}" if split.n_classes else "–"
        uses = ", ".join(f"{use.n_classes:,} to {use.purpose} ({use.n_needed})" for use in split.uses)
        table.add_row(split.name, f"{split.n_classes:,}", f"{split.n_images:,}", counts, uses)
    stdout.print(table)
    for note in found.notes:
        stdout.print(f"- {escape(note)}", highlight=False, soft_wrap=True)
    if found.skipped:
        stdout.print(f"- {len(found.skipped):,} left out, as they cannot be read or belong to no class:")
    for skipped in found.skipped[:N_SKIPPED]:
        stdout.print(f"    {escape(skipped.path)} ({escape(skipped.reason)})", highlight=False, soft_wrap=True)
    if len(found.skipped) > N_SKIPPED:
        stdout.print(f"    … and {len(found.skipped) - N_SKIPPED:,} more; --json has all.")


def _print_uses(found: "DatasetCheck", episodes: str) -> None:
    """Print in one line what the data set can be used for."""
    uses = [use for split in found.splits for use in split.uses]
    able, unable = ([use.purpose for use in uses if bool(use.reason) == bad] for bad in (False, True))
    but = f", but not to {', '.join(unable)}" if unable else ""
    stdout.print(
        f"Usable: {episodes} episodes can be drawn to {', '.join(able)}{but}.", highlight=False, soft_wrap=True
    )
