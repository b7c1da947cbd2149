"""What is exported: an architecture with fresh weights, or a learner that was trained on one."""

import math
import re
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

import torch
from torch import Tensor, nn

from metantk_nas.errors import RunError, UsageError
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner
from metantk_nas.networks.build import is_baseline
from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to export.

    Args:
        name: what its files are called; letters, digits and ``_``, so that a Python file can be imported.
        spec: what the network is built from, but for its weights.
        norm: its normalisation.
        network: the network with its weights, in evaluation mode.
        trained: the learner it was trained by; None for an architecture with fresh weights.
    """

    name: str
    spec: NetworkSpec
    norm: NormKind
    network: nn.Module
    trained: TrainedLearner | None = None

    @property
    def space(self) -> Space | None:
        """The search space; None for Conv-4 and the perceptron."""
        return None if is_baseline(self.spec.arch) else self.spec.space

    @property
    def genotype(self) -> Genotype | None:
        """The cells; None for Conv-4 and the perceptron."""
        return None if self.space is None else self.space.parse(self.spec.arch)

    @property
    def arch(self) -> str:
        """The one text that stands for the architecture."""
        if self.space is None or self.genotype is None:
            return self.spec.arch
        return self.space.format(self.genotype)

    def images(self, n_rows: int, *, seed: int = 0) -> Tensor:
        """Random images ``[n_rows, channel, height, width]`` in [0, 1], as large as the network expects them."""
        size = self.spec.image_size
        return torch.rand(n_rows, self.spec.in_channels, size, size, generator=torch.Generator().manual_seed(seed))


def subject_of_arch(spec: NetworkSpec, *, norm: NormKind = "batch", seed: int = 0) -> Subject:
    """Build the network of an architecture with weights drawn from ``seed``.

    Raises:
        GenotypeError: the text is not an architecture of the space.
    """
    network = spec.build(norm, seed=seed).eval()
    if spec.space is None:
        return Subject(spec.arch, spec, norm, network)
    key = spec.space.key(spec.space.parse(spec.arch))
    return Subject(identifier(f"{spec.space.name}_{key[:12]}"), spec, norm, network)


def subject_of_learner(path: Path) -> Subject:
    """Read a trained learner; nothing in the file is executed.

    Raises:
        RunError: the file is not a trained learner of this package.
    """
    trained = load_learner(path)
    _check_numbers(path, trained)
    return Subject(identifier(path.stem), trained.network, trained.learner.norm, trained.model.network, trained)


def _check_numbers(path: Path, trained: TrainedLearner) -> None:
    """Refuse a file whose sizes and statistics are no numbers: they are written into source."""
    spec = trained.network
    sizes = (spec.n_outputs, spec.in_channels, spec.image_size)
    sound = all(type(size) is int and size > 0 for size in sizes) and all(
        len(part) == spec.in_channels and all(isinstance(value, float) and math.isfinite(value) for value in part)
        for part in (trained.mean, trained.std)
    )
    if not sound:
        raise RunError(
            f"{path} is not a trained learner of this version: its sizes or its mean and std are no numbers."
        )


def require_cells(subject: Subject, form: str) -> tuple[Space, Genotype]:
    """Return space and genotype, for forms that only cells have.

    Raises:
        UsageError: the network is not made of cells.
    """
    if subject.space is None or subject.genotype is None:
        raise UsageError(f"{subject.spec.arch} is not made of cells and has no {form}; expected a genotype of a space.")
    return subject.space, subject.genotype


def is_text(arch: str) -> bool:
    """Whether this is the text of an architecture, and not the name of a file."""
    return is_baseline(arch) or "|" in arch or "(" in arch


def identifier(text: str) -> str:
    """Turn a text into a Python identifier."""
    words = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    return words if words[:1].isalpha() and not iskeyword(words) else f"network_{words}".rstrip("_")
