"""Few-shot episodes: some classes, a few labelled support images of each, and query images to classify."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.errors import DataError, ShapeError
from metantk_nas.rng import numpy_generator
from metantk_nas.types import EpisodeLayout


@dataclass(frozen=True, eq=False)
class Episode:
    """One few-shot problem. Rows are class-major: labels run 0, 0, …, 1, 1, ….

    Args:
        support_images: float32 ``[support, channel, height, width]``, normalised.
        support_labels: int64 ``[support]``, from 0 to ``n_way - 1``.
        query_images: float32 ``[query, channel, height, width]``, normalised.
        query_labels: int64 ``[query]``.
        n_way: number of classes.
        class_names: what each label stands for.
    """

    support_images: Tensor
    support_labels: Tensor
    query_images: Tensor
    query_labels: Tensor
    n_way: int
    class_names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Episode":
        """The same episode on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})


@dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """Episodes of equal shape, stacked along a leading episode axis, for ``torch.func.vmap``.

    Args:
        support_images: float32 ``[episode, support, channel, height, width]``.
        support_labels: int64 ``[episode, support]``.
        query_images: float32 ``[episode, query, channel, height, width]``.
        query_labels: int64 ``[episode, query]``.
        n_way: number of classes of every episode.
        class_names: per episode, what each label stands for.
    """

    support_images: Tensor
    support_labels: Tensor
    query_images: Tensor
    query_labels: Tensor
    n_way: int
    class_names: tuple[tuple[str, ...], ...]

    def to(self, device: torch.device | str) -> "EpisodeBatch":
        """The same batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})


_TENSORS = ("support_images", "support_labels", "query_images", "query_labels")


class EpisodeLabels(NamedTuple):
    """Labels of the rows of :func:`kernel_rows`: int64 ``[episode, query]`` and ``[episode, support]``."""

    query: Tensor
    support: Tensor


class EpisodeSampler:
    """Draws episodes from one split; the index-th episode is a pure function of (seed, name, split, index).

    There is no state: resumed and parallel work draws the very same episodes. With the same index, more shots
    add support images and keep the query images, and more queries keep the support images. Classes with too few
    images are never drawn; :attr:`left_out` names them.

    Args:
        dataset: where images come from.
        split_name: ``"base"``, ``"validation"`` or ``"novel"``.
        n_way: classes of an episode.
        n_shot: support images per class.
        n_query: query images per class.
        seed: seed of the run.
        name: what the episodes are for; another name gives other episodes.

    Raises:
        DataError: the split has fewer than ``n_way`` classes with ``n_shot + n_query`` images.
    """

    def __init__(
        self,
        dataset: FewShotDataset,
        split_name: str,
        *,
        n_way: int,
        n_shot: int,
        n_query: int,
        seed: int,
        name: str = "episodes",
    ) -> None:
        self.dataset = dataset
        self.split = dataset.split(split_name)
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.seed, self.name = seed, name
        self._check()
        self._drawn = np.flatnonzero([len(images) >= self.n_needed for images in self.split.images])

    @property
    def n_needed(self) -> int:
        """Images that a class must have to be drawn."""
        return self.n_shot + self.n_query

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes that are never drawn, for want of images."""
        return self.split.smaller_than(self.n_needed)

    def __call__(self, index: int) -> Episode:
        """The episode number ``index``, from 0."""
        rng = numpy_generator(self.seed, self.name, self.split.name, index)
        chosen = self._drawn[rng.permutation(len(self._drawn))[: self.n_way]]
        support, query = [], []
        for label in chosen:
            images = self.split.images[label]
            order = rng.permutation(len(images))
            support.append(images[order[: self.n_shot]])
            query.append(images[order[len(images) - self.n_query :]])
        return Episode(
            support_images=self.dataset.to_tensor(np.concatenate(support)),
            support_labels=torch.arange(self.n_way).repeat_interleave(self.n_shot),
            query_images=self.dataset.to_tensor(np.concatenate(query)),
            query_labels=torch.arange(self.n_way).repeat_interleave(self.n_query),
            n_way=self.n_way,
            class_names=tuple(self.split.classes[label] for label in chosen),
        )

    def episode(self, index: int) -> Episode:
        """The episode number ``index``, from 0."""
        return self(index)

    def batch(self, start: int, n: int) -> list[Episode]:
        """The ``n`` episodes from number ``start`` on."""
        return [self(index) for index in range(start, start + n)]

    def _check(self) -> None:
        where = f"split {self.split.name!r} of data set {self.dataset.name!r}"
        if self.n_way < 2 or self.n_shot < 1 or self.n_query < 1:
            raise DataError(
                f"an episode needs n_way >= 2, n_shot >= 1 and n_query >= 1; "
                f"got n_way={self.n_way}, n_shot={self.n_shot}, n_query={self.n_query}."
            )
        n_classes = len(self.split.classes)
        if n_classes < self.n_way:
            raise DataError(
                f"{where} has {n_classes} classes, but {self.n_way}-way episodes need {self.n_way}; "
                f"lower n_way or train_way, or give the split more classes{'' if n_classes else _EMPTY_SPLIT}."
            )
        sizes = zip(map(len, self.split.images), self.split.classes, strict=True)
        short = sorted(pair for pair in sizes if pair[0] < self.n_needed)
        if n_classes - len(short) < self.n_way:
            n_images, label = short[0]
            others = f" (and {len(short) - 1} more classes fall short)" if len(short) > 1 else ""
            skipped = f"; {len(self.dataset.skipped)} image files were skipped" if self.dataset.skipped else ""
            raise DataError(
                f"class {label!r} in {where} has {n_images} images{others}{skipped}, but {self.n_shot} support + "
                f"{self.n_query} query images need {self.n_needed}, and {self.n_way}-way episodes {self.n_way} such "
                "classes; add images, or lower n_way, n_shot or n_query."
            )


_EMPTY_SPLIT = (
    " (a folder of images with too few classes is not split by itself; "
    "base.txt, validation.txt and novel.txt inside it can name the classes)"
)


def stack_episodes(episodes: Sequence[Episode]) -> EpisodeBatch:
    """Stack episodes of equal shape along a new leading axis.

    Raises:
        ShapeError: no episode, or episodes of different shapes.
    """
    _check_alike(episodes)
    stacked = {name: torch.stack([getattr(episode, name) for episode in episodes]) for name in _TENSORS}
    return EpisodeBatch(**stacked, n_way=episodes[0].n_way, class_names=tuple(e.class_names for e in episodes))


def kernel_rows(episodes: Sequence[Episode]) -> tuple[Tensor, EpisodeLayout, EpisodeLabels]:
    """Lay episodes out as rows of a Gram matrix: all query rows first, then all support rows.

    Returns:
        Images float32 ``[row, channel, height, width]``, how rows fall into episodes, and the labels.

    Raises:
        ShapeError: no episode, or episodes of different shapes.
    """
    batch = stack_episodes(episodes)
    rows = torch.cat([batch.query_images.flatten(0, 1), batch.support_images.flatten(0, 1)])
    layout = EpisodeLayout(len(episodes), batch.support_labels.shape[1], batch.query_labels.shape[1])
    return rows, layout, EpisodeLabels(batch.query_labels, batch.support_labels)


def _check_alike(episodes: Sequence[Episode]) -> None:
    shapes = {(e.n_way, tuple(e.support_images.shape), tuple(e.query_images.shape)) for e in episodes}
    if len(shapes) != 1:
        raise ShapeError(
            f"episodes must be one or more, all with the same n_way, support and query shapes; got {sorted(shapes)}."
        )
