"""Few-shot training of architectures, and what it leaves in the run directory.

Each training has a directory of its own, ``training/<name>/``, with a checkpoint that the same command
continues and, at the end, ``evaluation.json``. The tables and curves that people read are rebuilt from
those: ``evaluation.csv``, ``curves/<name>.csv`` and the trained learner ``models/<name>.pt``.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from metantk_nas.episodes.check import CHOOSING, JUDGING, TRAINING, left_out_note
from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.request import Progress
from metantk_nas.episodes.sine import SINE
from metantk_nas.errors import RunError, UsageError, unknown_name
from metantk_nas.evaluation import Evaluation, evaluate, remembered_features
from metantk_nas.experiment.problems import ImageProblem, SineProblem
from metantk_nas.experiment.scoring import load_ranking, read_spec, refuse_foreign
from metantk_nas.experiment.spec import SearchSpec, TrainSpec
from metantk_nas.experiment.workbench import machine_facts, open_dataset, pick_device
from metantk_nas.experiment.workers import Note
from metantk_nas.learners import trainer
from metantk_nas.learners.base import AbstractLearner, bind, takes_any_way
from metantk_nas.learners.checkpoint import CURVE_FILE, CurvePoint
from metantk_nas.learners.registry import LEARNERS, make_learner, make_train_settings
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, save_learner
from metantk_nas.learners.trainer import TrainSettings
from metantk_nas.networks.build import MLP, is_baseline
from metantk_nas.report.html import write_report
from metantk_nas.report.plots import Tables, draw_plots
from metantk_nas.results import read_json, write_json, write_text
from metantk_nas.rng import child_seed
from metantk_nas.settings import default_settings
from metantk_nas.spaces.space import Space


@dataclass(frozen=True)
class Entrant:
    """An architecture to be trained.

    Args:
        arch: its text, or ``"conv4"``.
        key: its canonical key; the text where there is none.
        rank: its rank in the run; None outside one.
        macs: its multiply–accumulates for one image; None where they were not counted.
    """

    arch: str
    key: str
    rank: int | None = None
    macs: int | None = None

    @property
    def title(self) -> str:
        """How its files are called."""
        return self.key[:12] if self.rank is None else f"rank{self.rank}"


def rehearse(search: SearchSpec, spec: TrainSpec, *, progress: Progress | None = None) -> None:
    """Refuse, before a search takes its time, a training of its best that its images do not allow.

    Raises:
        DataError: episodes cannot be drawn from the base, validation or novel classes.
        UsageError: an unknown learner or setting.
    """
    read_settings(spec)
    _check_sources(ImageProblem(open_dataset(search, progress)), spec)


def train_run(
    run: Path,
    top: int,
    spec: TrainSpec,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> pd.DataFrame:
    """Train the best architectures of a search on its data and judge them on novel classes.

    Args:
        run: directory of the search.
        top: how many of the best.
        spec: how to train.
        command: words of the command line, for the manifest.
        progress: told how far the work is.
        note: told which classes have too few images.

    Returns:
        The rows of ``evaluation.csv``: accuracies and half-widths of their 95 % confidence intervals,
        as fractions.

    Raises:
        RunError: ``run`` holds no search.
    """
    search = read_spec(run)
    space = search.load_space()
    ranking = load_ranking(run, space)
    best = ranking.top(top)
    if not len(best):
        raise RunError(f"no architecture of {run} could be scored, so there is none to train; see its ranking.csv.")
    entrants = [Entrant(row["arch"], row["key"], int(row["rank"]), int(row["macs"])) for row in best]
    problem = ImageProblem(open_dataset(search, progress))
    left_out = _check_sources(problem, spec, note)
    for entrant in entrants:
        _train_one(entrant, space, problem, spec, out=run, progress=progress)
    ranks = dict(zip(ranking.frame["key"], ranking.frame["rank"], strict=True))
    table = _publish(run, {key: None if pd.isna(rank) else int(rank) for key, rank in ranks.items()})
    manifest = dict(ranking.manifest)
    manifest["training"] = {
        "command": list(command),
        "spec": asdict(spec),
        "left_out": left_out,
        **machine_facts(pick_device(spec.device)),
    }
    write_json(run / "manifest.json", manifest)
    write_report(run, space)
    return table


def train_arch(
    arch: str,
    search: SearchSpec,
    spec: TrainSpec,
    out: Path,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> pd.DataFrame:
    """Train one given architecture.

    Args:
        arch: architecture text, or ``"conv4"`` and the like.
        search: names space, data and image size; the rest does not matter.
        spec: how to train.
        out: directory for the results.
        command: words of the command line, for the manifest.
        progress: told how far the work is.
        note: as in `train_run`.

    Returns:
        As `train_run`.
    """
    refuse_foreign(out)
    space = None
    entrant = Entrant(arch, arch)
    if not is_baseline(arch):
        space = search.load_space()
        genotype = space.parse(arch)
        entrant = Entrant(space.format(genotype), space.key(genotype))
    problem = _open_problem(arch, search, spec, progress)
    left_out = _check_sources(problem, spec, note)
    manifest = {
        "command": list(command),
        "spec": {"arch": entrant.arch, "space": search.space, "data": search.data, "image_size": search.image_size},
        "training": {"spec": asdict(spec), "left_out": left_out},
        **machine_facts(pick_device(spec.device)),
    }
    write_json(out / "manifest.json", manifest)
    _train_one(entrant, space, problem, spec, out=out, progress=progress)
    table = _publish(out, {})
    _draw(out, table)
    return table


def _open_problem(
    arch: str, search: SearchSpec, spec: TrainSpec, progress: Progress | None
) -> ImageProblem | SineProblem:
    """Load what is to be learnt.

    Raises:
        UsageError: sine waves without their network or with a learner that classifies, or their network for images.
    """
    if (arch == MLP) != (search.data == SINE):
        raise UsageError(
            f"--arch {arch} and --data {search.data} do not fit; expected --arch {MLP} with --data {SINE}."
        )
    if search.data != SINE:
        return ImageProblem(open_dataset(search, progress))
    learner, _ = read_settings(spec)
    if not learner.regresses:
        able = ", ".join(name for name, info in LEARNERS.items() if info.factory.regresses)
        raise UsageError(
            f"learner {spec.learner!r} classifies, and sine waves have real targets; expected one of {able}."
        )
    return SineProblem()


def _check_sources(problem: ImageProblem | SineProblem, spec: TrainSpec, note: Note | None = None) -> list[str]:
    """Refuse episodes that cannot be drawn; tell which classes are too small to be drawn, one sentence a purpose."""
    learner, _ = read_settings(spec)
    sources = {
        TRAINING: problem.training(learner, spec),
        CHOOSING: problem.episodes("validation", spec, spec.n_query),
        JUDGING: problem.episodes("novel", spec, spec.eval_query),
    }
    told = [
        left_out_note(source.split.name, source.left_out, source.n_needed, purpose)
        for purpose, source in sources.items()
        if isinstance(source, EpisodeSampler) and source.left_out
    ]
    if note is not None:
        for sentence in told:
            note(sentence)
    return told


def _train_one(
    entrant: Entrant,
    space: Space | None,
    problem: ImageProblem | SineProblem,
    spec: TrainSpec,
    *,
    out: Path,
    progress: Progress | None,
) -> None:
    """Train and judge one architecture, unless its evaluation is there already."""
    learner, settings = read_settings(spec)
    folder = out / "training" / _name(entrant, spec, settings)
    if (folder / "evaluation.json").exists():
        return
    network = NetworkSpec(
        entrant.arch,
        space,
        problem.n_outputs(learner, spec),
        problem.n_channels,
        problem.image_size,
    )
    device = pick_device(spec.device)
    model = learner.make_model(network.build(learner.norm, seed=child_seed(spec.seed, "train", entrant.key)))
    curve = trainer.train(
        learner,
        model,
        problem.training(learner, spec),
        problem.episodes("validation", spec, spec.n_query),
        settings,
        device=device,
        directory=folder,
        data=problem.fingerprint,
        on_step=progress and (lambda step: progress(f"training {entrant.title}", step.episode, step.budget)),
    )
    trained = TrainedLearner(learner, model, network, problem.mean, problem.std)
    save_learner(trained, folder / "model.pt")
    with remembered_features(model.network) if learner.norm == "batch" else nullcontext():
        judged = evaluate(
            bind(learner, model),
            problem.episodes("novel", spec, spec.eval_query),
            spec.eval_episodes,
            device=device,
            on_episode=progress and (lambda done: progress(f"evaluating {entrant.title}", done, spec.eval_episodes)),
        )
    params = sum(parameter.numel() for parameter in model.network.parameters())
    write_json(folder / "evaluation.json", _row(entrant, spec, judged, last=curve[-1], params=params))


def read_settings(spec: TrainSpec) -> tuple[AbstractLearner, TrainSettings]:
    """Sort a spec's settings into those of the learner and those of the outer loop.

    Raises:
        UsageError: an unknown learner or setting, or a value that is impossible.
    """
    if "seed" in (spec.settings or {}):
        raise UsageError("seed is no setting of a learner or its outer loop; expected --seed, which sows everything.")
    given = {**(spec.settings or {}), "seed": spec.seed}
    given |= {"train_budget": spec.train_budget} if spec.train_budget is not None else {}
    given |= {"task_weighting": spec.task_weighting} if spec.task_weighting is not None else {}
    learner_fields = LEARNERS[spec.learner].settings if spec.learner in LEARNERS else {}
    learner = make_learner(spec.learner, **{name: value for name, value in given.items() if name in learner_fields})
    rest = {name: value for name, value in given.items() if name not in learner_fields}
    outer_fields = default_settings(TrainSettings).keys()
    unknown = [name for name in rest if name not in outer_fields]
    if unknown:
        known = {*learner_fields, *outer_fields} - {"seed"}
        raise unknown_name(f"setting of learner {spec.learner!r} and its outer loop:", unknown[0], known)
    if spec.train_way is not None and not takes_any_way(learner):
        able = ", ".join(name for name, info in LEARNERS.items() if takes_any_way(info.factory))
        raise UsageError(
            f"--train-way is {spec.train_way}, and learner {spec.learner!r} has an output for each class it trains on; "
            f"leave --train-way out, or use one of {able}."
        )
    return learner, make_train_settings(spec.learner, **rest)


def _name(entrant: Entrant, spec: TrainSpec, settings: TrainSettings) -> str:
    """Name a training by its architecture, and by all that its result depends on."""
    identity = repr((replace(spec, device="", settings=None), sorted((spec.settings or {}).items()), settings))
    digest = hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
    return f"{entrant.key[:12]}-{spec.learner}-{spec.n_way}way-{spec.n_shot}shot-{digest}"


def _row(entrant: Entrant, spec: TrainSpec, judged: Evaluation, *, last: CurvePoint, params: int) -> dict[str, Any]:
    """One row of ``evaluation.csv``, but for the rank, which may change as the search grows."""
    return {
        "arch": entrant.arch,
        "key": entrant.key,
        "learner": spec.learner,
        "n_way": spec.n_way,
        "n_shot": spec.n_shot,
        "n_episodes": spec.eval_episodes,
        judged.measure: judged.mean,
        "ci95": judged.ci95,
        "train_episodes": last.episode,
        "params": params,
        "macs": entrant.macs,
        "seconds": round(last.seconds + judged.seconds, 1),
        "seed": spec.seed,
    }


def _publish(out: Path, ranks: Mapping[str, int | None]) -> pd.DataFrame:
    """Rebuild ``evaluation.csv``, ``curves/`` and ``models/`` from the trainings that are done."""
    done = []
    for path in sorted((out / "training").glob("*/evaluation.json")):
        row = read_json(path)
        done.append((path.parent, {"rank": ranks.get(row["key"]), **{k: row[k] for k in row if k != "schema_version"}}))
    done.sort(key=lambda item: (item[1]["rank"] is None, item[1]["rank"], item[0].name))
    for name in ("curves", "models"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    for (folder, _), stem in zip(done, _stems(done), strict=True):
        for source, target in ((CURVE_FILE, f"curves/{stem}.csv"), ("model.pt", f"models/{stem}.pt")):
            shutil.copyfile(folder / source, out / target)
    table = pd.DataFrame([row for _, row in done])
    write_text(out / "evaluation.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def _stems(done: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[str]:
    """Name each training, ``rank1-anil-5way-1shot``; trainings that differ in settings alone keep their digest."""
    names = []
    for folder, row in done:
        key, rest = folder.name[:12], folder.name[12:].rpartition("-")[0]
        names.append((f"rank{row['rank']}" if row["rank"] is not None else key.rstrip("-")) + rest)
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name}-{folder.name.rpartition('-')[2]}" if name in twice else name
        for name, (folder, _) in zip(names, done, strict=True)
    ]


def _draw(out: Path, table: pd.DataFrame) -> None:
    """Plot curves and accuracies of trainings that belong to no search."""
    curves = {path.stem: pd.read_csv(path) for path in sorted((out / "curves").glob("*.csv"))}
    (out / "plots").mkdir(exist_ok=True)
    for plot in draw_plots(Tables(evaluation=table, curves=curves)):
        (out / "plots" / f"{plot.name}.png").write_bytes(plot.light)
