"""Protocols: how an architecture is trained, and how its few-shot accuracy is then measured.

A protocol is stated once and for all; a table names the protocol of its rows. Training must be long enough to mean
something: networks that are stopped early are ranked by how fast they learn, which favours small ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from metantk_nas.learners.base import AbstractLearner, Adapt, MetaModel, Predictor, bind
from metantk_nas.learners.protonet import ProtoNet, class_means, prototype_logits
from metantk_nas.learners.rfs import Rfs
from metantk_nas.learners.trainer import TrainSettings

SHOTS = (1, 5)
"""Support images per class with which every trained network is judged."""


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
    judges: Mapping[str, Callable[[MetaModel], Adapt]]

    @property
    def images_per_step(self) -> int:
        """Images that the network is shown in one unit of the budget."""
        return self.batch_size if self.learner.trains_on == "images" else self.n_way * (1 + self.n_query)


def nearest_centroid(model: MetaModel) -> Adapt:
    """Adapt by the class means of frozen features of unit length; the nearest one wins (arXiv 1911.04623, L2N)."""

    def adapt(support_images: Tensor, support_labels: Tensor, n_way: int) -> Predictor:
        centroids = class_means(normalize(model(support_images).features), support_labels, n_way)
        return lambda query_images: prototype_logits(centroids, normalize(model(query_images).features))

    return adapt


_PROTONET = ProtoNet()

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="rfs",
            description="classify all base classes, then logistic regression and nearest centroid on frozen features",
            learner=Rfs(),
            settings=TrainSettings(
                train_budget=1200,
                meta_batch_size=1,
                optimiser="sgd",
                outer_lr=0.1,
                weight_decay=5e-4,
                precision="bfloat16",
                patience=None,
            ),
            n_way=5,
            n_query=15,
            batch_size=128,
            judges={
                "accuracy": lambda model: bind(Rfs(n_copies=1), model),
                "centroid": nearest_centroid,
            },
        ),
        Protocol(
            name="protonet",
            description="prototypical network on 20-way 1-shot episodes, judged on 20-way episodes",
            learner=_PROTONET,
            settings=TrainSettings(train_budget=1000, meta_batch_size=1, precision="bfloat16", patience=None),
            n_way=20,
            n_query=5,
            batch_size=0,
            judges={"accuracy": lambda model: bind(_PROTONET, model)},
        ),
    )
}
"""Every protocol by name."""
