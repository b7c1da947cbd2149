"""Protocols: how an architecture is trained, and how its few-shot accuracy is then measured.

A protocol is stated once and for all; a table names the protocol of its rows. Training must be long enough to mean
something: networks that are stopped early are ranked by how fast they learn, which favours small ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metantk_nas.learners.base import AbstractLearner, Adapt, MetaModel, Predictor, bind
from metantk_nas.learners.protonet import ProtoNet, class_means, prototype_logits
from metantk_nas.learners.rfs import Rfs
from metantk_nas.learners.trainer import TrainSettings

SHOTS = (1, 5)
"""Support images per class with which every trained network is judged."""


Judge = Callable[[MetaModel, Tensor], Adapt]
"""From a trained model and some images of base classes to how it adapts to novel classes."""


def nearest_centroid(model: MetaModel, base_images: Tensor) -> Adapt:
    """Adapt by class means of frozen features, centred by those of base classes and scaled to unit length.

    The nearest class mean wins: CL2N of SimpleShot (Wang et al. 2019, arXiv 1911.04623, section 3.2).
    """
    with torch.no_grad():
        centre = model(base_images).features.mean(0)

    def embed(images: Tensor) -> Tensor:
        return normalize(model(images).features - centre)

    def adapt(support_images: Tensor, support_labels: Tensor, n_way: int) -> Predictor:
        centroids = class_means(embed(support_images), support_labels, n_way)
        return lambda query_images: prototype_logits(centroids, embed(query_images))

    return adapt


def by_learner(learner: AbstractLearner) -> Judge:
    """Adapt as a learner does."""

    def judge(model: MetaModel, _: Tensor) -> Adapt:
        return bind(learner, model)

    return judge


@dataclass(frozen=True)
class Protocol:
    """One way to train an architecture and to judge it.

    Args:
        name: what it is called by.
        description: one line for people.
        learner: what trains the network.
        settings: its outer loop, at the full budget.
        n_way: classes of an episode, in evaluation and, for learners that train on episodes, in training.
        n_query: query images per class of a training episode.
        batch_size: images of a batch, for learners that train on images.
        judges: by the prefix of its columns, how a trained model adapts to novel classes.
    """

    name: str
    description: str
    learner: AbstractLearner
    settings: TrainSettings
    n_way: int
    n_query: int
    batch_size: int
    judges: Mapping[str, Judge]

    @property
    def images_per_step(self) -> int:
        """Images that the network is shown in one unit of the budget."""
        return self.batch_size if self.learner.trains_on == "images" else self.n_way * (1 + self.n_query)


_PROTONET = ProtoNet()

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="rfs",
            description="classify all base classes, then logistic regression and nearest centroid on frozen features",
            learner=Rfs(),
            settings=TrainSettings(
                train_budget=1800,
                meta_batch_size=1,
                optimiser="sgd",
                outer_lr=0.1,
                weight_decay=5e-4,
                precision="auto",
                patience=None,
            ),
            n_way=5,
            n_query=15,
            batch_size=128,
            judges={"accuracy": by_learner(Rfs(n_copies=1)), "centroid": nearest_centroid},
        ),
        Protocol(
            name="protonet",
            description="prototypical network on 20-way 1-shot episodes, judged on 20-way episodes",
            learner=_PROTONET,
            settings=TrainSettings(train_budget=1000, meta_batch_size=1, precision="auto", patience=None),
            n_way=20,
            n_query=5,
            batch_size=0,
            judges={"accuracy": by_learner(_PROTONET)},
        ),
    )
}
"""Every protocol by name."""
