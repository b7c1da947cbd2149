"""RFS: a good embedding is all you need; the protocol of MetaNTK-NAS."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, final

import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from metantk_nas.episodes.episode import Episode
from metantk_nas.learners.augment import crop_and_flip
from metantk_nas.learners.base import AbstractLearner, EpisodeLoss, MetaModel, Parameters, Predictor, outputs
from metantk_nas.networks.norms import NormKind
from metantk_nas.rng import child_seed

MAX_ITERATIONS = 1000


@final
@dataclass(frozen=True)
class Rfs(AbstractLearner):
    """Rethinking few-shot classification (Tian et al., ECCV 2020, arXiv 2003.11539).

    The network learns to tell all base classes apart. For an episode, multinomial logistic regression is fitted
    to frozen features of unit length, of several augmented copies of each support image. The copies of all images
    are shifted and mirrored alike, so the order of the support images does not matter. Grey images are not
    augmented: a mirrored character is another character.

    Args:
        n_copies: augmented copies of each support image; 1 for the image itself only.
        penalty: C of scikit-learn's logistic regression, the inverse of its L2 penalty.
    """

    n_copies: int = 5
    penalty: float = 1.0

    trains_on: ClassVar[Literal["episodes", "images"]] = "images"
    head: ClassVar[Literal["way", "base_classes", "unused"]] = "base_classes"
    train_defaults: ClassVar[Mapping[str, Any]] = {
        "meta_batch_size": 1,
        "optimiser": "sgd",
        "outer_lr": 0.05,
        "weight_decay": 5e-4,
        "drop_path_prob": 0.2,
    }

    @property
    def norm(self) -> NormKind:
        """Running statistics: features are frozen after training."""
        return "batch"

    def make_model(self, network: nn.Module) -> MetaModel:
        """The network is trained with one output a base class; episodes use its features only."""
        return MetaModel(network)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of a batch of base-class images, given as the episode's query set."""
        logits = outputs(model, parameters, episode.query_images).logits
        return EpisodeLoss(cross_entropy(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Fit logistic regression to the support set, each of whose ``n_way`` classes has an image."""
        copies = self._copies(support_images)
        features = normalize(outputs(model, parameters, copies).features)
        regression = LogisticRegression(C=self.penalty, max_iter=MAX_ITERATIONS)
        labels = support_labels.repeat(len(copies) // len(support_images)).cpu().numpy()
        with _blas().limit(limits=1):  # on a handful of rows more threads only wait for each other
            regression.fit(_numpy(features), labels)
        # for two classes scikit-learn keeps one row of coefficients, the logit of the second class against the first
        coefficients = torch.from_numpy(regression.coef_).to(features)
        intercepts = torch.from_numpy(regression.intercept_).to(features)

        def predict(query_images: Tensor) -> Tensor:
            query = normalize(outputs(model, parameters, query_images).features)
            logits = query @ coefficients.mT + intercepts
            return torch.cat([torch.zeros_like(logits), logits], dim=1) if n_way == 2 else logits

        return predict

    def _copies(self, images: Tensor) -> Tensor:
        """Return ``[copy * row, channel, height, width]``, copy by copy; the same for the same images."""
        if images.shape[1] == 1 or self.n_copies == 1:
            return images
        generator = torch.Generator().manual_seed(child_seed(0, "rfs", "augment"))
        return torch.cat([crop_and_flip(images, generator, alike=True) for _ in range(self.n_copies)])


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _numpy(features: Tensor) -> Any:
    return features.detach().double().cpu().numpy()
