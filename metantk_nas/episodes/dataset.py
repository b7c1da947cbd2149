"""Images by class, in base, validation and novel classes: what every data set becomes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metantk_nas.errors import DataError, unknown_name

Images = NDArray[np.uint8]
"""Images of one class: uint8 ``[image, height, width, channel]``, 1 (grey) or 3 (red, green, blue) channels."""


@dataclass(frozen=True)
class SkippedImage:
    """An image file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Some classes and all their images.

    Args:
        name: ``"base"``, ``"validation"`` or ``"novel"``.
        classes: class names.
        images: per class, uint8 ``[image, height, width, channel]``.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[Images, ...]

    @property
    def n_images(self) -> int:
        """Images of all classes together."""
        return sum(len(images) for images in self.images)

    def smaller_than(self, n_images: int) -> tuple[str, ...]:
        """Classes with fewer images."""
        return tuple(name for name, images in zip(self.classes, self.images, strict=True) if len(images) < n_images)


@dataclass(frozen=True, eq=False)
class FewShotDataset:
    """Three sets of disjoint classes: to learn from (base), to choose by (validation) and to be judged on (novel).

    Args:
        name: name of the data set, or of the folder it came from.
        image_size: height and width of every image, in pixels.
        n_channels: 1 or 3.
        base: classes to learn from; never empty.
        validation: classes to choose by; may be empty.
        novel: classes to be judged on; may be empty.
        mean: per channel, mean of the base images scaled to [0, 1].
        std: per channel, their standard deviation; 1 where a channel never varies.
        skipped: image files that could not be read.
        fingerprint: hash of class names and pixels, for manifests.
    """

    name: str
    image_size: int
    n_channels: int
    base: ImageSplit
    validation: ImageSplit
    novel: ImageSplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: tuple[SkippedImage, ...]
    fingerprint: str

    def split(self, name: str) -> ImageSplit:
        """The split called ``name``: ``"base"``, ``"validation"`` or ``"novel"``."""
        splits = {split.name: split for split in (self.base, self.validation, self.novel)}
        if name not in splits:
            raise unknown_name("split", name, splits, DataError)
        return splits[name]

    def to_tensor(self, images: Images) -> Tensor:
        """Scale images to [0, 1] and normalise them by the mean and deviation of the base classes.

        Args:
            images: uint8 ``[image, height, width, channel]``.

        Returns:
            float32 ``[image, channel, height, width]``, channels last in memory. Strides say so for grey images, too:
            networks would run them channels first otherwise, which is slower.
        """
        mean, std = (255 * np.array(value, np.float32) for value in (self.mean, self.std))
        pixels = images.astype(np.float32, order="C")
        pixels -= mean
        pixels /= std
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def make_dataset(
    name: str, images: Mapping[str, Mapping[str, Images]], skipped: Iterable[SkippedImage] = ()
) -> FewShotDataset:
    """Build a data set; statistics and fingerprint are computed here.

    Args:
        name: name of the data set.
        images: per split, the images of every class by the class's name.
        skipped: image files that could not be read.

    Raises:
        DataError: no base image at all, or a class that is in two splits.
    """
    splits = {
        split: ImageSplit(split, tuple(images[split]), tuple(images[split].values()))
        for split in ("base", "validation", "novel")
    }
    _check_disjoint(name, splits.values())
    skipped = tuple(skipped)
    if not splits["base"].n_images:
        first = f"; the first of {len(skipped)} skipped: {skipped[0].path} ({skipped[0].reason})" if skipped else ""
        raise DataError(f"data set {name!r} has no readable image in its base classes{first}.")
    mean, std = _channel_statistics(splits["base"].images)
    return FewShotDataset(
        name=name,
        image_size=splits["base"].images[0].shape[1],
        n_channels=len(mean),
        **splits,
        mean=mean,
        std=std,
        skipped=skipped,
        fingerprint=_fingerprint(splits.values()),
    )


def _check_disjoint(name: str, splits: Iterable[ImageSplit]) -> None:
    home: dict[str, str] = {}
    for split in splits:
        for label in split.classes:
            if label in home:
                raise DataError(
                    f"class {label!r} of data set {name!r} is in both {home[label]!r} and {split.name!r}; "
                    "few-shot splits hold different classes: name it in one of them only."
                )
            home[label] = split.name


def _channel_statistics(images: Iterable[Images]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in units of [0, 1], exact: from counts of the 256 levels."""
    counts = sum(
        np.stack([np.bincount(plane.ravel(), minlength=256) for plane in np.moveaxis(some, -1, 0)]) for some in images
    )  # [channel, level]
    level = np.arange(256) / 255
    total = np.sum(counts, axis=1)
    mean = counts @ level / total
    variance = (counts * (level - mean[:, None]) ** 2).sum(axis=1) / total
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _fingerprint(splits: Iterable[ImageSplit]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        for label, images in zip(split.classes, split.images, strict=True):
            digest.update(f"{split.name}/{label}/{images.shape}".encode())
            digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
