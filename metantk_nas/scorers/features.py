"""How well the features of untrained networks sort images into classes: forward passes only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.errors import DataError
from metantk_nas.kernels.precision import exact_float32, outer_product
from metantk_nas.kernels.smoother import kernel_smoother
from metantk_nas.kernels.spectrum import spectra
from metantk_nas.rng import numpy_generator
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.findings import findings, spread
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric

OWN_STUDY = "nearest class mean (Snell et al. 2017, arXiv 1703.05175) before any training; this project's own"


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of some classes, and episodes drawn among them.

    Args:
        images: ``[row, channel, height, width]``, class by class.
        labels: class of each row, int64 ``[row]``.
        support: rows of each episode's support images, class by class, ``[episode, n_way * n_shot]``.
        query: rows of its query images, class by class, ``[episode, n_way * n_query]``; none of them is in its support.
        n_way: classes of an episode.
    """

    images: Tensor
    labels: Tensor
    support: Tensor
    query: Tensor
    n_way: int


def draw_pool(
    dataset: FewShotDataset,
    rng: np.random.Generator,
    *,
    n_classes: int,
    n_images: int,
    n_episodes: int,
    n_way: int,
    n_shot: int,
    n_query: int,
) -> Pool:
    """Draw a pool from the base classes and episodes from the pool; what the data lack is done without.

    Args:
        dataset: where images come from.
        rng: the only source of chance.
        n_classes: classes of the pool at most; at least ``n_way``.
        n_images: images of each class at most; more than ``n_shot``.
        n_episodes: episodes.
        n_way: classes of an episode.
        n_shot: support images per class.
        n_query: query images per class at most; fewer where the smallest class of the pool has no more to spare.

    Raises:
        DataError: fewer than ``n_way`` base classes have more than ``n_shot`` images.
    """
    base = dataset.base
    large = [label for label, images in enumerate(base.images) if len(images) > n_shot]
    if len(large) < n_way:
        raise DataError(
            f"scores of features need {n_way} base classes of at least {n_shot} support + 1 query images; "
            f"data set {dataset.name!r} has {len(large)} of {len(base.classes)}; add images, or lower n_way or n_shot."
        )
    chosen = rng.permutation(large)[: max(n_classes, n_way)]
    images = [rng.permutation(base.images[label])[: max(n_images, n_shot + 1)] for label in chosen]
    sizes = [len(some) for some in images]
    rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    n_each = n_shot + min(n_query, min(sizes) - n_shot)
    drawn = [
        [rng.permutation(rows[label])[:n_each] for label in rng.permutation(len(rows))[:n_way]]
        for _ in range(n_episodes)
    ]
    support, query = torch.from_numpy(np.array(drawn)).tensor_split([n_shot], dim=2)
    return Pool(
        images=dataset.to_tensor(np.concatenate(images)),
        labels=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        support=support.flatten(1),
        query=query.flatten(1),
        n_way=n_way,
    )


class FeatureScorer(AbstractScorer):
    """Few-shot accuracy of untrained features.

    Each repeat has a pool of images from the base classes, with weights of its own as in every score. Features are
    those before the head, of the network that all kernels see (group normalisation: with the statistics of a batch the
    same accuracy said much less of trained networks). They are centred by the pool's mean and scaled to unit length.
    Episodes have the n_way and n_shot of the kernel's, but more of everything else.
    """

    name = "features"
    metrics = (
        Metric(
            "prototype_accuracy", True, "few-shot accuracy of the nearest class mean, untrained features", OWN_STUDY
        ),
        Metric(
            "ridge_accuracy",
            True,
            "few-shot accuracy of ridge regression on untrained features",
            "head of R2-D2 (Bertinetto et al. 2019, arXiv 1805.08136) before any training; this project's own",
        ),
        Metric(
            "ridge_loss",
            False,
            "leave-one-out loss of ridge regression on untrained features; 1 is that of a guess",
            "PRESS, Allen, Technometrics 1974; on untrained features: this project's own",
        ),
        Metric(
            "feature_effective_rank",
            True,
            "exp of the entropy of the spectrum of untrained features",
            "Roy & Vetterli, EUSIPCO 2007",
        ),
    )
    n_classes = 12
    """Classes of a pool. With ``n_images`` this costs 1.1 to 1.3 times the kernel scorer on NAS-Bench-201; of pools of
    120 images, 12 × 10 agree best among repeats."""
    n_images = 10
    """Images per class. The mean of 3 repeats agrees with that of 3 others by a Spearman ρ of .53 for the prototype
    accuracy and .62 for the ridge loss; with 20 × 12 images .62 and .78, with 40 × 12 .73 and .87."""
    n_episodes = 400
    """More episodes change nothing: all of them together agree no better, for pools of up to 240 images."""
    n_query = 5
    """Query images per class at most."""
    ridge = 0.1
    """Ridge per image that a head is fitted to; features have unit length. Of .003 to .3, with .1 the loss foretells
    the accuracy in other repeats best."""
    batch = 40
    """Images that go through the network at once: their activations stay in the cache, and in less memory than the
    kernel scorer takes for its backward pass."""

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup
        self._pool = cache(self._draw)

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward pass of the pool."""
        pool = self._pool(repeat)
        features = self._features(architectures, repeat, pool.images)
        unit = normalize(features - features.mean(1, keepdim=True), dim=-1)
        similarity = outer_product(unit).double()
        k_qs = similarity[:, pool.query[:, :, None], pool.support[:, None]]
        k_ss = similarity[:, pool.support[:, :, None], pool.support[:, None]]
        gram = similarity if unit.shape[1] <= unit.shape[2] else outer_product(unit.mT).double()
        columns = {
            "prototype_accuracy": accuracy(prototype_logits(k_qs, k_ss, pool.n_way), pool.n_way),
            "ridge_accuracy": accuracy(ridge_logits(k_qs, k_ss, pool.n_way, ridge=self.ridge), pool.n_way),
            "ridge_loss": leave_one_out_loss(similarity, pool.labels, ridge=self.ridge),
            "feature_effective_rank": spectra(gram, compute_dtype=unit.dtype).effective_rank,
        }
        return findings(columns, spread(features))

    @torch.no_grad()
    def _features(self, architectures: Sequence[Architecture], repeat: int, images: Tensor) -> Tensor:
        """Compute ``[candidate, row, feature]``, batch by batch."""
        network = self._setup.network(repeat)
        chunk: Any = network.route(architectures, self._setup.device)
        with exact_float32():
            parts = [network.features(batch, chunk) for batch in images.split(self.batch)]
        return torch.cat([part.unflatten(0, (len(architectures), -1)) for part in parts], dim=1)

    def _draw(self, repeat: int) -> Pool:
        setup = self._setup
        pool = draw_pool(
            setup.dataset,
            numpy_generator(setup.seed, "features", repeat),
            n_classes=self.n_classes,
            n_images=self.n_images,
            n_episodes=self.n_episodes,
            n_way=setup.kernel.n_way,
            n_shot=setup.kernel.n_shot,
            n_query=self.n_query,
        )
        return replace(
            pool,
            images=pool.images.to(setup.device, setup.dtype, memory_format=torch.channels_last),
            labels=pool.labels.to(setup.device),
            support=pool.support.to(setup.device),
            query=pool.query.to(setup.device),
        )


def prototype_logits(k_qs: Tensor, k_ss: Tensor, n_way: int) -> Tensor:
    """``2 q·c − ‖c‖²``, highest for the nearest class mean c; from inner products alone.

    Args:
        k_qs: inner products of query with support rows, class by class, ``[…, query, support]``.
        k_ss: those among support rows, ``[…, support, support]``.
        n_way: number of classes, each with equally many support rows.

    Returns:
        ``[…, query, n_way]``.
    """
    means = _one_hot(k_ss.shape[-1], n_way, k_ss)
    means = means / means.sum(0)
    sizes = (means.mT @ k_ss @ means).diagonal(dim1=-2, dim2=-1)
    return 2 * k_qs @ means - sizes[..., None, :]


def ridge_logits(k_qs: Tensor, k_ss: Tensor, n_way: int, *, ridge: float) -> Tensor:
    """``K_QS (K_SS + λI)⁻¹ Y`` with centred one-hot labels Y and λ = ``ridge`` × support rows; arguments as above."""
    n_support = k_ss.shape[-1]
    smoother = kernel_smoother(k_qs, k_ss, inner_time=math.inf, inner_reg=ridge * n_support)
    return smoother @ (_one_hot(n_support, n_way, k_ss) - 1 / n_way)


def accuracy(logits: Tensor, n_way: int) -> Tensor:
    """Share of query rows, class by class, whose own class has the highest logit.

    Args:
        logits: ``[candidate, episode, query, n_way]``.
        n_way: number of classes, each with equally many query rows.

    Returns:
        ``[candidate]``, mean over episodes.
    """
    labels = torch.arange(n_way, device=logits.device).repeat_interleave(logits.shape[-2] // n_way)
    return (logits.argmax(-1) == labels).double().mean((-2, -1))


def leave_one_out_loss(gram: Tensor, labels: Tensor, *, ridge: float) -> Tensor:
    """Squared error of ridge regression on each row from all others, over that of the labels' mean.

    ``y_i − ŷ_(−i) = (y_i − ŷ_i) / (1 − H_ii)`` with ``H = K (K + λI)⁻¹`` and λ = ``ridge`` × rows (PRESS; Allen,
    Technometrics 1974).

    Args:
        gram: K, ``[…, row, row]``.
        labels: int64 ``[row]``.
        ridge: λ per row.
    """
    hat = kernel_smoother(gram, gram, inner_time=math.inf, inner_reg=ridge * len(labels))
    targets = one_hot(labels).to(gram)
    targets = targets - targets.mean(0)
    errors = (targets - hat @ targets) / (1 - hat.diagonal(dim1=-2, dim2=-1))[..., None]
    return errors.square().sum((-2, -1)) / targets.square().sum()


def _one_hot(n_rows: int, n_way: int, like: Tensor) -> Tensor:
    """Labels of equally large classes, class by class, ``[row, n_way]``."""
    return torch.eye(n_way, dtype=like.dtype, device=like.device).repeat_interleave(n_rows // n_way, dim=0)
