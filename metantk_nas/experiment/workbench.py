"""A search's parts, built from its spec: space, data, cost model and scorers."""

import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from metantk_nas.episodes.dataset import FewShotDataset, ImageSplit
from metantk_nas.episodes.load import load_dataset
from metantk_nas.episodes.request import Progress
from metantk_nas.errors import UsageError
from metantk_nas.experiment.fidelity import PREFIXES, Look, read_looks
from metantk_nas.experiment.latency import SCORER as LATENCY_SCORER
from metantk_nas.experiment.latency import Latencies
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.networks.build import build_network
from metantk_nas.networks.cost import CostModel
from metantk_nas.networks.latency import Latency, latency, measuring_facts
from metantk_nas.ordering import Array, pareto_places, places
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.scorers.registry import make_scorers, rank_rule
from metantk_nas.scorers.renamed import RenamedScorer
from metantk_nas.scorers.setup import KernelSettings, ScoringSetup
from metantk_nas.searchers.registry import make_settings, searcher_entry
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.types import Metric, Score

VERSIONED = ("metantk-nas", "torch", "numpy", "pandas", "scipy", "scikit-learn", "ray")


@dataclass(frozen=True, eq=False)
class Workbench:
    """Everything a search works with.

    Args:
        spec: what was asked for.
        space: the search space, with the skeleton to score.
        dataset: images by class.
        device: where networks run; that of the first worker where there are workers, the CPU where they are on a
            cluster.
        prefix: what the names of scorers and metrics begin with; one of `PREFIXES` for a cheap look.
    """

    spec: SearchSpec
    space: Space
    dataset: FewShotDataset
    device: torch.device
    prefix: str = ""

    @classmethod
    def of(cls, spec: SearchSpec, progress: Progress | None = None, *, prefix: str = "") -> "Workbench":
        """Load what a spec names, cheapest first, so that a wrong name costs nothing."""
        rank_rule(spec.rank_by)
        space = spec.load_space()
        for look in read_looks(spec.fidelity, full_look(spec, space)):
            look.shrink(space)
        device = torch.device("cpu") if spec.is_clustered else pick_devices(spec)[0]
        return cls(spec, space, open_dataset(spec, progress), device, prefix)

    @cached_property
    def looks(self) -> tuple[tuple[Look, "Workbench"], ...]:
        """Each cheap look, and the same workbench with its skeleton, image size and repeats."""
        full = full_look(self.spec, self.space)
        return tuple(
            (look, self._shrunk(look, "" if look.same_network(full) else prefix))
            for look, prefix in zip(read_looks(self.spec.fidelity, full), PREFIXES, strict=False)
        )

    @property
    def first_look(self) -> "Workbench":
        """What all candidates are scored with: the first look's workbench, or this one where there is no look."""
        return self.looks[0][1] if self.looks else self

    def _shrunk(self, look: Look, prefix: str) -> "Workbench":
        spec = replace(
            self.spec,
            fidelity="",
            image_size=look.image_size,
            init_channels=look.init_channels,
            n_cells=look.n_cells,
            repeats=min(look.repeats, self.spec.repeats),
        )
        dataset = self.dataset if look.image_size == self.spec.image_size else open_dataset(spec)
        return Workbench(spec, look.shrink(self.space), dataset, self.device, prefix)

    @property
    def devices(self) -> list[torch.device]:
        """Where candidates are scored, one entry per process that does it."""
        return pick_devices(self.spec)

    @property
    def recipes(self) -> list[Callable[[], "Workbench"]]:
        """How each worker process builds this workbench on its device; empty where there are no workers."""
        return [
            partial(Workbench.of, replace(self.spec, device=name, devices=None), prefix=self.prefix)
            for name in self.spec.worker_devices
        ]

    @property
    def parcel(self) -> Callable[[], "Workbench"]:
        """How a worker of a cluster builds this workbench; it holds all that is needed, so that no file is read there.

        Of the images those of the base classes are sent, which all scorers draw from: 118 MB for CIFAR-FS, 813 MB for
        miniImageNet at 84 pixels. The workers of one machine share one copy in memory.
        """
        spec = self.spec
        device = str(self.devices[0]) if spec.is_clustered else spec.device
        alone = replace(spec, engine="local", address="local", ray_workers=None, gpus_per_worker=0.0, device=device)
        validation, novel = ImageSplit("validation", (), ()), ImageSplit("novel", (), ())
        data = replace(self.dataset, validation=validation, novel=novel)
        return partial(_unpack, alone, self.space, data, self.prefix)

    @cached_property
    def cost(self) -> CostModel:
        """Parameters and multiply–accumulates of an architecture."""
        return CostModel(
            self.space,
            n_outputs=self.spec.n_way,
            in_channels=self.dataset.n_channels,
            image_size=self.spec.image_size,
        )

    @cached_property
    def latencies(self) -> Latencies:
        """Milliseconds that architectures take, each measured once."""
        spec, channels = self.spec, self.dataset.n_channels
        shape = (spec.latency_batch, channels, spec.image_size, spec.image_size)

        def measure(genotype: Genotype) -> Latency:
            alone = self.space.representative(genotype)
            network = build_network(alone, self.space, n_outputs=spec.n_way, in_channels=channels)
            return latency(network.eval(), shape, self.device)

        return Latencies(self.space.key, measure)

    @cached_property
    def scorers(self) -> list[AbstractScorer]:
        """The scorers that the ranking and the further metrics need."""
        setup = ScoringSetup(self.space, self.dataset, self.spec, self.spec.seed, self.device)
        scorers = make_scorers(setup, self.spec.wanted)
        return [RenamedScorer(scorer, self.prefix) for scorer in scorers] if self.prefix else scorers

    @property
    def metrics(self) -> dict[str, Metric]:
        """What is measured, by the names in the store, by cheap looks too."""
        benches = (self, *(bench for _, bench in self.looks))
        return {metric.name: metric for bench in benches for scorer in bench.scorers for metric in scorer.metrics}

    def own(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Yield those of ``scores`` that this workbench's scorers and repeats made, by the names without its prefix.

        Latencies are yielded too: they belong to no repeat.
        """
        n = len(self.prefix)
        names = {scorer.name for scorer in self.scorers}
        for score in scores:
            if score.scorer == LATENCY_SCORER:
                yield score
            elif score.scorer in names and score.repeat < self.spec.repeats:
                values = {name[n:]: value for name, value in score.values.items()}
                yield replace(score, scorer=score.scorer[n:], values=values)

    def order(self, group: Sequence[Array]) -> list[float]:
        """Compare architectures by what was found of them, as the ranking or its Pareto fronts do; lower is better."""
        spec = self.spec
        if spec.objectives:
            return pareto_places(group, spec.told, spec.objectives, spec.rule)
        return places(group, spec.rule)

    def allowed(self, genotype: Genotype) -> bool:
        """Whether an architecture keeps to the limits; asked before anything is computed."""
        spec = self.spec
        if spec.max_params is not None or spec.max_macs is not None:
            cost = self.cost.live(genotype)
            limits = ((cost.params, spec.max_params), (cost.macs, spec.max_macs))
            if any(limit is not None and size > limit for size, limit in limits):
                return False
        return spec.max_latency is None or self.latencies(genotype) <= spec.max_latency

    @property
    def fingerprint(self) -> dict[str, object]:
        """What the scores and the order of candidates depend on.

        Budget and further metrics are left out, and repeats and ranking where the searcher does not listen to
        scores: a run may grow by them. So are engine, devices, memory and chunk, which change nothing but rounding.
        """
        spec = self.spec
        kernel = {field.name: str(getattr(spec, field.name)) for field in fields(KernelSettings)}
        settings = make_settings(spec.searcher, spec.searcher_settings)
        heard = {"repeats": spec.repeats, "rank_by": spec.rank_by, "pareto": spec.pareto}
        return {
            "space": repr(self.space),
            "data": f"{self.dataset.name} {self.dataset.fingerprint}",
            "image_size": spec.image_size,
            "looks": [str(look) for look, _ in self.looks],
            "searcher": spec.searcher,
            "searcher_settings": {} if settings is None else asdict(settings),
            **(heard if searcher_entry(spec.searcher).listens else {}),
            "max_params": spec.max_params,
            "max_macs": spec.max_macs,
            **({} if spec.max_latency is None else {"max_latency": [spec.max_latency, spec.latency_batch]}),
            "seed": spec.seed,
            **kernel,
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the data, the machine and the versions."""
        data = self.dataset
        return {
            "dataset": {
                "name": data.name,
                "fingerprint": data.fingerprint,
                "n_channels": data.n_channels,
                "classes": {split: len(data.split(split).classes) for split in ("base", "validation", "novel")},
                "skipped": [f"{image.path}: {image.reason}" for image in data.skipped],
            },
            "space": {
                "name": self.space.name,
                "source": self.space.source,
                "size": self.space.size,
                "fingerprint": blake2b(repr(self.space).encode(), digest_size=8).hexdigest(),
            },
            **({"latency": measuring_facts(self.device, self.spec.latency_batch)} if self.spec.wants_latency else {}),
            **machine_facts(self.device),
        }


def _unpack(spec: SearchSpec, space: Space, dataset: FewShotDataset, prefix: str) -> Workbench:
    """On a worker, which has one core: what `Workbench.parcel` sent."""
    torch.set_num_threads(1)
    return Workbench(spec, space, dataset, pick_device(spec.device), prefix)


def full_look(spec: SearchSpec, space: Space) -> Look:
    """The full size, as looks are compared with it."""
    return Look(spec.image_size, space.skeleton.init_channels, space.skeleton.n_cells, spec.repeats, keep=1.0)


def open_dataset(spec: SearchSpec, progress: Progress | None = None) -> FewShotDataset:
    """Load the data set of a spec."""
    options: dict[str, Any] = {"rotations": True} if spec.rotations else {}
    return load_dataset(
        spec.data,
        image_size=spec.image_size,
        data_root=spec.data_root,
        seed=spec.seed,
        progress=progress,
        **options,
    )


def pick_devices(spec: SearchSpec) -> list[torch.device]:
    """Devices that score, one entry per process that does it; of a cluster, that of a worker."""
    if spec.is_clustered:
        return [torch.device("cuda" if spec.gpus_per_worker else "cpu")]  # it need not be here
    return [pick_device(name) for name in spec.worker_devices or (spec.device,)]


def pick_device(name: str) -> torch.device:
    """Read a device name; ``"auto"`` is the first GPU if there is one.

    Raises:
        UsageError: the name means nothing, or there is no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} means nothing; expected auto, cpu, cuda or cuda:<index>.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} is not supported; expected auto, cpu, cuda or cuda:<index>.")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise UsageError(
            f"--device {name} asks for a GPU that PyTorch {torch.__version__} does not see (it sees {n_gpus}); "
            "use --device cpu or auto, or install a CUDA build of PyTorch."
        )
    return device


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Device, versions and git commit, for a manifest."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": {"name": str(device), "gpu": gpu, "machine": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONED}},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source, where it is a checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
