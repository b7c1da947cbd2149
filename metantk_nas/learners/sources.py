"""What the outer loop learns from: episodes, or batches of images, as pure functions of an index."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.episode import Episode, EpisodeSampler
from metantk_nas.learners.augment import crop_and_flip
from metantk_nas.learners.base import AbstractLearner
from metantk_nas.rng import child_seed, numpy_generator

Source = Callable[[int], Episode]
"""From an index to an episode, always the same one."""


class ImageBatches:
    """Shuffled batches of all base-class images, crops and flips of them where they have colour.

    The index-th batch is a pure function of (seed, index): each epoch is a new permutation, and a batch that
    would reach into the next epoch is left out.

    Args:
        dataset: where images come from.
        batch_size: images of a batch; all of them if there are fewer.
        seed: seed of the run.
    """

    def __init__(self, dataset: FewShotDataset, *, batch_size: int, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        sizes = [len(images) for images in dataset.base.images]
        self._labels = np.repeat(np.arange(len(sizes)), sizes)
        self._places = np.concatenate([np.arange(size) for size in sizes])
        self.batch_size = min(batch_size, len(self._labels))
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __call__(self, index: int) -> Episode:
        """The batch number ``index``, as the query set of an episode without support."""
        epoch, batch = divmod(index, len(self._labels) // self.batch_size)
        chosen = self._order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        classes = self.dataset.base.images
        images = self.dataset.to_tensor(np.stack([classes[self._labels[i]][self._places[i]] for i in chosen]))
        if self.dataset.n_channels > 1:
            images = crop_and_flip(images, torch.Generator().manual_seed(child_seed(self.seed, "augment", index)))
        return Episode(
            support_images=images[:0],
            support_labels=torch.empty(0, dtype=torch.int64),
            query_images=images,
            query_labels=torch.from_numpy(self._labels[chosen]),
            n_way=len(classes),
            class_names=self.dataset.base.classes,
        )

    def _permutation(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "images", epoch).permutation(len(self._labels))


def training_source(
    learner: AbstractLearner,
    dataset: FewShotDataset,
    *,
    n_way: int,
    n_shot: int,
    n_query: int,
    batch_size: int,
    seed: int,
) -> Source:
    """Return what a learner trains on: base-class episodes, or image batches.

    Args:
        learner: decides by its ``trains_on``.
        dataset: base classes are used.
        n_way: classes of a training episode.
        n_shot: support images per class.
        n_query: query images per class.
        batch_size: images of a batch, for learners that train on images.
        seed: seed of the run.
    """
    if learner.trains_on == "images":
        return ImageBatches(dataset, batch_size=batch_size, seed=seed)
    return EpisodeSampler(dataset, "base", n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed, name="train")
