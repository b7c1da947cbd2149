"""Commands about evidence: tables of trained few-shot accuracy, and how well scores foretell them."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from metantk_nas.cli import complete
from metantk_nas.cli import options as opt
from metantk_nas.cli.given import command_words, make_spec, read_settings
from metantk_nas.cli.screen import print_correlation, print_json, print_note, print_table_rows, progress_bars, stdout

TABLE, COMPARE = "Table", "Comparison"

Protocol = Annotated[str, typer.Option(help="How to train and judge: rfs or protonet.", rich_help_panel=TABLE)]
Sample = Annotated[int, typer.Option(help="Architectures to draw, no two of the same function.", rich_help_panel=TABLE)]
TrainSeed = Annotated[
    int, typer.Option(help="Seed of weights and batches; another one adds rows.", rich_help_panel=TABLE)
]
TrainBudget = Annotated[
    int | None, typer.Option(help="Batches or episodes to train on (the protocol's own).", rich_help_panel=TABLE)
]

TableOut = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the table (results/fewshot_bench/<space>-<data>-<protocol>).", rich_help_panel=opt.RUN
    ),
]

ScoreFiles = Annotated[
    list[Path],
    typer.Argument(help="Directories of searches, rankings, or CSV files with scores.", show_default=False),
]
ScoredSpace = Annotated[
    str | None,
    typer.Option(
        help="Search space of the scores (that of the runs, or nas_bench_201).",
        autocompletion=complete.spaces,
        show_default=False,
        rich_help_panel=opt.WHAT,
    ),
]
TruthPath = Annotated[
    Path,
    typer.Option(
        help="A table of `bench build`, a CSV of accuracies, or a NAS-Bench-201 file or NATS-Bench folder.",
        rich_help_panel=COMPARE,
    ),
]
Column = Annotated[
    str | None, typer.Option(help="The truth's column (accuracy_5shot, accuracy, …).", rich_help_panel=COMPARE)
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=TEXT", help="Keep rows of the truth with this text; may be repeated.", rich_help_panel=COMPARE
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        "--scores",
        metavar="LIST",
        help="Columns to compare (all): a,b; -a where lower is better.",
        rich_help_panel=COMPARE,
    ),
]
Baselines = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="CSV of scores to be held against; may be repeated.", rich_help_panel=COMPARE),
]
UnitName = Annotated[
    Literal["key", "arch"],
    typer.Option(help="Compare functions (canonical keys), or texts as most papers do.", rich_help_panel=COMPARE),
]
AllCells = Annotated[
    bool, typer.Option("--all-cells", help="Also cells without a path to the output.", rich_help_panel=COMPARE)
]
CompareSample = Annotated[
    int | None, typer.Option(help="Compare this many, drawn at random (all).", rich_help_panel=COMPARE)
]
TopK = Annotated[int | None, typer.Option(help="How many of the best are compared (10).", rich_help_panel=COMPARE)]


def build(
    space: opt.Space = "nas_bench_201",
    data: opt.Data = "cifar_fs",
    data_root: opt.DataRoot = None,
    protocol: Protocol = "rfs",
    sample: Sample = 24,
    train_seed: TrainSeed = 0,
    train_budget: TrainBudget = None,
    init_channels: opt.InitChannels = None,
    n_cells: opt.NCells = None,
    image_size: opt.ImageSize = 32,
    eval_episodes: opt.EvalEpisodes = 1000,
    eval_query: opt.EvalQuery = 15,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    devices: opt.Devices = None,
    out: TableOut = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Train a random sample of a space's architectures, and write their few-shot accuracies into a table.

    The same command continues an interrupted table; a larger --sample or another --train-seed adds rows to it.
    """
    given = dict(locals())
    from metantk_nas.bench.build import BenchSpec, build_table

    spec = make_spec(BenchSpec, given)
    directory = out or Path("results") / "fewshot_bench" / spec.name
    with progress_bars() as progress:
        table = build_table(spec, directory, command=command_words(), progress=progress, note=print_note)
    rows = json.loads(table.to_json(orient="records"))
    if as_json:
        print_json({"out": str(directory), "rows": rows})
    else:
        print_table_rows(rows)
        stdout.print(f"Table: {directory / 'table.csv'}", highlight=False, soft_wrap=True)


def correlate(
    scores: ScoreFiles,
    truth: TruthPath,
    space: ScoredSpace = None,
    column: Column = None,
    where: Where = None,
    columns: Columns = "",
    baselines: Baselines = None,
    unit: UnitName = "key",
    all_cells: AllCells = False,
    sample: CompareSample = None,
    top_k: TopK = None,
    seed: opt.Seed = 0,
    out: Annotated[Path, typer.Option(help="Directory of the result.", rich_help_panel=opt.RUN)] = Path("correlation"),
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Say how well scores foretell a truth: Kendall's tau and more, with intervals, beside params and MACs.

    Writes correlation.csv, correlation.png and correlation.html.
    """
    from metantk_nas.bench.correlate import correlate as measure
    from metantk_nas.bench.correlate import noise_of, read_scores, recorded_space, write_correlation
    from metantk_nas.bench.truth import read_truth
    from metantk_nas.spaces.load import load_space

    names = [name.strip() for name in columns.split(",") if name.strip()]
    loaded = load_space(space or next(filter(None, map(recorded_space, scores)), "nas_bench_201"))
    rows = {name: str(text) for name, text in read_settings(where or [], "--where protocol=rfs").items()}
    with progress_bars() as progress:
        reached = read_truth(truth, loaded, column, where=rows, cache_dir=out, progress=progress)
    found = measure(
        reached,
        [
            *(read_scores(path, loaded, names, truth=reached) for path in scores),
            *(read_scores(path, loaded, truth=reached, baseline=True) for path in baselines or []),
        ],
        loaded,
        unit=unit,
        connected_only=not all_cells,
        sample=sample,
        top_k=top_k,
        seed=seed,
    )
    paths = write_correlation(out, found, command_words())
    if as_json:
        print_json({"out": str(out), "scores": json.loads(found.table.to_json(orient="records"))})
        return
    print_correlation(found.table)
    if noise := noise_of(reached):
        stdout.print(noise, highlight=False, soft_wrap=True)
    for path in paths:
        stdout.print(str(path), highlight=False, soft_wrap=True)
