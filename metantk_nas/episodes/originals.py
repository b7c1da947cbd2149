"""The images of a data set as they were found, by split and class, before any is decoded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from metantk_nas.episodes.cache import load_classes
from metantk_nas.episodes.dataset import FewShotDataset, Images, SkippedImage, make_dataset
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.source import AbstractSource

Files = Mapping[str, Mapping[str, Sequence[str]]]
"""Per split and class, the names of its image files."""

Decoded = dict[str, dict[str, Images]]
"""Per split and class, its images."""


def _unchanged(images: Decoded) -> Decoded:
    return images


@dataclass(frozen=True, eq=False)
class Originals:
    """Which image files make up which class of which split.

    Args:
        name: name of the data set, or of the folder it came from.
        source: where the files are read from.
        files: per split (``"base"``, ``"validation"``, ``"novel"``; those that are absent are empty) and class, the
            names of its files.
        stray: files that belong to no class.
        passed_over: how many files are no images by their names, by how these end.
        finish: what becomes of the decoded images, such as turned copies.
    """

    name: str
    source: AbstractSource
    files: Files
    stray: tuple[SkippedImage, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    finish: Callable[[Decoded], Decoded] = _unchanged


def load_originals(originals: Originals, request: LoadRequest) -> FewShotDataset:
    """Decode the images, or take them from the cache, and build the data set.

    Raises:
        DataError: no readable base image, or one class in two splits.
    """
    splits = {split: originals.files.get(split, {}) for split in ("base", "validation", "novel")}
    files = {f"{split}/{label}": names for split, classes in splits.items() for label, names in classes.items()}
    bank = load_classes(originals.source, files, f"reading {originals.name}", request)
    images = {split: {label: bank.images[f"{split}/{label}"] for label in classes} for split, classes in splits.items()}
    return make_dataset(originals.name, originals.finish(images), [*originals.stray, *bank.skipped])
