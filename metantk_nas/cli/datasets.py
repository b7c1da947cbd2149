"""Commands on data sets: list them, check one."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from metantk_nas.cli import options as opt
from metantk_nas.cli.screen import escape, print_facts, print_json, print_list, progress_bars, stdout
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
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Say what a data set holds before hours are spent on it; exit code 2 if such episodes cannot be drawn.

    Looks at every file: classes, sizes, channels, damage, duplicates.
    """
    from metantk_nas.episodes.check import check_dataset

    with progress_bars() as progress:
        found = check_dataset(
            data,
            image_size=image_size,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
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
        stdout.print(f"Usable: {n_way}-way episodes with {n_shot} + {n_query} images a class can be drawn.")


def _print_check(found: "DatasetCheck") -> None:
    """Print classes and images by split, what the files are, and what deserves attention."""
    table = Table(title=f"{found.name}, {found.image_size}x{found.image_size}, {found.n_channels} channel(s)")
    for name in ("split", "classes", "images", "least / median / most a class", "possible episodes", "those asked for"):
        table.add_column(name, justify="right" if name in ("classes", "images") else "left")
    for split in found.splits:
        counts = f"{split.fewest:,} / {split.median:,g} / {split.most:,}" if split.n_classes else "–"
        possible = (
            f"n_way ≤ {split.n_classes:,}, n_shot + n_query ≤ {split.fewest:,}" if split.n_classes > 1 else "none"
        )
        asked_for = "no" if split.reason else "yes"
        table.add_row(split.name, f"{split.n_classes:,}", f"{split.n_images:,}", counts, possible, asked_for)
    stdout.print(table)
    if found.files is not None:
        sizes = (found.files.smallest, found.files.median, found.files.largest)
        smallest, median, largest = (f"{width}x{height}" for width, height in sizes)
        facts = {
            "sizes": f"{found.files.n_sizes:,}, from {smallest} over {median} (median) to {largest}",
            "colour / grey": f"{found.files.n_colour:,} / {found.files.n_grey:,}",
            "transparent": f"{found.files.n_alpha:,}",
            "16 bits": f"{found.files.n_sixteen_bit:,}",
            "turned by EXIF": f"{found.files.n_rotated:,}",
            "left out": f"{len(found.skipped):,}",
        }
        print_facts(facts, as_json=False)
    for note in found.notes:
        stdout.print(f"- {escape(note)}", highlight=False, soft_wrap=True)
    for skipped in found.skipped[:N_SKIPPED]:
        stdout.print(f"  left out: {escape(skipped.path)} ({escape(skipped.reason)})", highlight=False, soft_wrap=True)
