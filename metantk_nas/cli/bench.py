"""Commands about evidence: tables of trained few-shot accuracy, and how well scores foretell them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli.given import command_words, make_spec
from metantk_nas.cli.screen import print_json, print_note, print_table_rows, progress_bars, stdout

TABLE = "Table"

Protocol = Annotated[str, typer.Option(help="How to train and judge: rfs or protonet.", rich_help_panel=TABLE)]
Sample = Annotated[int, typer.Option(help="Architectures, each of another canonical key.", rich_help_panel=TABLE)]
TrainSeed = Annotated[
    int, typer.Option(help="Seed of weights and batches; another one adds rows.", rich_help_panel=TABLE)
]
TrainBudget = Annotated[
    int | None, typer.Option(help="Batches or episodes to train on (the protocol's own).", rich_help_panel=TABLE)
]


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
    out: opt.Out = None,
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
