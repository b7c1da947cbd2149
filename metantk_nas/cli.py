"""The command line: it parses, calls and prints. Results go to stdout, progress and errors to stderr."""

import errno
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from metantk_nas.errors import MetaNTKError, UsageError
from metantk_nas.report.words import count, number
from metantk_nas.spaces.load import available_spaces, load_space

if TYPE_CHECKING:
    from metantk_nas.results import Ranking

TOP = 10
MIN_ARCH = 24
"""Characters of an architecture that a table shows at least."""
INTERRUPTED = 130
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}

stdout, stderr = Console(), Console(stderr=True)


class _TeachingGroup(TyperGroup):
    """Turns errors raised on purpose into one line and an exit code; ``--debug`` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MetaNTKError as error:
            if ctx.meta.get("debug"):
                raise
            _print_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno not in FULL_DISK or ctx.meta.get("debug"):
                raise
            _print_error(
                f"no space is left for {error.filename or 'the results'}; free some and run the command again."
            )
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


def _parse_count(text: str) -> int:
    """Read a number such as ``200000``, ``200K``, ``2M`` or ``1.5G``."""
    scale = SUFFIXES.get(text[-1:].upper(), 1.0)
    digits = text[:-1] if scale > 1 else text
    try:
        value = float(digits) * scale
        return int(value)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a number; expected for example 200000, 200K or 2M") from None


def _remember_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["debug"] = value
    return value


WHAT, EPISODES, SEARCH, TRAIN, RUN = "What to score", "Episodes and kernel", "Search", "Few-shot training", "Run"

Space = Annotated[str, typer.Option(help="Search space: a name (see `spaces`) or a TOML file.", rich_help_panel=WHAT)]
Data = Annotated[str, typer.Option(help="Images: a name (see `datasets`) or a folder.", rich_help_panel=WHAT)]
DataRoot = Annotated[Path | None, typer.Option(help="Where the data set's files are.", rich_help_panel=WHAT)]
Rotations = Annotated[
    bool, typer.Option("--rotations", help="Omniglot: rotated base classes become classes.", rich_help_panel=WHAT)
]
InitChannels = Annotated[int | None, typer.Option(help="Channels of the first cells.", rich_help_panel=WHAT)]
NCells = Annotated[int | None, typer.Option(help="Number of stacked cells.", rich_help_panel=WHAT)]
ImageSize = Annotated[int, typer.Option(help="Height and width in pixels.", rich_help_panel=WHAT)]
NWay = Annotated[int, typer.Option(help="Classes per episode.", rich_help_panel=EPISODES)]
NShot = Annotated[int, typer.Option(help="Support images per class.", rich_help_panel=EPISODES)]
NQuery = Annotated[int, typer.Option(help="Query images per class.", rich_help_panel=EPISODES)]
NEpisodes = Annotated[int, typer.Option(help="Episodes per repeat.", rich_help_panel=EPISODES)]
Repeats = Annotated[int, typer.Option(help="Re-initialisations, each with its own episodes.", rich_help_panel=EPISODES)]
AdaptationName = Annotated[
    Literal["maml", "anil"],
    typer.Option(
        help="Inner-loop kernel: all weights (maml) or the head alone (anil).",
        rich_help_panel=EPISODES,
    ),
]
InnerTime = Annotated[float, typer.Option(help="Inner learning rate × steps; may be inf.", rich_help_panel=EPISODES)]
InnerReg = Annotated[float, typer.Option(help="Ridge of the inner loop.", rich_help_panel=EPISODES)]
OutputReductionName = Annotated[
    Literal["sum", "trace"],
    typer.Option(help="Kernel of the logits' sum, or sum of the logits' kernels.", rich_help_panel=EPISODES),
]
Preset = Annotated[
    str,
    typer.Option(
        help="A paper's search: metantk-nas-2022, metantk-nas-2022-anil. Options that are given win over it.",
        rich_help_panel=WHAT,
    ),
]
Searcher = Annotated[
    str, typer.Option(help="How architectures are proposed (see `searchers`).", rich_help_panel=SEARCH)
]
SearcherSettings = Annotated[
    list[str] | None,
    typer.Option("--searcher-set", metavar="NAME=VALUE", help="A setting of the searcher.", rich_help_panel=SEARCH),
]
Budget = Annotated[
    int | None,
    typer.Option(help="Architectures to score (48; exhaustive, pruning: all they ask).", rich_help_panel=SEARCH),
]
Pareto = Annotated[
    str,
    typer.Option(help="Also compare by objectives: metrics or score, e.g. params,score.", rich_help_panel=SEARCH),
]
FidelityText = Annotated[
    str,
    typer.Option(
        "--fidelity",
        help="Cheap first look at all, the best in full: auto, or repeats=1,init_channels=32,keep=0.2.",
        rich_help_panel=SEARCH,
    ),
]
RankBy = Annotated[
    str, typer.Option(help="metantk, metantk-nas, or metrics: a,b,… (see `metrics`).", rich_help_panel=SEARCH)
]
Metrics = Annotated[str, typer.Option(help="Further metrics to compute: a,b,….", rich_help_panel=SEARCH)]
MaxParams = Annotated[
    int | None,
    typer.Option(parser=_parse_count, metavar="N", help="Skip larger networks, e.g. 2M.", rich_help_panel=SEARCH),
]
MaxMacs = Annotated[
    int | None,
    typer.Option(parser=_parse_count, metavar="N", help="Skip costlier networks, e.g. 200M.", rich_help_panel=SEARCH),
]
Chunk = Annotated[
    int | None,
    typer.Option(help="Candidates evaluated at once (by memory). Results do not depend on it.", rich_help_panel=RUN),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Memory to use, of the CPU's processes or of each GPU: 4GiB.", rich_help_panel=RUN
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="A worker process on each: cuda:0,cuda:1 or cpu,cpu.", rich_help_panel=RUN),
]
Seed = Annotated[int, typer.Option(help="Seed of everything.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.", rich_help_panel=RUN)]
Out = Annotated[
    Path | None,
    typer.Option(help="Directory of the run (results/<space>-<data>-seed<k>).", rich_help_panel=RUN),
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON.", rich_help_panel=RUN)]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=_remember_debug, rich_help_panel=RUN),
]
Learner = Annotated[str, typer.Option(help="Few-shot learner (see `learners`).", rich_help_panel=TRAIN)]
TrainBudget = Annotated[
    int | None, typer.Option(help="Training episodes, or batches of images for rfs (500).", rich_help_panel=TRAIN)
]
TrainQuery = Annotated[int, typer.Option(help="Query images per class while training.", rich_help_panel=TRAIN)]
TaskWeighting = Annotated[
    str | None, typer.Option(help="How episodes of a meta-batch weigh: none, agreement.", rich_help_panel=TRAIN)
]
EvalEpisodes = Annotated[int, typer.Option(help="Novel-class episodes to judge by.", rich_help_panel=TRAIN)]
EvalQuery = Annotated[int, typer.Option(help="Query images per class of such an episode.", rich_help_panel=TRAIN)]
BatchSize = Annotated[int, typer.Option(help="Images of a batch, for rfs.", rich_help_panel=TRAIN)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the learner or the outer loop.", rich_help_panel=TRAIN
    ),
]


@app.command()
def search(
    ctx: typer.Context,
    preset: Preset = "",
    space: Space = "darts",
    data: Data = "glyphs",
    data_root: DataRoot = None,
    rotations: Rotations = False,
    init_channels: InitChannels = None,
    n_cells: NCells = None,
    image_size: ImageSize = 32,
    n_way: NWay = 5,
    n_shot: NShot = 1,
    n_query: NQuery = 1,
    n_episodes: NEpisodes = 3,
    repeats: Repeats = 3,
    adaptation: AdaptationName = "maml",
    inner_time: InnerTime = math.inf,
    inner_reg: InnerReg = 1e-3,
    output_reduction: OutputReductionName = "sum",
    searcher: Searcher = "random",
    searcher_settings: SearcherSettings = None,
    budget: Budget = None,
    fidelity: FidelityText = "",
    rank_by: RankBy = "metantk",
    pareto: Pareto = "",
    metrics: Metrics = "",
    max_params: MaxParams = None,
    max_macs: MaxMacs = None,
    train_top: Annotated[int, typer.Option(min=0, help="Train this many of the best.", rich_help_panel=TRAIN)] = 0,
    learner: Learner = "protonet",
    train_budget: TrainBudget = None,
    task_weighting: TaskWeighting = None,
    train_query: TrainQuery = 5,
    eval_episodes: EvalEpisodes = 600,
    eval_query: EvalQuery = 15,
    batch_size: BatchSize = 64,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = None,
    memory: Memory = None,
    chunk: Chunk = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score architectures before training, rank them all, and train the best.

    The same command continues an interrupted search.
    """
    given = dict(locals())
    from metantk_nas.experiment import scoring, training
    from metantk_nas.experiment.spec import SearchSpec, preset_fields

    given |= {name: value for name, value in preset_fields(preset).items() if _is_default(ctx, name)}
    given["searcher_settings"] = _read_settings(searcher_settings or [], "--searcher-set population=32")
    spec = _spec(SearchSpec, given)
    train_spec = _train_spec({**given, "n_query": train_query})
    if train_top:
        training.read_settings(train_spec)
    run = out or spec.default_out(preset=preset)
    with _progress() as progress:
        ranking = scoring.search(spec, run, command=_command(), progress=progress, note=_note)
        trained = (
            training.train_run(run, train_top, train_spec, command=_command(), progress=progress) if train_top else None
        )
    _show_run(run, ranking, trained, as_json=as_json)


@app.command()
def score(
    archs: Annotated[list[str], typer.Argument(metavar="ARCH…", help="Texts, a file with one a line, or - for stdin.")],
    space: Space = "darts",
    data: Data = "glyphs",
    data_root: DataRoot = None,
    rotations: Rotations = False,
    init_channels: InitChannels = None,
    n_cells: NCells = None,
    image_size: ImageSize = 32,
    n_way: NWay = 5,
    n_shot: NShot = 1,
    n_query: NQuery = 1,
    n_episodes: NEpisodes = 3,
    repeats: Repeats = 3,
    adaptation: AdaptationName = "maml",
    inner_time: InnerTime = math.inf,
    inner_reg: InnerReg = 1e-3,
    output_reduction: OutputReductionName = "sum",
    rank_by: RankBy = "metantk",
    metrics: Metrics = "",
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = None,
    memory: Memory = None,
    chunk: Chunk = None,
    out: Annotated[Path | None, typer.Option(help="Keep the scores here (nowhere).", rich_help_panel=RUN)] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score given architectures: the same rows as a search writes."""
    given = dict(locals())
    from metantk_nas import api
    from metantk_nas.experiment.spec import SearchSpec

    chosen = {name: given[name] for name in _field_names(SearchSpec) if name in given}
    with _progress() as progress:
        ranking = api.score(_read_archs(archs), out=out, command=_command(), progress=progress, note=_note, **chosen)
    if as_json:
        _print_json(_rows(ranking))
    else:
        _print_ranking(ranking, "Scores")


@app.command()
def train(
    run: Annotated[Path | None, typer.Argument(help="Directory of a search.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Train this many of its best.", rich_help_panel=WHAT)] = 1,
    arch: Annotated[
        str | None, typer.Option(help="Instead of RUN: an architecture text, or conv4.", rich_help_panel=WHAT)
    ] = None,
    space: Space = "darts",
    data: Data = "glyphs",
    data_root: DataRoot = None,
    rotations: Rotations = False,
    init_channels: InitChannels = None,
    n_cells: NCells = None,
    image_size: ImageSize = 32,
    n_way: NWay = 5,
    n_shot: NShot = 1,
    learner: Learner = "protonet",
    train_budget: TrainBudget = None,
    task_weighting: TaskWeighting = None,
    train_query: TrainQuery = 5,
    eval_episodes: EvalEpisodes = 600,
    eval_query: EvalQuery = 15,
    batch_size: BatchSize = 64,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the best of a search, or one given architecture, and judge it on novel classes.

    Accuracies are means over fixed episodes with 95 % confidence intervals. The same command continues
    an interrupted training.
    """
    given = dict(locals())
    from metantk_nas.experiment import training
    from metantk_nas.experiment.spec import SearchSpec

    if (run is None) == (arch is None):
        raise UsageError("train needs either the directory of a search or --arch TEXT; got both or neither.")
    spec = _train_spec({**given, "n_query": train_query})
    search_spec = _spec(SearchSpec, {**given, "space": arch if arch == "conv4" else space})
    training.read_settings(spec)
    with _progress() as progress:
        if run is not None:
            table = training.train_run(run, top, spec, command=_command(), progress=progress)
        else:
            run = out or Path("results") / f"train-{search_spec.default_out().name}"
            table = training.train_arch(str(arch), search_spec, spec, run, command=_command(), progress=progress)
    rows = json.loads(table.to_json(orient="records"))
    if as_json:
        _print_json({"out": str(run), "evaluation": rows})
    else:
        _print_evaluation(rows)
        stdout.print(f"Results: {run}", highlight=False, soft_wrap=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Directory of a search.")],
    debug: Debug = False,
) -> None:
    """Draw a run's report.html and plots anew."""
    from metantk_nas.experiment import scoring

    stdout.print(str(scoring.redraw(run)), highlight=False, soft_wrap=True)


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A name or a TOML file, to see all of it.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the search spaces, or describe one."""
    if name is None:
        listed = [load_space(each) for each in available_spaces()]
        _print_list(
            ["name", "architectures", "description"],
            [{"name": s.name, "architectures": f"{s.size:,}", "description": s.description} for s in listed],
            as_json=as_json,
        )
        return
    space = load_space(name)
    skeleton = space.skeleton
    _print_facts(
        {
            "name": space.name,
            "description": space.description,
            "source": space.source,
            "architectures": f"{space.size:,}",
            "per cell type": f"{space.cell_size:,} ({', '.join(space.cell_types)})",
            "cell": f"{space.n_inputs} inputs, {space.n_nodes} nodes, output: {space.output}",
            "edges per node": "all" if space.edges_per_node is None else str(space.edges_per_node),
            "operations": ", ".join(space.ops),
            "skeleton": f"{skeleton.n_cells} cells, {skeleton.init_channels} channels, "
            f"halving at cells {', '.join(map(str, skeleton.reduction_positions)) or 'none'}",
        },
        as_json=as_json,
    )


@app.command()
def datasets(as_json: Json = False, debug: Debug = False) -> None:
    """List the data sets."""
    from metantk_nas.episodes.load import available_datasets

    rows = [
        {"name": info.name, "description": info.description, "source": info.source, "licence": info.licence}
        for info in available_datasets().values()
    ]
    _print_list(["name", "description", "source", "licence"], rows, as_json=as_json)


@app.command()
def learners(as_json: Json = False, debug: Debug = False) -> None:
    """List the few-shot learners and their settings."""
    from metantk_nas.learners.registry import LEARNERS

    rows = [
        {
            "name": info.name,
            "description": info.description,
            "paper": info.paper,
            "settings": ", ".join(f"{name}={value}" for name, value in info.settings.items()) or "none",
        }
        for info in LEARNERS.values()
    ]
    _print_list(["name", "description", "paper", "settings"], rows, as_json=as_json)


@app.command()
def searchers(as_json: Json = False, debug: Debug = False) -> None:
    """List the searchers and their settings."""
    from metantk_nas.searchers.registry import SEARCHERS

    rows = [
        {
            "name": name,
            "description": entry.description,
            "source": entry.source or "–",
            "settings": ", ".join(f"{setting}={value}" for setting, value in entry.defaults.items()) or "none",
        }
        for name, entry in SEARCHERS.items()
    ]
    _print_list(["name", "description", "source", "settings"], rows, as_json=as_json)


@app.command()
def metrics(as_json: Json = False, debug: Debug = False) -> None:
    """List the metrics, their directions, and the ranking presets."""
    from metantk_nas.scorers.registry import METRICS, PRESETS

    rows = [
        {
            "name": metric.name,
            "better": "higher" if metric.higher_is_better else "lower",
            "description": metric.description,
            "source": metric.source,
        }
        for metric in METRICS.values()
    ]
    rows += [
        {
            "name": name,
            "better": "preset",
            "description": " + ".join(metric.name for metric in rule.metrics),
            "source": "ranks of the parts, summed",
        }
        for name, rule in PRESETS.items()
    ]
    _print_list(["name", "better", "description", "source"], rows, as_json=as_json)


def _field_names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _spec(kind: Any, given: Mapping[str, Any]) -> Any:
    """Build a spec from the options that are its fields."""
    return kind(**{name: given[name] for name in _field_names(kind) if name in given})


def _train_spec(given: Mapping[str, Any]) -> Any:
    from metantk_nas.experiment.spec import TrainSpec

    return _spec(TrainSpec, {**given, "settings": _read_settings(given["settings"] or [], "--set inner_lr=0.4")})


def _is_default(ctx: typer.Context, name: str) -> bool:
    """Whether an option was left at its default."""
    source = ctx.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


def _read_settings(texts: Sequence[str], example: str) -> dict[str, Any]:
    """Read ``name=value`` pairs; a value is JSON where it can be, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not a setting; expected NAME=VALUE, for example {example}.")
        try:
            found[name] = json.loads(value.lower() if value.lower() in ("true", "false", "none") else value)
        except ValueError:
            found[name] = value
    return found


def _read_archs(given: Sequence[str]) -> list[str]:
    """Read architectures from arguments, files and stdin."""
    texts: list[str] = []
    for each in given:
        if each == "-":
            texts += sys.stdin.read().splitlines()
        elif "|" not in each and "(" not in each and Path(each).is_file():
            texts += Path(each).read_text(encoding="utf-8").splitlines()
        else:
            texts.append(each)
    if not (texts := [text.strip() for text in texts if text.strip()]):
        raise UsageError("no architecture was given; expected a text, a file with one a line, or - and lines on stdin.")
    return texts


def _command() -> list[str]:
    return ["metantk-nas", *sys.argv[1:]]


def _note(text: str) -> None:
    """Tell on stderr what happened on the way."""
    stderr.print(f"Note: {_escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr for every label that is reported."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], completed=done, total=total or None)

        yield report


def _show_run(run: Path, ranking: "Ranking", trained: Any, *, as_json: bool) -> None:
    from metantk_nas.results import SCREENED_OUT

    rows = [] if trained is None else json.loads(trained.to_json(orient="records"))
    paths = {"ranking": str(run / "ranking.csv"), "report": str(run / "report.html")}
    objectives = [text.strip() for text in str(ranking.manifest["spec"]["pareto"]).split(",") if text]  # type: ignore[index]
    if as_json:
        front = {"front": _rows(ranking.front())} if objectives else {}
        _print_json({"out": str(run), **paths, "top": _rows(ranking.top(TOP)), **front, "evaluation": rows})
        return
    top = ranking.top(TOP)
    _print_ranking(top, f"The best {len(top)} of {len(ranking):,} architectures")
    if objectives:
        _print_ranking(ranking.front(), f"Pareto front of {', '.join(objectives)}", objectives)
    best = ranking.top(1).frame
    if len(best):
        stdout.print(f"Best: {best['arch'].iloc[0]}", highlight=False, soft_wrap=True, markup=False)
    n_screened = int((ranking.frame["status"] == SCREENED_OUT).sum())
    n_failed = int((ranking.frame["status"] != "ok").sum()) - n_screened
    if n_screened:
        stdout.print(f"{n_screened} were screened out by the first look and follow in its order.")
    if n_failed:
        stdout.print(f"{n_failed} could not be scored and rank last; see status and reason in the ranking.")
    if rows:
        _print_evaluation(rows)
    for name, path in paths.items():
        stdout.print(f"{name.capitalize()}: {path}", highlight=False, soft_wrap=True)


def _print_ranking(ranking: "Ranking", title: str, metrics: Sequence[str] = ()) -> None:
    """Print the metrics that rank, or those that are named."""
    rule = metrics or [metric["name"] for metric in ranking.manifest["rank_rule"]["metrics"]]  # type: ignore[index]
    names = ["rank", *rule, *[name for name in ("params", "macs") if name not in rule], "status", "arch"]
    rows = [{name: _cell(row[name]) for name in names} for row in _rows(ranking)]
    widths = {name: max(len(text) for text in (name, *(row[name] for row in rows))) for name in names}
    wanted = widths.pop("arch")
    for name in ("macs", "status"):  # a narrow terminal shows less, the CSV all
        if _room_beside(widths) < MIN_ARCH:
            widths.pop(name, None)
    widths["arch"] = max(MIN_ARCH, min(wanted, _room_beside(widths)))
    table = Table(title=title)
    for name, width in widths.items():
        justify: Literal["left", "right"] = "left" if name in ("status", "arch") else "right"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*(row[name] for name in widths))
    stdout.print(table)


def _room_beside(widths: Mapping[str, int]) -> int:
    """Characters left for one more column of a table on this terminal."""
    return stdout.width - sum(width + 3 for width in widths.values()) - 4


def _print_evaluation(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="Few-shot accuracy on novel classes, mean ± 95 % confidence interval")
    for name in ("rank", "learner", "task", "accuracy", "episodes", "params"):
        table.add_column(name, justify="left" if name in ("learner", "task") else "right")
    for row in rows:
        table.add_row(
            _cell(row["rank"]),
            row["learner"],
            f"{row['n_way']}-way {row['n_shot']}-shot",
            f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f} %",
            _cell(row["n_episodes"]),
            _cell(row["params"]),
        )
    stdout.print(table)


def _rows(ranking: "Ranking") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ranking.frame.to_json(orient="records"))
    return rows


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return count(value) if isinstance(value, int) else _escape(str(value))


def _print_list(columns: Sequence[str], rows: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_escape(row[column]) for column in columns))
    stdout.print(table)


def _print_facts(facts: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name, _escape(value))
    stdout.print(table)


def _print_json(value: Any) -> None:
    stdout.print(json.dumps(value, indent=2), highlight=False, soft_wrap=True, markup=False)


def _print_error(message: str) -> None:
    stderr.print(f"[bold red]Error:[/] {_escape(message)}", highlight=False, soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
