"""Networks to export: small skeletons, weights that no normalisation leaves at its start, trained learners."""

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metantk_nas.export.subject import Subject, subject_of_arch, subject_of_learner
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, save_learner
from metantk_nas.networks.conv4 import CONV4
from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Skeleton, Space
from tests.networks.chunks import as_if_trained

IMAGE_SIZE = 16
SHORT = Skeleton(4, 2, (Fraction(1, 2),))
"""The least network with all that a space has: PyTorch's exporters take a second or more for three cells."""
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)


def subject_in(
    space: Space, genotype: Genotype | int = 0, *, norm: NormKind = "batch", in_channels: int = 3
) -> Subject:
    """A genotype of a space, or the one that a seed draws, as if it had been trained."""
    drawn = space.sample(random.Random(genotype)) if isinstance(genotype, int) else genotype
    spec = NetworkSpec(space.format(drawn), space, 4, in_channels, IMAGE_SIZE)
    return touched(subject_of_arch(spec, norm=norm, seed=1))


def short(name: str) -> Space:
    """A shipped space with the shortest skeleton; that of NAS-Bench-201 keeps its final normalisation."""
    space = load_space(name)
    return replace(space, skeleton=replace(SHORT, final_norm=space.skeleton.final_norm))


def conv4(arch: str = CONV4) -> Subject:
    return touched(subject_of_arch(NetworkSpec(arch, None, 4, 3, IMAGE_SIZE)))


def touched(subject: Subject) -> Subject:
    """Move scales, shifts and running statistics away from where they start."""
    as_if_trained(subject.network)
    for name, buffer in subject.network.named_buffers():
        if buffer.is_floating_point():
            buffer.data += 0.2 * torch.rand(buffer.shape, generator=torch.Generator().manual_seed(len(name)))
    return subject


def saved_learner(
    folder: Path, name: str, *, arch: str = CONV4, space: Space | None = None, **settings: Any
) -> Subject:
    """A learner as a training leaves it behind, read back from its file."""
    learner = make_learner(name, **settings)
    spec = NetworkSpec(arch, space, 3, 3, IMAGE_SIZE)
    model = learner.make_model(spec.build(learner.norm, seed=1)).eval()
    as_if_trained(model)
    torch.nn.init.normal_(model.network.head.weight, generator=torch.Generator().manual_seed(2))
    path = folder / f"rank1-{name}-3way-1shot.pt"
    save_learner(TrainedLearner(learner, model, spec, MEAN, STD), path)
    return subject_of_learner(path)


def episode(n_way: int = 3, *, n_shot: int = 2, n_query: int = 4) -> dict[str, Tensor]:
    """Images in [0, 1] with labels in no order, and others."""
    generator = torch.Generator().manual_seed(n_shot)
    labels = torch.arange(n_way).repeat(n_shot).flip(0)
    size = (3, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "support_images": torch.rand(len(labels), *size, generator=generator),
        "support_labels": labels,
        "query_images": torch.rand(n_query, *size, generator=generator),
    }


def predicted(subject: Subject, inputs: dict[str, Tensor], n_way: int = 3) -> Tensor:
    """What the trained learner itself says."""
    trained = subject.trained
    support = trained.normalise(inputs["support_images"])
    return trained.adapt(support, inputs["support_labels"], n_way)(trained.normalise(inputs["query_images"]))


def features(subject: Subject, images: Tensor) -> Tensor:
    """What the network itself makes of images."""
    with torch.no_grad():
        return subject.network.features(images if subject.trained is None else subject.trained.normalise(images))


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether values agree, in units of the largest."""
    return found.shape == expected.shape and float((found - expected).abs().max()) <= tolerance * float(
        expected.abs().max().clamp_min(1e-12)
    )
