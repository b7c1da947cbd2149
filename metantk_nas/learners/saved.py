"""A trained learner in one file: weights, architecture, settings and how images are normalised."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metantk_nas.errors import RunError, UsageError
from metantk_nas.learners.base import AbstractLearner, MetaModel, Predictor, bind
from metantk_nas.learners.checkpoint import load_safely, save_atomically
from metantk_nas.learners.registry import learner_name, make_learner
from metantk_nas.networks.build import build_network
from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.space import Skeleton, Space

KEYS = ("learner", "settings", "network", "mean", "std", "weights")


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is built from, but for its weights.

    Args:
        arch: architecture text, or ``"conv4"``.
        space: its search space, with the skeleton to build; None for ``"conv4"``.
        n_outputs: logits of the head (`metantk_nas.learners.base.n_outputs`).
        in_channels: channels of the images.
        image_size: height and width of the images in pixels.
    """

    arch: str
    space: Space | None
    n_outputs: int
    in_channels: int
    image_size: int

    def build(self, norm: NormKind, *, seed: int = 0, meta: bool = False) -> nn.Module:
        """Build the network, with the learner's ``norm`` and weights drawn from ``seed``; ``meta`` takes no memory."""
        return build_network(
            self.arch,
            self.space,
            n_outputs=self.n_outputs,
            in_channels=self.in_channels,
            norm=norm,
            seed=seed,
            image_size=self.image_size,
            meta=meta,
        )


@dataclass(frozen=True, eq=False)
class TrainedLearner:
    """A learner with the model it was trained on: ready to adapt.

    Args:
        learner: the method and its settings.
        model: trained, in evaluation mode.
        network: what the model's network is built from.
        mean: per channel, what images in [0, 1] were reduced by.
        std: per channel, what they were then divided by.
    """

    learner: AbstractLearner
    model: MetaModel
    network: NetworkSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def adapt(self, support_images: Tensor, support_labels: Tensor, n_way: int) -> Predictor:
        """Adapt to a support set of normalised images; see `AbstractLearner.adapt`. No gradient is kept."""
        with torch.no_grad():
            predictor = bind(self.learner, self.model)(support_images, support_labels, n_way)

        def predict(query_images: Tensor) -> Tensor:
            with torch.no_grad():
                return predictor(query_images)

        return predict

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images ``[row, channel, height, width]`` in [0, 1] as the training images were."""
        mean, std = (torch.tensor(value, device=images.device).view(1, -1, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std


def save_learner(trained: TrainedLearner, path: Path) -> None:
    """Write a trained learner to one file of tensors and plain values."""
    content = {
        "learner": learner_name(trained.learner),
        "settings": asdict(trained.learner),  # type: ignore[call-overload]  # learners are dataclasses
        "network": {**asdict(trained.network), "space": trained.network.space and _space_to(trained.network.space)},
        "mean": trained.mean,
        "std": trained.std,
        "weights": {name: value.cpu() for name, value in trained.model.state_dict().items()},
    }
    save_atomically(content, path)


def load_learner(path: Path, *, device: torch.device | str = "cpu") -> TrainedLearner:
    """Read what `save_learner` wrote; nothing in the file is executed.

    Raises:
        RunError: the file is not a trained learner of this package, or says nothing of a setting that there is now,
            whose default may not be what it was trained with.
    """
    content = load_safely(path, "a trained learner", KEYS)
    try:
        learner = make_learner(content["learner"], **content["settings"])
        if unsaid := asdict(learner).keys() - content["settings"].keys():  # type: ignore[call-overload]  # a dataclass
            raise ValueError(f"it was trained before there was {', '.join(sorted(unsaid))}; train it again")
        record = content["network"]
        network = NetworkSpec(**{**record, "space": record["space"] and _space_from(record["space"])})
        described = network.build(learner.norm, meta=True).state_dict().values()
        if sum(value.nbytes for value in described) > path.stat().st_size:
            raise ValueError("its network has more weights than the file")
        model = learner.make_model(network.build(learner.norm))
        model.load_state_dict(content["weights"])
        mean, std = tuple(content["mean"]), tuple(content["std"])
    except (UsageError, TypeError, KeyError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is not a trained learner of this version: {' '.join(str(error).split())}") from error
    return TrainedLearner(learner, model.to(device).eval(), network, mean, std)


def _space_to(space: Space) -> dict[str, Any]:
    record = asdict(space)
    record["skeleton"]["reduce_at"] = [str(fraction) for fraction in space.skeleton.reduce_at]
    return record


def _space_from(record: Mapping[str, Any]) -> Space:
    skeleton = record["skeleton"]
    fractions = tuple(Fraction(text) for text in skeleton["reduce_at"])
    return Space(**{**record, "skeleton": Skeleton(**{**skeleton, "reduce_at": fractions})})
