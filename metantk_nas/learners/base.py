"""The contract of a learner: what it meta-learns, its loss on an episode, and how it adapts to a support set.

A learner is a frozen record of settings. It owns no data and no weights: the weights live in a `MetaModel`,
and every method takes the parameters it should use, so that gradients, finite differences and ``torch.func``
see a pure function. The outer loop is written once, in `metantk_nas.learners.trainer`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError
from metantk_nas.networks.norms import NormKind

Parameters = Mapping[str, Tensor]
"""Tensors by the names they have in a `MetaModel`."""

Predictor = Callable[[Tensor], Tensor]
"""From query images ``[query, channel, height, width]`` to logits ``[query, n_way]``."""

Adapt = Callable[[Tensor, Tensor, int], Predictor]
"""From support images, support labels and ``n_way`` to a predictor."""

HEAD_WEIGHT, HEAD_BIAS = "network.head.weight", "network.head.bias"


class Outputs(NamedTuple):
    """What a network says about images: features ``[row, n_features]`` and logits ``[row, n_outputs]``."""

    features: Tensor
    logits: Tensor


class MetaModel(nn.Module):
    """All that a learner may learn: a network, and what the learner itself adds to it.

    Args:
        network: has ``features(images)``, ``head``, ``n_features`` and ``drop_path_prob``.
        extra: parameters of the learner's own, such as a learnt temperature.

    Attributes:
        precision: in which the network computes *while training*; outputs have the type of the images all the same.
        progress: share of the training budget that is spent, in [0, 1], for learners whose loss changes on the way.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    progress: float = 0.0

    def __init__(self, network: nn.Module, extra: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.extra = extra if extra is not None else nn.Module()

    def forward(self, images: Tensor) -> Outputs:
        """Compute features and logits of images ``[row, channel, height, width]``."""
        network: Any = self.network
        mixed = self.training and self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if mixed else nullcontext():
            features = network.features(images)
            logits = network.head(features)
        return Outputs(features.to(images.dtype), logits.to(images.dtype))


class EpisodeLoss(NamedTuple):
    """Loss of one episode, a scalar whose gradient is the meta-gradient, and the query logits ``[query, n_way]``."""

    loss: Tensor
    logits: Tensor


class AbstractLearner(ABC):
    """Interface of all learners; implementations are final, frozen dataclasses whose fields are the settings.

    Attributes:
        trains_on: ``"episodes"``, or ``"images"``: batches of labelled base-class images, given as the
            query part of an episode whose support is empty.
        head: what the network's linear head stands for: one output a class of the episode (``"way"``),
            one a base class (``"base_classes"``), or nothing (``"unused"``: then it is not learnt).
        train_defaults: where the method wants other outer-loop settings than `TrainSettings` has.
        regresses: whether it also learns real targets, not classes only.
        half_precision: whether its network may compute in bfloat16 while it is trained; otherwise it is float32.
    """

    trains_on: ClassVar[Literal["episodes", "images"]] = "episodes"
    head: ClassVar[Literal["way", "base_classes", "unused"]] = "way"
    train_defaults: ClassVar[Mapping[str, Any]] = {}
    regresses: ClassVar[bool] = False
    half_precision: ClassVar[bool] = True

    @property
    @abstractmethod
    def norm(self) -> NormKind:
        """Normalisation the network should be built with.

        With ``"batch"`` predictions of a trained model do not depend on the images beside an image;
        with ``"batch_stats"`` they do (transductive, as in the code of MAML).
        """

    @abstractmethod
    def make_model(self, network: nn.Module) -> MetaModel:
        """Join a network with the learner's own parameters; all of it is meta-learned, but for an unused head."""

    @abstractmethod
    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute what the outer loop minimises, on one episode.

        Args:
            model: the shape of the computation; its own tensors serve where ``parameters`` has none.
            parameters: meta-parameters, from `meta_parameters`.
            episode: support set to adapt to, query set to be judged on.
        """

    @abstractmethod
    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Adapt to a support set.

        Args:
            model: as in `episode_loss`.
            parameters: as in `episode_loss`.
            support_images: ``[support, channel, height, width]``.
            support_labels: int64 ``[support]``, from 0 to ``n_way - 1``.
            n_way: number of classes.
        """

    def lr_factor(self, model: MetaModel) -> float:  # noqa: ARG002 - for those that keep it in the model
        """What the outer learning rate is multiplied by in the next step; 1 for learners that leave it alone."""
        return 1.0

    def after_step(self, model: MetaModel, gradients: Parameters) -> None:  # noqa: B027 - most learners ignore it
        """See the meta-gradient of the step that was just taken; learners with a memory keep it in buffers.

        Args:
            model: its ``extra`` may hold buffers, which checkpoints keep.
            gradients: by parameter name, averaged over the meta-batch.
        """


def outputs(model: MetaModel, parameters: Parameters, images: Tensor) -> Outputs:
    """Run a model with other parameters than its own."""
    result: Outputs = functional_call(model, dict(parameters), (images,))
    return result


def meta_parameters(learner: AbstractLearner, model: MetaModel) -> dict[str, nn.Parameter]:
    """Return what the outer loop learns: every parameter of the model, but for a head that is not used."""
    unused = {HEAD_WEIGHT, HEAD_BIAS} if learner.head == "unused" else set()
    return {name: parameter for name, parameter in model.named_parameters() if name not in unused}


def bind(learner: AbstractLearner, model: MetaModel) -> Adapt:
    """Return the learner's ``adapt`` with a model's own parameters: what `metantk_nas.evaluation.evaluate` takes."""
    return partial(learner.adapt, model, meta_parameters(learner, model))


def n_outputs(learner: AbstractLearner, *, n_way: int, n_base_classes: int) -> int:
    """Return how many outputs the network's head must have for this learner."""
    return n_base_classes if learner.head == "base_classes" else n_way


def takes_any_way(learner: AbstractLearner | type[AbstractLearner]) -> bool:
    """Whether a learner trains on episodes, of another number of classes than it is judged with if need be."""
    return learner.trains_on == "episodes" and learner.head == "unused"


def one_hot(labels: Tensor, n_way: int, like: Tensor) -> Tensor:
    """Return ``[row, n_way]``, 1 at each label, in the dtype of ``like``; torch's own does not run under vmap."""
    return (labels[:, None] == torch.arange(n_way, device=labels.device)).to(like.dtype)


def target_rows(targets: Tensor, n_way: int, like: Tensor) -> Tensor:
    """What predictions are regressed on, ``[row, n_way]``: one-hot labels, or real targets as they are."""
    return targets if targets.is_floating_point() else one_hot(targets, n_way, like)


def task_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of predictions ``[row, n_way]``: cross-entropy for labels ``[row]``, squared error for real targets."""
    return mse_loss(predictions, targets) if targets.is_floating_point() else cross_entropy(predictions, targets)


def check_head(model: MetaModel, n_way: int) -> None:
    """Refuse episodes with more or fewer classes than the head has outputs.

    Raises:
        UsageError: they differ.
    """
    network: Any = model.network
    if network.head.out_features != n_way:
        raise UsageError(
            f"this learner was trained for {network.head.out_features}-way episodes and got {n_way} classes; "
            f"train it again with --n-way {n_way}, or use a learner without a head of its own, such as protonet."
        )
