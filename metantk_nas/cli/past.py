"""Commands on runs that are done: draw them, compare them, make them again."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli.given import command_words
from metantk_nas.cli.screen import print_changes, print_json, print_note, progress_bars, stdout
from metantk_nas.errors import MetaNTKError, UsageError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Directories of searches.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Page of a comparison (comparison.html).")] = None,
    debug: opt.Debug = False,
) -> None:
    """Draw a run's report.html and plots anew; of several runs, write one page that compares them."""
    from metantk_nas.experiment import scoring
    from metantk_nas.report.compare import write_comparison

    if len(runs) > 1:
        page = write_comparison(runs, out or Path("comparison.html"))
    elif out is not None:
        raise UsageError(f"--out {out} is for comparisons of several runs; the report of one is written into it.")
    else:
        page = scoring.redraw(runs[0])
    stdout.print(str(page), highlight=False, soft_wrap=True, markup=False)


def rerun(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a search.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run (RUN-rerun).", rich_help_panel=opt.RUN)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the same images are now.", rich_help_panel=opt.WHAT, show_default=False)
    ] = None,
    data_root: opt.DataRoot = None,
    device: Annotated[
        str | None, typer.Option(help="Another device: cpu, cuda or cuda:<index>.", rich_help_panel=opt.RUN)
    ] = None,
    devices: opt.Devices = None,
    memory: opt.Memory = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Make a run again from its manifest, and say whether the ranking is the same to six digits.

    Lists what differs in versions, device and threads. Refuses if the data or the search space are not those of the
    run. Exit code 1 if the ranking differs. Trainings are not repeated.
    """
    from metantk_nas.experiment.rerun import rerun as make_again

    run = run.resolve() if run.name in ("", "..") else run
    place = out or run.with_name(f"{run.name}-rerun")
    here = {"data": data, "data_root": data_root, "device": device, "devices": devices, "memory": memory}
    with progress_bars() as progress:
        done = make_again(run, place, command=command_words(), progress=progress, note=print_note, **here)
    if as_json:
        differences = [asdict(each) for each in done.differences]
        same = not done.deviations
        print_json({"out": str(place), "same": same, "differences": differences, "deviations": list(done.deviations)})
    else:
        print_changes([(each.name, each.recorded, each.here) for each in done.differences])
        stdout.print(f"Ranking: {place / 'ranking.csv'}", highlight=False, soft_wrap=True, markup=False)
    if done.deviations:
        hint = " What differs between then and now may be why." if done.differences else ""
        raise MetaNTKError(f"the ranking is not that of {run}: {'; '.join(done.deviations)}.{hint}")
    if not as_json:
        n = len(done.ranking)
        stdout.print(f"The ranking of {n:,} architectures is that of {run}, to six digits.", highlight=False)
