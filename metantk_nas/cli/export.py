"""The command that writes a network in forms that others can use."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli.given import is_default
from metantk_nas.cli.screen import print_json, print_note, stdout
from metantk_nas.errors import UsageError

NETWORK = "Network of an architecture"

ArchOrFile = Annotated[
    str,
    typer.Argument(
        metavar="ARCH|FILE",
        help="An architecture text, conv4, a trained learner (models/NAME.pt of a run), or a JSON export.",
        show_default=False,
    ),
]
FormatName = Annotated[
    Literal["py", "pt", "onnx", "json", "text", "svg"],
    typer.Option(
        "--format",
        help="Python source, PyTorch program, ONNX, JSON, the texts of papers, or drawings of the cells.",
        show_default=False,
    ),
]
NWay = Annotated[
    int | None, typer.Option(min=1, help="Classes (5, or as trained): outputs of the head, or of the whole learner.")
]
ExportOut = Annotated[Path | None, typer.Option(help="File to write (exports/NAME.…; texts are printed).")]
InChannels = Annotated[int, typer.Option(min=1, help="Channels of the images.", rich_help_panel=NETWORK)]
ExportSpace = Annotated[str, typer.Option(help="Its search space: a name or a TOML file.", rich_help_panel=NETWORK)]
InitChannels = Annotated[int | None, typer.Option(help="Channels of the first cells.", rich_help_panel=NETWORK)]
NCells = Annotated[int | None, typer.Option(help="Number of stacked cells.", rich_help_panel=NETWORK)]
ImageSize = Annotated[int, typer.Option(min=1, help="Height and width in pixels.", rich_help_panel=NETWORK)]
WeightSeed = Annotated[int, typer.Option(help="Seed of the weights.", rich_help_panel=NETWORK)]

_OF_AN_ARCHITECTURE = ("space", "init_channels", "n_cells", "image_size", "in_channels")


def export(
    ctx: typer.Context,
    what: ArchOrFile,
    form: FormatName,
    out: ExportOut = None,
    n_way: NWay = None,
    space: ExportSpace = "darts",
    init_channels: InitChannels = None,
    n_cells: NCells = None,
    image_size: ImageSize = 32,
    in_channels: InChannels = 3,
    seed: WeightSeed = 0,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write a found network as Python source, PyTorch program, ONNX, JSON, text or drawings.

    Programs and ONNX files hold the features and, where a graph can hold it, a whole trained learner: from labelled
    and other images to logits. They are run and compared with the network before they are written.
    """
    given = dict(locals())
    from metantk_nas.export import files

    subject = _subject(ctx, what, given)
    if form == "text" and out is None:
        stdout.print(files.text_of(subject).rstrip(), highlight=False, soft_wrap=True, markup=False)
        return
    path = out or Path("exports") / f"{subject.name}{files.ENDINGS[form][0]}"
    done = files.export(subject, form, path, n_way=n_way, keep=None if subject.trained is None else Path(what))
    for note in done.notes:
        print_note(note)
    if as_json:
        print_json({"files": [str(each) for each in done.paths], "notes": list(done.notes)})
        return
    for each in done.paths:
        stdout.print(str(each), highlight=False, soft_wrap=True)


def _subject(ctx: typer.Context, what: str, given: dict[str, Any]) -> Any:
    """Build or read the network that is exported."""
    from metantk_nas.export.record import read_record
    from metantk_nas.export.subject import is_text, subject_of_arch, subject_of_learner
    from metantk_nas.learners.saved import NetworkSpec
    from metantk_nas.networks.build import is_baseline, resize
    from metantk_nas.spaces.load import load_space

    n_way, seed = given["n_way"], given["seed"]
    if is_text(what):
        space = None if is_baseline(what) else load_space(given["space"])
        resized = space and resize(space, init_channels=given["init_channels"], n_cells=given["n_cells"])
        return subject_of_arch(
            NetworkSpec(what, resized, n_way or 5, given["in_channels"], given["image_size"]), seed=seed
        )
    path = Path(what)
    if not path.is_file():
        raise UsageError(
            f"{what!r} is neither an architecture nor a file; expected a text such as '|skip_connect~0|+…', conv4, or "
            "the file of a trained learner, such as results/RUN/models/NAME.pt."
        )
    for name in _OF_AN_ARCHITECTURE:
        if not is_default(ctx, name):
            raise UsageError(f"{path.name} says all about its network; leave out --{name.replace('_', '-')}.")
    if path.suffix == ".json":
        spec, norm = read_record(path)
        return subject_of_arch(replace(spec, n_outputs=n_way or spec.n_outputs), norm=norm, seed=seed)
    return subject_of_learner(path)
