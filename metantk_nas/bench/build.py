"""Build a table of architectures and their few-shot accuracy, row by row; the same command goes on where it stopped.

A table is a directory: ``table.csv`` with one row a training, ``manifest.json`` with all that the rows depend on, and
``training/`` with the checkpoints of trainings that are not finished. Conv-4, the baseline of the literature, stands
among the rows as the yardstick of the protocol.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk_nas.bench.protocols import PROTOCOLS, SHOTS, Protocol
from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.request import Progress
from metantk_nas.errors import RunError, UsageError, brief_text, unknown_name
from metantk_nas.evaluation import evaluate, remembered_features
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import machine_facts, open_dataset, pick_device
from metantk_nas.experiment.workers import AbstractCrew, InlineCrew, Note, SpawnedCrew
from metantk_nas.learners import trainer
from metantk_nas.learners.base import MetaModel, n_outputs
from metantk_nas.learners.checkpoint import CurvePoint
from metantk_nas.learners.sources import training_source
from metantk_nas.networks.build import build_network
from metantk_nas.networks.conv4 import CONV4
from metantk_nas.networks.cost import CostModel
from metantk_nas.results import check_width, read_json, write_json, write_text
from metantk_nas.rng import child_seed
from metantk_nas.searchers.base import SearchProblem
from metantk_nas.searchers.random import distinct_draws
from metantk_nas.spaces.space import Space

TABLE_FILE, MANIFEST_FILE, TRAINING_DIRECTORY = "table.csv", "manifest.json", "training"

N_BASE_IMAGES = 10
"""Images of each base class that judges are shown."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchSpec:
    """A table: which architectures, on which data, by which protocol.

    Args:
        space: name of a search space, or path of a TOML file.
        data: name of a data set, or path of a folder of images.
        data_root: where the data set's originals are.
        protocol: name of a protocol.
        sample: architectures to train, each of another canonical key, drawn at random over connected cells.
        seed: seed of the sample: a larger sample with the same seed begins with the smaller one.
        train_seed: seed of weights and batches. Rows of another seed join the same table.
        train_budget: batches or episodes to train on; the protocol's own where None.
        init_channels: channels of the first cells; the space's own where None.
        n_cells: stacked cells; the space's own where None.
        image_size: height and width in pixels.
        eval_episodes: novel-class episodes for each number of shots, the same ones for every row.
        eval_query: query images per class of such an episode.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        devices: comma-separated devices, each of which gets a worker process; one device in this process where None.

    Raises:
        UsageError: an unknown protocol, or a number out of range.
    """

    space: str = "nas_bench_201"
    data: str = "cifar_fs"
    data_root: Path | None = None
    protocol: str = "rfs"
    sample: int = 24
    seed: int = 0
    train_seed: int = 0
    train_budget: int | None = None
    init_channels: int | None = None
    n_cells: int | None = None
    image_size: int = 32
    eval_episodes: int = 1000
    eval_query: int = 15
    device: str = "auto"
    devices: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PROTOCOLS)
        if self.sample < 1:
            raise UsageError(f"--sample is {self.sample}; expected at least 1 architecture.")
        _ = self.search  # its own checks

    @cached_property
    def search(self) -> SearchSpec:
        """The same space, data and machine, as a search has them."""
        names = ("space", "data", "data_root", "seed", "init_channels", "n_cells", "image_size", "device", "devices")
        return SearchSpec(**{name: getattr(self, name) for name in names})

    @property
    def name(self) -> str:
        """What the table is called where nobody names it: space, data and protocol."""
        return f"{Path(self.space).stem}-{Path(self.data).name}-{self.protocol}"

    @property
    def plan(self) -> Protocol:
        """The protocol, with the budget of this table."""
        protocol = PROTOCOLS[self.protocol]
        if self.train_budget is None:
            return protocol
        return replace(protocol, settings=replace(protocol.settings, train_budget=self.train_budget))


@dataclass(frozen=True)
class Training:
    """One row to be made.

    Args:
        position: place of the architecture in the sample; Conv-4 stands before the first.
        arch: its text.
        key: its canonical key.
        seed: seed of weights and batches.
    """

    position: int
    arch: str
    key: str
    seed: int

    @property
    def title(self) -> str:
        """What it is about, for messages."""
        return f"training {self.arch} (seed {self.seed})"

    @property
    def name(self) -> str:
        """How its checkpoint is called."""
        return f"{self.key}-seed{self.seed}"


def build_table(
    spec: BenchSpec,
    out: Path,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> pd.DataFrame:
    """Train and judge every architecture of a sample, unless its row is there already.

    Args:
        spec: the table.
        out: its directory; a table that is there grows, if its rows were made in the same way.
        command: words of the command line, for the manifest.
        progress: called as ``progress(label, done, total)`` after every row.
        note: called with a sentence when a worker died.

    Returns:
        The table; accuracies and half-widths of their 95 % confidence intervals are fractions.

    Raises:
        RunError: ``out`` holds another table, or workers died on the same training again and again.
        UsageError: a space, data set or device that is not there.
    """
    bench = TableBench(spec, out)
    _refuse_other(bench, command)
    table = read_table(out)
    jobs = [job for job in bench.trainings() if (job.key, job.seed) not in table]
    n_rows = len(table) + len(jobs)
    with closing(_crew(bench, note)) as crew:
        while jobs or len(table) < n_rows:
            while jobs and crew.is_free:
                crew.begin(jobs.pop(0))
            if progress is not None:
                progress("training", len(table), n_rows)
            for job, row in crew.finish():
                table[job.key, job.seed] = row
                _write_table(out, table)
    shutil.rmtree(out / TRAINING_DIRECTORY, ignore_errors=True)  # of rows that are all there
    return _frame(table)


@dataclass(frozen=True, eq=False)
class TableBench:
    """What trainings of one table share; `train` makes one row.

    Args:
        spec: the table.
        out: its directory, for checkpoints.
    """

    spec: BenchSpec
    out: Path

    @cached_property
    def space(self) -> Space:
        """The search space, with the skeleton to train."""
        return self.spec.search.load_space()

    @cached_property
    def dataset(self) -> FewShotDataset:
        """Images by class."""
        return open_dataset(self.spec.search)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that a row depends on, but for its architecture and training seed."""
        plan, spec = self.spec.plan, self.spec
        return {
            "space": repr(self.space),
            "data": f"{self.dataset.name} {self.dataset.fingerprint}",
            "image_size": spec.image_size,
            "protocol": plan.name,
            "learner": repr(plan.learner),
            "settings": repr(plan.settings),
            "episodes": f"{plan.n_way}-way, {plan.n_query} training queries, batches of {plan.batch_size}",
            "evaluation": f"{spec.eval_episodes} episodes of {spec.eval_query} queries per class",
            "sample_seed": spec.seed,
        }

    def trainings(self) -> Iterator[Training]:
        """Yield what is to be trained: Conv-4, then the sample in the order in which it was drawn."""
        yield Training(-1, CONV4, CONV4, self.spec.train_seed)
        space = self.space
        problem = SearchProblem(space, None, self.spec.seed, space.is_connected, lambda group: [0.0] * len(group))
        for position, genotype in enumerate(islice(distinct_draws(problem), self.spec.sample)):
            text = space.format(space.representative(genotype))
            yield Training(position, text, space.key(genotype), self.spec.train_seed)

    def train(self, device: torch.device, job: Training) -> Row:
        """Train one architecture and judge it."""
        plan, dataset = self.spec.plan, self.dataset
        network = build_network(
            job.arch,
            self.space,
            n_outputs=n_outputs(plan.learner, n_way=plan.n_way, n_base_classes=len(dataset.base.classes)),
            in_channels=dataset.n_channels,
            norm=plan.learner.norm,
            seed=child_seed(job.seed, "bench", job.key),
            image_size=dataset.image_size,
        )
        model = plan.learner.make_model(network)
        source = training_source(
            plan.learner,
            dataset,
            n_way=plan.n_way,
            n_shot=1,
            n_query=plan.n_query,
            batch_size=plan.batch_size,
            seed=job.seed,
        )
        curve = trainer.train(
            plan.learner,
            model,
            source,
            None,
            replace(plan.settings, seed=job.seed),
            device=device,
            directory=self.out / TRAINING_DIRECTORY / job.name,
            data=dataset.fingerprint,
        )
        return self._row(job, curve, self._judge(model, device), model)

    def _judge(self, model: MetaModel, device: torch.device) -> Row:
        """Accuracies on novel classes, by judge and number of shots."""
        found: Row = {}
        base_images = self._base_images.to(device)
        with remembered_features(model.network):
            for shot in SHOTS:
                episodes = EpisodeSampler(
                    self.dataset,
                    "novel",
                    n_way=self.spec.plan.n_way,
                    n_shot=shot,
                    n_query=self.spec.eval_query,
                    seed=self.spec.seed,
                    name="bench",
                )
                for name, judge in self.spec.plan.judges.items():
                    judged = evaluate(judge(model, base_images), episodes, self.spec.eval_episodes, device=device)
                    found[f"{name}_{shot}shot"] = judged.mean
                    found[f"{name}_{shot}shot_ci"] = judged.ci95
                    found["seconds"] = found.get("seconds", 0.0) + judged.seconds
        return found

    def _row(self, job: Training, curve: Sequence[CurvePoint], judged: Row, model: MetaModel) -> Row:
        last = curve[-1]
        before = curve[-2] if len(curve) > 1 else last
        macs = None if job.arch == CONV4 else self._cost(self.space.parse(job.arch)).macs
        seconds = judged.pop("seconds")
        return {
            "position": job.position,
            "key": job.key,
            "arch": job.arch,
            "protocol": self.spec.protocol,
            "seed": job.seed,
            **judged,
            "train_loss": last.train_loss,
            "train_loss_before": before.train_loss,
            "train_accuracy": last.train_accuracy,
            "epochs": last.episode * self.spec.plan.images_per_step / self.dataset.base.n_images,
            "seconds": round(last.seconds + seconds, 1),
            "params": sum(parameter.numel() for parameter in model.network.parameters()),
            "macs": macs,
            "precision": model.precision,
        }

    @cached_property
    def _base_images(self) -> Tensor:
        """The first images of every base class."""
        return self.dataset.to_tensor(np.concatenate([images[:N_BASE_IMAGES] for images in self.dataset.base.images]))

    @cached_property
    def _cost(self) -> CostModel:
        outputs = n_outputs(
            self.spec.plan.learner, n_way=self.spec.plan.n_way, n_base_classes=len(self.dataset.base.classes)
        )
        return CostModel(
            self.space,
            n_outputs=outputs,
            in_channels=self.dataset.n_channels,
            image_size=self.dataset.image_size,
        )


def read_table(out: Path) -> dict[tuple[str, int], Row]:
    """Read the rows of a table by key and training seed; none where there is no table yet.

    Raises:
        RunError: the file is no table.
    """
    path = out / TABLE_FILE
    if not path.exists():
        return {}
    try:
        check_width(path)
        rows: list[Row] = pd.read_csv(path, dtype={"key": str, "arch": str}).to_dict("records")  # type: ignore[assignment]
        return {(row["key"], row["seed"]): row for row in rows}
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{path} is no table of few-shot accuracies ({brief_text(error)}); choose another --out."
        ) from error


def _write_table(out: Path, table: Mapping[tuple[str, int], Row]) -> None:
    write_text(out / TABLE_FILE, _frame(table).to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _frame(table: Mapping[tuple[str, int], Row]) -> pd.DataFrame:
    """Rows in the order of the sample, seed by seed."""
    rows: list[Row] = sorted(table.values(), key=lambda row: (row["seed"], row["position"]))
    frame = pd.DataFrame(rows)
    return frame.astype({"macs": "Int64"})


def _crew(bench: TableBench, note: Note | None) -> AbstractCrew[Training, Row]:
    """This process, or one worker per device."""
    devices = bench.spec.search.worker_devices
    if not devices:
        return InlineCrew(partial(bench.train, pick_device(bench.spec.device)))
    recipes = [partial(_worker, bench.spec, bench.out, device) for device in devices]
    return SpawnedCrew(recipes, note or _unheard)


def _unheard(text: str) -> None:
    """Tell nobody."""


def _worker(spec: BenchSpec, out: Path, device: str) -> partial[Row]:
    return partial(TableBench(spec, out).train, pick_device(device))


def _refuse_other(bench: TableBench, command: Sequence[str]) -> None:
    """Write the manifest of a new table; refuse a directory that holds something else."""
    path, here = bench.out / MANIFEST_FILE, bench.fingerprint
    there = read_json(path).get("fingerprint") if path.exists() else None
    found = sorted(each.name for each in bench.out.iterdir()) if bench.out.is_dir() else []
    if there is None and (found or bench.out.is_file()):
        raise RunError(f"--out {bench.out} holds no table ({', '.join(found[:3]) or 'it is a file'}); choose another.")
    if there is None:
        device = pick_device((bench.spec.search.worker_devices or (bench.spec.device,))[0])
        write_json(path, {"command": list(command), "fingerprint": here, **machine_facts(device)})
        return
    differences = [
        f"{name} is {there.get(name)} there and {here[name]} here" for name in here if there.get(name) != here[name]
    ]
    if differences:
        raise RunError(f"{bench.out} holds another table: {'; '.join(differences)}. Choose another --out.")
