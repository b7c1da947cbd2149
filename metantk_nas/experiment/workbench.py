"""A search's parts, built from its spec: space, data, cost model and scorers."""

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.load import load_dataset
from metantk_nas.episodes.request import Progress
from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.networks.cost import CostModel
from metantk_nas.ordering import Array, places
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.scorers.registry import make_scorers, rank_rule
from metantk_nas.scorers.setup import KernelSettings, ScoringSetup
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space

VERSIONED = ("metantk-nas", "torch", "numpy", "pandas", "scipy", "scikit-learn")


@dataclass(frozen=True, eq=False)
class Workbench:
    """Everything a search works with.

    Args:
        spec: what was asked for.
        space: the search space, with the skeleton to score.
        dataset: images by class.
        device: where networks run.
    """

    spec: SearchSpec
    space: Space
    dataset: FewShotDataset
    device: torch.device

    @classmethod
    def of(cls, spec: SearchSpec, progress: Progress | None = None) -> "Workbench":
        """Load what a spec names, cheapest first, so that a wrong name costs nothing."""
        rank_rule(spec.rank_by)
        space = spec.load_space()
        device = pick_device(spec.device)
        return cls(spec, space, open_dataset(spec, progress), device)

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
    def scorers(self) -> list[AbstractScorer]:
        """The scorers that the ranking and the further metrics need."""
        setup = ScoringSetup(self.space, self.dataset, self.spec, self.spec.seed, self.device)
        extra = rank_rule(self.spec.metrics).metrics if self.spec.metrics else ()
        return make_scorers(setup, (*self.spec.rule.metrics, *extra))

    def order(self, group: Sequence[Array]) -> list[float]:
        """Compare architectures by what was found of them, as the ranking does; lower is better."""
        return places(group, self.spec.rule)

    def allowed(self, genotype: Genotype) -> bool:
        """Whether an architecture keeps to the limits; asked before anything is computed."""
        if self.spec.max_params is None and self.spec.max_macs is None:
            return True
        cost = self.cost(genotype)
        within_params = self.spec.max_params is None or cost.params <= self.spec.max_params
        return within_params and (self.spec.max_macs is None or cost.macs <= self.spec.max_macs)

    @property
    def fingerprint(self) -> dict[str, object]:
        """What the scores and the order of candidates depend on.

        Budget, repeats, ranking and further metrics are left out: a run may grow by them. So are
        device and chunk, which change nothing but rounding.
        """
        spec = self.spec
        kernel = {field.name: str(getattr(spec, field.name)) for field in fields(KernelSettings)}
        return {
            "space": repr(self.space),
            "data": f"{self.dataset.name} {self.dataset.fingerprint}",
            "image_size": spec.image_size,
            "searcher": spec.searcher,
            "max_params": spec.max_params,
            "max_macs": spec.max_macs,
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
            "space": {"name": self.space.name, "source": self.space.source, "size": self.space.size},
            **machine_facts(self.device),
        }


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
