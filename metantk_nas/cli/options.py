"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from metantk_nas.cli import complete

SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}


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


WHAT, EPISODES, SEARCH, TRAIN, RUN = "Networks and images", "Episodes and kernel", "Search", "Few-shot training", "Run"

Space = Annotated[
    str,
    typer.Option(
        help="Search space: a name (see `spaces`) or a TOML file.",
        autocompletion=complete.spaces,
        rich_help_panel=WHAT,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="Images: a name (see `datasets`), a folder, or hf:NAME.",
        autocompletion=complete.data,
        rich_help_panel=WHAT,
    ),
]
DataRoot = Annotated[Path | None, typer.Option(help="Where the data set's files are.", rich_help_panel=WHAT)]
Rotations = Annotated[
    bool,
    typer.Option(
        "--rotations",
        help="Omniglot: base classes turned by 90°, 180° and 270° become classes too.",
        rich_help_panel=WHAT,
    ),
]
InitChannels = Annotated[
    int | None, typer.Option(help="Channels of the first cells (the space's).", rich_help_panel=WHAT)
]
NCells = Annotated[int | None, typer.Option(help="Number of stacked cells (the space's).", rich_help_panel=WHAT)]
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
        autocompletion=complete.presets,
        rich_help_panel=WHAT,
    ),
]
Searcher = Annotated[
    str,
    typer.Option(
        help="How architectures are proposed (see `searchers`).",
        autocompletion=complete.searchers,
        rich_help_panel=SEARCH,
    ),
]
SearcherSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--searcher-set",
        metavar="NAME=VALUE",
        help="A setting of the searcher; may be repeated.",
        rich_help_panel=SEARCH,
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(help="Architectures to score (48; exhaustive and pruning: all).", rich_help_panel=SEARCH),
]
Pareto = Annotated[
    str,
    typer.Option(
        help="Also compare by objectives: metrics or score, e.g. params,score.",
        autocompletion=complete.objectives,
        rich_help_panel=SEARCH,
    ),
]
FidelityText = Annotated[
    str,
    typer.Option(
        "--fidelity",
        help="Cheap looks at all, the best in full: auto, or looks such as image_size=16,keep=0.25 joined by /.",
        rich_help_panel=SEARCH,
    ),
]
RankBy = Annotated[
    str,
    typer.Option(
        help="Order: a preset or metrics, a,b,… (see `metrics`); ~a is a against its direction.",
        autocompletion=complete.rules,
        rich_help_panel=SEARCH,
    ),
]
Ranks = Annotated[
    str,
    typer.Option(
        help="Also rank by these presets, a column each: metantk,metantk-nas.",
        autocompletion=complete.rank_presets,
        rich_help_panel=SEARCH,
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        help="Further metrics to compute: a,b,… (see `metrics`).",
        autocompletion=complete.metrics,
        rich_help_panel=SEARCH,
    ),
]
MaxParams = Annotated[
    int | None,
    typer.Option(parser=_parse_count, metavar="N", help="Skip larger networks, e.g. 2M.", rich_help_panel=SEARCH),
]
MaxMacs = Annotated[
    int | None,
    typer.Option(parser=_parse_count, metavar="N", help="Skip costlier networks, e.g. 200M.", rich_help_panel=SEARCH),
]
MaxLatency = Annotated[
    float | None,
    typer.Option(
        metavar="MS", help="Skip networks that take longer here, timed before kernels.", rich_help_panel=SEARCH
    ),
]
LatencyBatch = Annotated[int, typer.Option(help="Images of a timed batch (latency_ms).", rich_help_panel=SEARCH)]
Chunk = Annotated[
    int | None,
    typer.Option(
        help="Candidates evaluated at once (as many as fit). Results do not depend on it.", rich_help_panel=RUN
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Most memory to take, of all CPU processes together or of each GPU, e.g. 4GiB.",
        rich_help_panel=RUN,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="A worker process on each: cuda:0,cuda:1 or cpu,cpu.", rich_help_panel=RUN),
]
EngineName = Annotated[
    Literal["local", "ray"], typer.Option(help="This machine, or workers on a Ray cluster.", rich_help_panel=RUN)
]
Address = Annotated[
    str,
    typer.Option(help="Ray cluster: auto (this machine's), HOST:PORT, local (start one here).", rich_help_panel=RUN),
]
RayWorkers = Annotated[
    int | None, typer.Option(metavar="N", help="Workers on the cluster (as many as fit).", rich_help_panel=RUN)
]
GpusPerWorker = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of a GPU for each worker: 1, 0.5 or 0.", rich_help_panel=RUN)
]
Seed = Annotated[int, typer.Option(help="Seed of everything.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.", rich_help_panel=RUN)]
Out = Annotated[
    Path | None,
    typer.Option(help="Directory of the run (results/<space>-<data>-seed<k>).", rich_help_panel=RUN),
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_remember_debug)]
Learner = Annotated[
    str,
    typer.Option(help="Few-shot learner (see `learners`).", autocompletion=complete.learners, rich_help_panel=TRAIN),
]
TrainBudget = Annotated[
    int | None, typer.Option(help="Training episodes, or batches of images for rfs (500).", rich_help_panel=TRAIN)
]
TrainWay = Annotated[
    int | None,
    typer.Option(
        min=2, help="Classes of a training episode (--n-way); more for learners without a head.", rich_help_panel=TRAIN
    ),
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
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the learner or the outer loop; may be repeated.",
        rich_help_panel=TRAIN,
    ),
]
