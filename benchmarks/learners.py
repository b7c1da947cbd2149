"""Every learner with Conv-4 on the same episodes, under one outer budget: accuracy, and what a step and a task cost.

    python benchmarks/learners.py --minutes 20 --csv results/learners/cpu.csv
    python benchmarks/learners.py --learner maml,r2d2 --problem omniglot-5-1 --episodes 4000 --csv some.csv
    python benchmarks/learners.py --adaptation --minutes 20 --json results/learners/adaptation.json
    python benchmarks/learners.py --vmap --json benchmarks/results/vmap.json

A row is written as soon as a learner is trained and judged. The same command leaves out the rows that are there, and
goes on with a half-trained learner from its checkpoint, in a folder beside the CSV (--work). Validation is part of the
minutes; the best validation's weights are judged. Omniglot's base classes are turned by 90, 180 and 270 degrees, as in
the papers. Learners have their default settings, which suit Omniglot; for photographs those of `PHOTOGRAPHS`, and what
--set says. Those that are not bound to a number of classes are trained on episodes of --train-way, as ProtoNet's paper
does. Learners that train on batches of images take a batch of 64 for an episode. Minutes are of wall-clock time.

Seconds are of processor time on a CPU and wall-clock on a GPU: of a meta-step with the learner's own meta-batch size,
all terms of its loss at work, and of adaptation, from a support set to the labels of one query image a class.

--adaptation holds closed forms against five gradient steps on the first problem: the trained learners of the table,
and those with an inner loop take five steps when they adapt. --vmap runs sixteen episodes of MAML together, four by
four and one by one, with wide and narrow networks, and checks in float64 that gradients are equal. Originals of data
sets are looked for in METANTK_DATA, or in ../shared/data beside the checkout, and fetched where they are missing.
"""

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from timing import interleaved, machine, settings_of

from metantk_nas.cli.given import read_settings as read_words
from metantk_nas.episodes.episode import Episode
from metantk_nas.evaluation import evaluate
from metantk_nas.experiment.problems import ImageProblem
from metantk_nas.experiment.spec import SearchSpec, TrainSpec
from metantk_nas.experiment.training import read_settings, train_arch
from metantk_nas.experiment.workbench import open_dataset, pick_device
from metantk_nas.learners.base import AbstractLearner, MetaModel, bind, meta_parameters, takes_any_way
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.registry import LEARNERS, make_learner
from metantk_nas.learners.saved import NetworkSpec, load_learner
from metantk_nas.networks.conv4 import CONV4
from metantk_nas.results import read_json, write_json

DATA = Path(os.environ.get("METANTK_DATA") or Path(__file__).parents[2] / "shared" / "data")
PROBLEMS = "omniglot-5-1,omniglot-20-1,cifar_fs-5-1,cifar_fs-5-5"
CHARACTERS = ("omniglot", "glyphs")
UNLIMITED = 10**9
N_VALIDATIONS = 10

FIVE_SMALL_STEPS = {"inner_lr": 0.01, "inner_steps": 5, "inner_steps_test": 10}
PHOTOGRAPHS: Mapping[str, Mapping[str, Any]] = dict.fromkeys(
    ("maml", "fomaml", "lambda_pattern", "alpha_maml", "moml"), FIVE_SMALL_STEPS
)
"""MAML's own settings for photographs (Finn et al. 2017), for it and for the methods that start from it."""

CLOSED_FORMS = ("r2d2", "lrd2", "metaoptnet", "alpaca", "steepest_descent", "kernel", "meta_rkhs_2", "protonet")
INNER_LOOPS = ("maml", "anil")
N_STEPS = 5

WIDTHS, N_QUERIES = (64, 32, 16), (5, 1)
"""Of --vmap: filters of Conv-4, and query images a class."""

PUBLISHED: Mapping[tuple[str, str], float] = {
    ("maml", "omniglot-5-1"): 0.987,
    ("maml", "cifar_fs-5-1"): 0.589,
    ("maml", "cifar_fs-5-5"): 0.715,
    ("reptile", "omniglot-5-1"): 0.977,
    ("meta_sgd", "omniglot-5-1"): 0.995,
    ("maml_plus_plus", "omniglot-5-1"): 0.9947,
    ("imaml", "omniglot-5-1"): 0.992,
    ("r2d2", "cifar_fs-5-1"): 0.653,  # this and the next three: 96-192-384-512 filters
    ("r2d2", "cifar_fs-5-5"): 0.794,
    ("lrd2", "cifar_fs-5-1"): 0.653,
    ("lrd2", "cifar_fs-5-5"): 0.783,
    ("protonet", "omniglot-5-1"): 0.988,
    ("protonet", "cifar_fs-5-1"): 0.555,
    ("protonet", "cifar_fs-5-5"): 0.720,
    ("matching_net", "omniglot-5-1"): 0.981,
    ("relation_net", "omniglot-5-1"): 0.996,
    ("relation_net", "cifar_fs-5-1"): 0.550,
    ("relation_net", "cifar_fs-5-5"): 0.693,
    ("siamese", "omniglot-5-1"): 0.973,
}
"""Accuracies by the authors of each method, those on CIFAR-FS by Bertinetto et al. 2019 (arXiv 1805.08136)."""


class Problem(NamedTuple):
    """A data set and the shape of its episodes, ``omniglot-5-1`` for short."""

    data: str
    n_way: int
    n_shot: int

    @classmethod
    def parse(cls, text: str) -> "Problem":
        data, n_way, n_shot = text.rsplit("-", 2)
        return cls(data, int(n_way), int(n_shot))

    def __str__(self) -> str:
        return f"{self.data}-{self.n_way}-{self.n_shot}"


class Training(NamedTuple):
    """A learner to be trained on a problem.

    Args:
        name: of the learner.
        chosen: its settings that were chosen by --set, and --arch and --train-query where they are not the default.
        problem: what it is trained on.
        spec: how; without the period of validation.
        arguments: of the command line.
    """

    name: str
    chosen: Mapping[str, Any]
    problem: Problem
    spec: TrainSpec
    arguments: argparse.Namespace

    @classmethod
    def of(cls, name: str, problem: Problem, arguments: argparse.Namespace) -> "Training":
        settings = {**PHOTOGRAPHS.get(name, {})} if problem.data not in CHARACTERS else {}
        chosen = given_settings(name, arguments.set)
        settings |= {"patience": None, **chosen}
        if arguments.episodes is None:
            settings["max_seconds"] = 60 * arguments.minutes
        spec = TrainSpec(
            learner=name,
            n_way=problem.n_way,
            n_shot=problem.n_shot,
            train_way=train_way(name, problem, arguments),
            n_query=arguments.train_query,
            train_budget=arguments.episodes or UNLIMITED,
            settings=settings,
            eval_episodes=arguments.eval_episodes,
            seed=arguments.seed,
            device=arguments.device,
        )
        if arguments.arch != CONV4:
            chosen["arch"] = arguments.arch
        if spec.n_query != TrainSpec.n_query:
            chosen["train_query"] = spec.n_query
        return cls(name, chosen, problem, spec, arguments)

    @property
    def images(self) -> ImageProblem:
        return load_images(self.problem.data, self.arguments.data_root)

    @property
    def folder(self) -> Path:
        """Where it is trained, named by all that the result depends on."""
        identity = json.dumps({**asdict(self.spec), "arch": self.arguments.arch, "device": ""}, sort_keys=True)
        digest = hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
        return self.arguments.work / f"{self.name}-{self.problem}-{digest}"

    def costs(self) -> dict[str, float]:
        """Seconds of a meta-step and milliseconds of adaptation; measured once, since a resumed run needs the same."""
        path = self.folder.with_suffix(".json")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, measure_costs(self))
        return read_json(path)

    def train(self, costs: Mapping[str, float]) -> pd.Series:
        """Train, or go on training, and judge on novel classes; one row of ``evaluation.csv``."""
        arguments = self.arguments
        n_episodes = arguments.episodes or 60 * arguments.minutes / costs["seconds_per_episode"]
        every = max(1, round(n_episodes / N_VALIDATIONS))
        spec = replace(self.spec, settings={**self.spec.settings, "validate_every": every})
        search = search_spec(self.problem.data, arguments.data_root)
        return train_arch(arguments.arch, replace(search, space=arguments.arch), spec, self.folder).iloc[0]

    @property
    def minutes(self) -> float:
        """Minutes of training and validation, once it is trained."""
        (curve,) = (self.folder / "curves").glob("*.csv")
        return float(pd.read_csv(curve)["seconds"].iloc[-1]) / 60


def search_spec(data: str, data_root: Path) -> SearchSpec:
    characters = data in CHARACTERS
    return SearchSpec(data=data, data_root=data_root, image_size=28 if characters else 32, rotations=data == "omniglot")


@cache
def load_images(data: str, data_root: Path) -> ImageProblem:
    return ImageProblem(open_dataset(search_spec(data, data_root)))


def train_way(name: str, problem: Problem, arguments: argparse.Namespace) -> int | None:
    """Classes of a training episode, where they may be more than those of the problem."""
    able = takes_any_way(LEARNERS[name].factory)
    return max(arguments.train_way, problem.n_way) if able else None


def given_settings(name: str, words: list[str]) -> dict[str, Any]:
    """Read ``[LEARNER.]SETTING=VALUE``, for all where no learner is named; values as on the command line."""
    settings: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        *learner, setting = path.split(".")
        if learner in ([], [name]):
            settings |= read_words([f"{setting}{equals}{value}"], "--set maml.inner_lr=0.4")
    return settings


def shown(settings: Mapping[str, Any]) -> str:
    """Settings as a column has them."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def untrained(training: Training, **settings: Any) -> tuple[AbstractLearner, MetaModel]:
    """A learner with Conv-4; which weights it has does not matter for the time it takes."""
    images, spec = training.images, training.spec
    learner, _ = read_settings(spec)
    learner = replace(learner, **settings)
    arch, n_outputs = training.arguments.arch, images.n_outputs(learner, spec)
    network = NetworkSpec(arch, None, n_outputs, images.n_channels, images.image_size)
    model = learner.make_model(network.build(learner.norm)).to(pick_device(spec.device))
    model.progress = 1.0
    return learner, model


def measure_costs(training: Training, repeats: int = 5) -> dict[str, float]:
    spec, device = training.spec, pick_device(training.spec.device)
    learner, model = untrained(training)
    meta_batch_size = read_settings(spec)[1].meta_batch_size
    source = training.images.training(learner, spec)
    batch = [source(index).to(device) for index in range(meta_batch_size)]
    parameters = meta_parameters(learner, model)
    step = partial(meta_gradients, learner, model.train(), parameters, batch)
    seconds = interleaved({"step": step}, repeats, device)["step"]
    task = training.images.episodes("novel", spec, 1)(0).to(device)
    adapting = interleaved({"task": partial(solve, learner, model.eval(), task)}, repeats, device)["task"]
    return {
        "seconds_per_meta_step": seconds,
        "seconds_per_episode": seconds / meta_batch_size,
        "adaptation_ms": 1e3 * adapting,
    }


@torch.no_grad()
def solve(learner: AbstractLearner, model: MetaModel, task: Episode) -> torch.Tensor:
    """Adapt to a support set and predict its query set."""
    return bind(learner, model)(task.support_images, task.support_labels, task.n_way)(task.query_images)


def row_of(training: Training) -> dict[str, Any]:
    """Train and judge one learner."""
    costs = training.costs()
    judged = training.train(costs)
    return {
        "learner": training.name,
        "settings": shown(training.chosen),
        **training.problem._asdict(),
        "train_way": training.spec.train_way or training.problem.n_way,
        "accuracy": round(judged["accuracy"], 4),
        "ci95": round(judged["ci95"], 4),
        "seconds_per_meta_step": float(f"{costs['seconds_per_meta_step']:.3g}"),
        "adaptation_ms": float(f"{costs['adaptation_ms']:.3g}"),
        "episodes": int(judged["train_episodes"]),
        "minutes": round(training.minutes, 2),
        "published": PUBLISHED.get((training.name, str(training.problem)), ""),
        "budget": budget_of(training.arguments),
    }


def budget_of(arguments: argparse.Namespace) -> str:
    return f"{arguments.episodes} episodes" if arguments.episodes else f"{arguments.minutes:g} minutes"


def table(problems: list[Problem], learners: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Add a row for each learner and problem that the CSV lacks."""
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.csv)
    others = {row["budget"] for row in rows} - {budget_of(arguments)}
    if others:
        raise SystemExit(f"{arguments.csv} has rows of another budget, {others.pop()}; choose another file.")
    done = {(row["learner"], row["settings"], row["data"], int(row["n_way"]), int(row["n_shot"])) for row in rows}
    for problem in problems:
        for name in learners:
            training = Training.of(name, problem, arguments)
            if (name, shown(training.chosen), *problem) in done:
                continue
            row = row_of(training)
            with arguments.csv.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            print(f"{problem!s:15} {name:18} {row['accuracy']:.4f} ± {row['ci95']:.4f}", flush=True)
    return {"rows": read_rows(arguments.csv)}


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def adaptation(problem: Problem, learners: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and accuracy of closed forms and of five gradient steps, the same trained models and episodes."""
    device = pick_device(arguments.device)
    methods: dict[str, Callable[[], object]] = {}
    accuracies = {}
    for name in learners:
        training = Training.of(name, problem, arguments)
        training.train(training.costs())
        (path,) = (training.folder / "models").glob("*.pt")
        trained = load_learner(path, device=device)
        learner = replace(trained.learner, inner_steps_test=N_STEPS) if name in INNER_LOOPS else trained.learner
        novel = training.images.episodes("novel", training.spec, training.spec.eval_query)
        accuracies[name] = evaluate(bind(learner, trained.model), novel, arguments.eval_episodes, device=device)
        task = training.images.episodes("novel", training.spec, 1)(0).to(device)
        methods[name] = partial(solve, learner, trained.model, task)
    seconds = interleaved(methods, arguments.repeats, device)
    rows = [
        {
            "learner": f"{name}, {N_STEPS} steps" if name in INNER_LOOPS else name,
            "adaptation_ms": 1e3 * seconds[name],
            "accuracy": found.mean,
            "ci95": found.ci95,
        }
        for name, found in accuracies.items()
    ]
    print(pd.DataFrame(rows).sort_values("adaptation_ms").to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    return {"problem": str(problem), "budget": budget_of(arguments), "rows": rows}


def compare_vmap(problem: Problem, arguments: argparse.Namespace) -> dict[str, Any]:
    """A meta-batch of MAML under vmap, in one go or a few episodes at a time, and one episode after the other."""
    training, device = Training.of("maml", problem, arguments), pick_device(arguments.device)
    images, n_episodes, rows = training.images, arguments.meta_batch_size, []
    for width, n_query in product(WIDTHS, N_QUERIES):
        spec = replace(training.spec, n_query=n_query)
        learner, _ = read_settings(spec)
        source = images.training(learner, spec)
        batch = [source(index).to(device) for index in range(n_episodes)]
        arch = arguments.arch.replace(CONV4, f"{CONV4}-{width}")
        own = NetworkSpec(arch, None, problem.n_way, images.n_channels, images.image_size)
        network = own.build(learner.norm).to(device)
        model = learner.make_model(network)
        error = vmap_error(learner, model.double(), batch)
        runs = {"loop": partial(by_parts, learner, model.float(), batch, size=n_episodes, vectorise=False)}
        runs |= {f"vmap {size}": partial(by_parts, learner, model, batch, size=size) for size in (4, n_episodes)}
        seconds = interleaved(runs, arguments.repeats, device)
        per_episode = {f"{name}, ms": 1e3 * taken / n_episodes for name, taken in seconds.items()}
        ratio = seconds.pop("loop") / min(seconds.values())
        rows.append({"width": width, "queries a class": n_query, **per_episode, "ratio": ratio, "error": error})
    print(f"{problem}, MAML with Conv-4, a meta-batch of {n_episodes}; ratio: the loop's time to the faster vmap's")
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    return {"problem": str(problem), "meta_batch_size": n_episodes, "rows": rows}


def by_parts(
    learner: AbstractLearner, model: MetaModel, batch: list[Episode], *, size: int, vectorise: bool = True
) -> torch.Tensor:
    """Meta-gradients of a batch, so many episodes at a time; ``[episode, parameter]``, all tensors end to end."""
    parameters = meta_parameters(learner, model)
    parts = [
        meta_gradients(learner, model, parameters, batch[start : start + size], vectorise=vectorise).gradients
        for start in range(0, len(batch), size)
    ]
    return torch.cat([torch.cat([part.flatten(1) for part in each.values()], 1) for each in parts])


def vmap_error(learner: AbstractLearner, model: MetaModel, batch: list[Episode]) -> float:
    """How far gradients under vmap are from those of the loop, in float64."""
    batch = [
        replace(each, support_images=each.support_images.double(), query_images=each.query_images.double())
        for each in batch
    ]
    loop, together = (by_parts(learner, model, batch, size=len(batch), vectorise=each) for each in (False, True))
    error = float((together - loop).norm() / loop.norm())
    if error > 1e-5:
        raise SystemExit(f"the gradients differ: relative error {error:.1e}")
    return error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", help="names, comma-separated; all where absent")
    parser.add_argument("--problem", default=PROBLEMS, help="DATA-WAY-SHOT, comma-separated")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, a learner and problem")
    parser.add_argument("--episodes", type=int, help="of training, instead of minutes")
    parser.add_argument("--eval-episodes", type=int, default=600)
    parser.add_argument("--train-way", type=int, default=20, help="classes of a training episode, where free")
    parser.add_argument("--set", action="append", default=[], help="[LEARNER.]SETTING=VALUE; may be repeated")
    parser.add_argument("--arch", default=CONV4, help="conv4-strided has no pooling, conv4-32 other filters")
    parser.add_argument("--train-query", type=int, default=TrainSpec.n_query, help="its query images a class")
    parser.add_argument("--csv", type=Path, default=Path("results/learners/table.csv"))
    parser.add_argument("--work", type=Path, help="checkpoints and trained learners; a folder beside the CSV")
    parser.add_argument("--json", type=Path, help="also write the figures here, and on what they were measured")
    parser.add_argument("--adaptation", action="store_true", help="closed forms against five gradient steps")
    parser.add_argument("--vmap", action="store_true", help="sixteen episodes together against one by one")
    parser.add_argument("--meta-batch-size", type=int, default=16, help="of --vmap")
    parser.add_argument("--repeats", type=int, default=20, help="of --vmap and --adaptation")
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work = arguments.work or arguments.csv.with_suffix("") / "training"
    problems = [Problem.parse(text) for text in arguments.problem.split(",")]
    named = arguments.learner.split(",") if arguments.learner else None
    in_settings = [word.partition(".")[0] for word in arguments.set if "." in word.partition("=")[0]]
    for name in [*(named or ()), *in_settings]:
        _ = make_learner(name)  # or else its error, before anything takes time
    if arguments.vmap:
        found = compare_vmap(problems[0], arguments)
    elif arguments.adaptation:
        found = adaptation(problems[0], named or [*INNER_LOOPS, *CLOSED_FORMS], arguments)
    else:
        found = table(problems, named or list(LEARNERS), arguments)
    if arguments.json:
        settings = settings_of(arguments)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"settings": settings, "machine": machine(pick_device(arguments.device)), **found}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
