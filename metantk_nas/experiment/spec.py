"""What a run is: plain values, as they stand on the command line, in the manifest and in the Python call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.experiment.memory import parse_memory
from metantk_nas.networks.build import resize
from metantk_nas.scorers.registry import LATENCY, pareto_objectives, preset_rule, rank_rule
from metantk_nas.scorers.setup import KernelSettings
from metantk_nas.searchers.registry import make_settings, searcher_entry
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.types import Metric, RankRule

DEFAULT_BUDGET = 48
"""Architectures that a search scores when it needs a budget and none is given."""

Engine = Literal["local", "ray"]
"""What carries a search: this machine, or a Ray cluster."""

_METANTK_NAS = {
    "space": "darts_fewshot",
    "init_channels": 48,
    "n_cells": 5,
    "image_size": 32,
    "searcher": "pruning",
    "rank_by": "metantk-nas",
    "repeats": 3,
    "n_episodes": 3,
    "n_way": 5,
    "n_shot": 1,
    "n_query": 1,
    "adaptation": "maml",
    "inner_time": float("inf"),
    "inner_reg": 1e-3,
    "output_reduction": "sum",
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "metantk-nas-2022": _METANTK_NAS,
    "metantk-nas-2022-anil": {
        **_METANTK_NAS,
        "n_cells": 8,
        "adaptation": "anil",
        "inner_time": 1.0,
        "inner_reg": 1e-5,
    },
}
"""Searches of papers, as fields of `SearchSpec`: MetaNTK-NAS (Wang et al. 2022, arXiv 2203.09137) with five cells and
the MAML kernel, and with eight cells and the ANIL kernel. The data are yours to choose."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec(KernelSettings):
    """A search: what is scored, on which data, how, and how it is ranked.

    How episodes are drawn and how the kernel adapts stands in `KernelSettings`.

    Args:
        space: name of a search space, or path of a TOML file.
        data: name of a data set, or path of a folder of images.
        data_root: where the data set's originals are.
        rotations: Omniglot only: base classes rotated by 90°, 180° and 270° become classes too.
        searcher: name of a searcher.
        searcher_settings: settings of the searcher, by name.
        budget: most architectures to score; None: as many as there are (exhaustive, pruning), else `DEFAULT_BUDGET`.
        fidelity: cheap looks at all candidates, so that only the best are scored in full: ``"auto"``, or looks one
            after the other, ``"image_size=16,keep=0.25/repeats=1,keep=0.4"``; none where empty.
        repeats: re-initialisations, each with episodes of its own.
        init_channels: channels of the first cells; the space's own where None.
        n_cells: stacked cells; the space's own where None.
        image_size: height and width in pixels.
        rank_by: a ranking preset, or comma-separated metrics; ``~trace`` is the trace against its direction.
        ranks: comma-separated ranking presets whose ranks get a column each, ``rank_<preset>``; empty for none.
        pareto: comma-separated objectives, metrics or ``score``: candidates get the number of their Pareto front,
            and evolution chooses by it; empty for none.
        metrics: further metrics to compute, comma-separated.
        max_params: architectures with more parameters are never scored.
        max_macs: architectures with more multiply–accumulates are never scored.
        max_latency: architectures that take longer, in milliseconds on ``device`` (`metantk_nas.networks.latency`),
            are never scored. Each is timed once, in this process; workers beside it disturb.
        latency_batch: images of a timed batch.
        seed: seed of everything.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        devices: comma-separated devices, each of which gets a worker process; one device in this process where None.
        engine: ``"local"``, or ``"ray"`` for workers on a Ray cluster, each with a core.
        address: of the Ray cluster: ``"auto"`` for the one this machine belongs to, ``"host:port"`` of its head, or
            ``"local"`` to start one here.
        ray_workers: workers on the cluster; as many as it has room for where None.
        gpus_per_worker: share of a GPU that each of them holds, in [0, 1]; they compute on a GPU if it is not 0.
        memory: what this process and its workers may take on the CPU, and each GPU's share, such as ``"4GiB"``;
            of a cluster, what each worker may take; chosen where None.
        chunk: candidates evaluated at once; chosen by memory where None. Engine, devices, memory and chunk do not
            change the result.

    Raises:
        UsageError: an unknown searcher or setting of it, or a request that the searcher cannot keep.
    """

    space: str = "darts"
    data: str = "glyphs"
    data_root: Path | None = None
    rotations: bool = False
    searcher: str = "random"
    searcher_settings: Mapping[str, Any] | None = None
    budget: int | None = None
    fidelity: str = ""
    repeats: int = 3
    init_channels: int | None = None
    n_cells: int | None = None
    image_size: int = 32
    rank_by: str = "few-shot"
    ranks: str = ""
    pareto: str = ""
    metrics: str = ""
    max_params: int | None = None
    max_macs: int | None = None
    max_latency: float | None = None
    latency_batch: int = 1
    seed: int = 0
    device: str = "auto"
    devices: str | None = None
    engine: Engine = "local"
    address: str = "local"
    ray_workers: int | None = None
    gpus_per_worker: float = 0.0
    memory: str | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("n_episodes", "repeats", "image_size", "chunk", "init_channels", "n_cells", "latency_batch")
        for name in (*counts, "ray_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)} is {value}; expected at least 1.")
        self._check_machine()
        make_settings(self.searcher, self.searcher_settings)
        if self.pareto:
            pareto_objectives(self.pareto)
        _ = self.further_rules  # names nothing that is not there
        if self.max_latency is not None and not self.max_latency > 0:
            raise UsageError(f"--max-latency is {self.max_latency}; expected milliseconds, more than 0.")
        refused = ("budget", "max_params", "max_macs", "max_latency", "pareto", "fidelity")
        chosen = [name for name in refused if getattr(self, name)]
        if chosen and searcher_entry(self.searcher).narrows:
            raise UsageError(
                f"searcher {self.searcher!r} narrows the whole space to one architecture, it cannot keep "
                f"{', '.join(map(_flag, chosen))}; leave it out, or use --searcher evolution."
            )
        if LATENCY in {metric.name for metric in self.rule.metrics} and searcher_entry(self.searcher).narrows:
            raise UsageError(
                f"searcher {self.searcher!r} compares networks that are not finished, and {LATENCY} is measured of "
                "finished ones; leave it out of --rank-by, or use --searcher evolution."
            )

    def _check_machine(self) -> None:
        """Refuse a machine that means nothing."""
        if self.memory is not None:
            parse_memory(self.memory)
        if self.devices is not None and self.device != "auto":
            raise UsageError(
                f"--device {self.device} and --devices {self.devices} were both given; expected --device for one "
                "device in this process, or --devices for a worker process on each."
            )
        if not all(self.worker_devices):
            raise UsageError(f"--devices {self.devices!r} leaves a device out; expected for example cpu,cpu.")
        self._check_cluster()

    def _check_cluster(self) -> None:
        """Refuse an engine that there is not, and settings of the other one."""
        if self.engine not in (engines := get_args(Engine)):
            raise unknown_name("engine", self.engine, engines)
        if not 0 <= self.gpus_per_worker <= 1:
            raise UsageError(f"--gpus-per-worker is {self.gpus_per_worker}; expected a share of one GPU, from 0 to 1.")
        here, there = ("device", "devices"), ("address", "ray_workers", "gpus_per_worker")
        for name in here if self.is_clustered else there:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                fitting = "--engine local" if self.is_clustered else "--engine ray"
                raise UsageError(f"{_flag(name)} was given with --engine {self.engine}; it goes with {fitting}.")

    @property
    def is_clustered(self) -> bool:
        """Whether workers on a cluster score."""
        return self.engine == "ray"

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """Devices of the worker processes; none where this process scores."""
        return () if self.devices is None else tuple(name.strip() for name in self.devices.split(","))

    @property
    def memory_bytes(self) -> int | None:
        """How much memory may be taken, None where it was not said."""
        return None if self.memory is None else parse_memory(self.memory)

    @property
    def rule(self) -> RankRule:
        """How candidates are ranked."""
        return rank_rule(self.rank_by)

    @property
    def further_rules(self) -> tuple[RankRule, ...]:
        """Other rules whose ranks are wanted too."""
        return tuple(preset_rule(name.strip()) for name in self.ranks.split(",")) if self.ranks else ()

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """What Pareto fronts are made of; empty without ``pareto``."""
        return pareto_objectives(self.pareto) if self.pareto else ()

    @property
    def told(self) -> tuple[Metric, ...]:
        """The metrics whose values a searcher is told: those that rank, then further objectives."""
        metrics = {metric.name: metric for metric in self.rule.metrics}
        return (*metrics.values(), *(each for each in self.objectives if each.name not in {*metrics, "score"}))

    @property
    def wanted(self) -> tuple[Metric, ...]:
        """All metrics that are asked for."""
        extra = rank_rule(self.metrics).metrics if self.metrics else ()
        return (*self.told, *extra, *(metric for rule in self.further_rules for metric in rule.metrics))

    @property
    def wants_latency(self) -> bool:
        """Whether latencies are measured."""
        return self.max_latency is not None or LATENCY in {metric.name for metric in self.wanted}

    def load_space(self) -> Space:
        """Load the search space, with the skeleton of this spec."""
        return resize(load_space(self.space), init_channels=self.init_channels, n_cells=self.n_cells)

    @property
    def candidate_budget(self) -> int | None:
        """Most architectures to score, None for all."""
        return DEFAULT_BUDGET if self.budget is None and searcher_entry(self.searcher).needs_budget else self.budget

    def default_out(self, results: Path = Path("results"), *, preset: str = "") -> Path:
        """Directory of the run where none is given: ``results/<space>-<data>-seed<k>``.

        Args:
            results: where runs are kept.
            preset: what the run is called instead of by its space.
        """
        return results / f"{preset or Path(self.space).stem}-{Path(self.data).name}-seed{self.seed}"


def preset_fields(name: str) -> dict[str, Any]:
    """Return the fields of `SearchSpec` that a preset sets; none for the empty name.

    Raises:
        UsageError: there is no such preset.
    """
    if name and name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return dict(PRESETS[name]) if name else {}


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A few-shot training: which learner, on which episodes, for how long, and how it is judged.

    Args:
        learner: name of a learner.
        n_way: classes of an episode.
        n_shot: support images per class.
        train_way: classes of a training episode; ``n_way`` where None. More of them make a harder lesson and a better
            teacher (Snell et al. 2017, arXiv 1703.05175), for learners that have no head of so many outputs.
        n_query: query images per class of a training episode.
        train_budget: training episodes (batches of images for learners that train on images); the
            learner's default where None.
        task_weighting: how the episodes of a meta-batch weigh.
        settings: further settings of the learner or of the outer loop, by name.
        batch_size: images of a batch, for learners that train on images.
        eval_episodes: novel-class episodes, always the same ones.
        eval_query: query images per class of an evaluation episode.
        seed: seed of weights and episodes.
        device: as in `SearchSpec`.
    """

    learner: str = "protonet"
    n_way: int = 5
    n_shot: int = 1
    train_way: int | None = None
    n_query: int = 5
    train_budget: int | None = None
    task_weighting: Literal["none", "agreement"] | None = None
    settings: Mapping[str, Any] | None = None
    batch_size: int = 64
    eval_episodes: int = 600
    eval_query: int = 15
    seed: int = 0
    device: str = "auto"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
