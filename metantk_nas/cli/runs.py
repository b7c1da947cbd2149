"""Commands that work: search, score, train and predict."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli import run_file
from metantk_nas.cli.given import (
    command_words,
    field_names,
    is_default,
    make_spec,
    make_train_spec,
    read_archs,
    read_settings,
)
from metantk_nas.cli.screen import (
    print_evaluation,
    print_json,
    print_labels,
    print_note,
    print_ranking,
    print_run,
    progress_bars,
    rows_of,
    stdout,
)
from metantk_nas.errors import UsageError


def search(
    ctx: typer.Context,
    config: run_file.Config = None,
    preset: opt.Preset = "",
    space: opt.Space = "darts",
    data: opt.Data = "glyphs",
    data_root: opt.DataRoot = None,
    rotations: opt.Rotations = False,
    init_channels: opt.InitChannels = None,
    n_cells: opt.NCells = None,
    image_size: opt.ImageSize = 32,
    n_way: opt.NWay = 5,
    n_shot: opt.NShot = 1,
    n_query: opt.NQuery = 1,
    n_episodes: opt.NEpisodes = 3,
    repeats: opt.Repeats = 3,
    adaptation: opt.AdaptationName = "maml",
    inner_time: opt.InnerTime = math.inf,
    inner_reg: opt.InnerReg = 1e-3,
    output_reduction: opt.OutputReductionName = "sum",
    searcher: opt.Searcher = "random",
    searcher_settings: opt.SearcherSettings = None,
    budget: opt.Budget = None,
    fidelity: opt.FidelityText = "",
    rank_by: opt.RankBy = "few-shot",
    pareto: opt.Pareto = "",
    ranks: opt.Ranks = "",
    metrics: opt.Metrics = "",
    max_params: opt.MaxParams = None,
    max_macs: opt.MaxMacs = None,
    max_latency: opt.MaxLatency = None,
    latency_batch: opt.LatencyBatch = 1,
    train_top: Annotated[
        int, typer.Option(min=0, metavar="N", help="Train this many of the best.", rich_help_panel=opt.TRAIN)
    ] = 0,
    learner: opt.Learner = "protonet",
    train_budget: opt.TrainBudget = None,
    task_weighting: opt.TaskWeighting = None,
    train_way: opt.TrainWay = None,
    train_query: opt.TrainQuery = 5,
    eval_episodes: opt.EvalEpisodes = 600,
    eval_query: opt.EvalQuery = 15,
    batch_size: opt.BatchSize = 64,
    settings: opt.Settings = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    devices: opt.Devices = None,
    engine: opt.EngineName = "local",
    address: opt.Address = "local",
    ray_workers: opt.RayWorkers = None,
    gpus_per_worker: opt.GpusPerWorker = 0.0,
    memory: opt.Memory = None,
    chunk: opt.Chunk = None,
    out: opt.Out = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Score architectures before training, rank them all, and train the best.

    The same command continues an interrupted search.
    """
    given = dict(locals())
    from metantk_nas.experiment import scoring, training
    from metantk_nas.experiment.spec import SearchSpec, preset_fields

    given |= {name: value for name, value in preset_fields(preset).items() if is_default(ctx, name)}
    given["searcher_settings"] = read_settings(searcher_settings or [], "--searcher-set population=32")
    spec = make_spec(SearchSpec, given)
    train_spec = make_train_spec({**given, "n_query": train_query})
    run = out or spec.default_out(preset=preset)
    with progress_bars() as progress:
        if train_top:
            training.rehearse(spec, train_spec, progress=progress)
        ranking = scoring.search(spec, run, command=command_words(), progress=progress, note=print_note)
        trained = (
            training.train_run(run, train_top, train_spec, command=command_words(), progress=progress, note=print_note)
            if train_top
            else None
        )
    print_run(run, ranking, trained, as_json=as_json)


def score(
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARCH", help="Architecture texts, files with one a line, or - for stdin.", show_default=False
        ),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE:FACTORY",
            help="Also your own network, a class or function that returns an nn.Module. It is made comparable: batch "
            "norm becomes group norm, weights are drawn anew, it gets a head of n_way outputs. May be repeated.",
            rich_help_panel=opt.WHAT,
        ),
    ] = None,
    space: opt.Space = "darts",
    data: opt.Data = "glyphs",
    data_root: opt.DataRoot = None,
    rotations: opt.Rotations = False,
    init_channels: opt.InitChannels = None,
    n_cells: opt.NCells = None,
    image_size: opt.ImageSize = 32,
    n_way: opt.NWay = 5,
    n_shot: opt.NShot = 1,
    n_query: opt.NQuery = 1,
    n_episodes: opt.NEpisodes = 3,
    repeats: opt.Repeats = 3,
    adaptation: opt.AdaptationName = "maml",
    inner_time: opt.InnerTime = math.inf,
    inner_reg: opt.InnerReg = 1e-3,
    output_reduction: opt.OutputReductionName = "sum",
    rank_by: opt.RankBy = "few-shot",
    ranks: opt.Ranks = "",
    metrics: opt.Metrics = "",
    latency_batch: opt.LatencyBatch = 1,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    devices: opt.Devices = None,
    engine: opt.EngineName = "local",
    address: opt.Address = "local",
    ray_workers: opt.RayWorkers = None,
    gpus_per_worker: opt.GpusPerWorker = 0.0,
    memory: opt.Memory = None,
    chunk: opt.Chunk = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory that keeps the scores (none).", rich_help_panel=opt.RUN)
    ] = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Score given architectures, and any networks beside them: the same rows as a search writes."""
    given = dict(locals())
    from metantk_nas import api
    from metantk_nas.experiment.modules import load_factory
    from metantk_nas.experiment.spec import SearchSpec

    chosen = {name: given[name] for name in field_names(SearchSpec) if name in given}
    chosen["modules"] = {text: load_factory(text) for text in module or []}
    texts = read_archs(archs or []) if archs or not module else []
    with progress_bars() as progress:
        ranking = api.score(texts, out=out, command=command_words(), progress=progress, note=print_note, **chosen)
    if as_json:
        print_json(rows_of(ranking))
    else:
        print_ranking(ranking, "Scores")


def train(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Directory of a search.")] = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Train this many of its best.", rich_help_panel=opt.WHAT)
    ] = 1,
    arch: Annotated[
        str | None,
        typer.Option(help="Instead of RUN: an architecture text, conv4, or mlp (for sine).", rich_help_panel=opt.WHAT),
    ] = None,
    space: opt.Space = "darts",
    data: opt.Data = "glyphs",
    data_root: opt.DataRoot = None,
    rotations: opt.Rotations = False,
    init_channels: opt.InitChannels = None,
    n_cells: opt.NCells = None,
    image_size: opt.ImageSize = 32,
    n_way: opt.NWay = 5,
    n_shot: opt.NShot = 1,
    learner: opt.Learner = "protonet",
    train_budget: opt.TrainBudget = None,
    task_weighting: opt.TaskWeighting = None,
    train_way: opt.TrainWay = None,
    train_query: opt.TrainQuery = 5,
    eval_episodes: opt.EvalEpisodes = 600,
    eval_query: opt.EvalQuery = 15,
    batch_size: opt.BatchSize = 64,
    settings: opt.Settings = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="With --arch: directory of the training (results/train-…).", rich_help_panel=opt.RUN),
    ] = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Train the best of a search, or one given architecture, and judge it on novel classes.

    Accuracies are means over fixed episodes with 95 % confidence intervals. The same command continues
    an interrupted training.
    """
    given = dict(locals())
    from metantk_nas.experiment import training
    from metantk_nas.experiment.spec import SearchSpec
    from metantk_nas.networks.build import is_baseline

    if (run is None) == (arch is None):
        raise UsageError("train needs either the directory of a search or --arch TEXT; got both or neither.")
    spec = make_train_spec({**given, "n_query": train_query})
    alone = arch is not None and is_baseline(arch)
    search_spec = make_spec(SearchSpec, {**given, "space": arch if alone else space})
    training.read_settings(spec)
    words = command_words()
    with progress_bars() as progress:
        if run is not None:
            table = training.train_run(run, top, spec, command=words, progress=progress, note=print_note)
        else:
            run = out or Path("results") / f"train-{search_spec.default_out().name}"
            table = training.train_arch(
                str(arch), search_spec, spec, run, command=words, progress=progress, note=print_note
            )
    rows = json.loads(table.to_json(orient="records"))
    if as_json:
        print_json({"out": str(run), "evaluation": rows})
    else:
        print_evaluation(rows)
        stdout.print(f"Results: {run}", highlight=False, soft_wrap=True)


def predict(
    model: Annotated[Path, typer.Argument(help="File of a trained learner: models/NAME.pt of a run.")],
    support: Annotated[
        Path, typer.Option(help="Labelled images: a folder or zip with one directory a class.", show_default=False)
    ],
    query: Annotated[Path, typer.Option(help="Images to label: a folder or zip.", show_default=False)],
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv"),
    device: opt.Device = "auto",
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Label images with a trained learner, from a handful of labelled ones.

    Writes a CSV with the label and the probability of every class for each image.
    """
    from metantk_nas.experiment import prediction
    from metantk_nas.results import write_text

    with progress_bars() as progress:
        table = prediction.predict(model, support, query, device=device, progress=progress)
    write_text(out, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    if as_json:
        print_json({"out": str(out), "predictions": json.loads(table.to_json(orient="records"))})
        return
    print_labels(table["label"].value_counts().to_dict(), int(table["label"].isna().sum()))
    stdout.print(f"Predictions: {out}", highlight=False, soft_wrap=True)
