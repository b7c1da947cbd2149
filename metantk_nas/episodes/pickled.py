"""miniImageNet, tieredImageNet and FC100 in the pickles that are passed around; nothing in them is run.

Three forms are understood:

- ``{"image_data": pixels, "class_dict": {class: rows}}`` (Ren et al. 2018, arXiv 1803.00676, and learn2learn);
- ``{"data": pixels, "labels": one a row}`` (Gidaris & Komodakis 2018, arXiv 1804.09458; MetaOptNet; TADAM's FC100);
- ``*_images_png.pkl`` (encoded images) or ``*_images.npz`` (pixels) beside ``*_labels.pkl``, for tieredImageNet.

Pixels are uint8 ``[image, height, width, channel]``.
"""

import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from metantk_nas.episodes.dataset import Images
from metantk_nas.episodes.download import data_folders
from metantk_nas.episodes.folder import find_folder
from metantk_nas.episodes.originals import Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.source import RowSource, files_signature
from metantk_nas.episodes.tree import open_zip
from metantk_nas.errors import DataError, brief_text
from metantk_nas.safe_pickle import BROKEN, safe_load_arrays

Names = Mapping[str, Sequence[str]]
"""Per split, the names that its file may have."""

Rows = Callable[[int], bytes | Images]
"""Gives the image of a row: encoded, or its pixels."""

Place = Path | zipfile.Path
"""A folder or a file, on disk or in an archive, which is read without being unpacked."""

_ZENODO = "https://zenodo.org/record/7978538"
_MINI_IMAGENET: Names = {
    "base": (
        "mini-imagenet-cache-train.pkl",
        "miniImageNet_category_split_train_phase_train.pickle",
        "mini_imagenet_train.pickle",
    ),
    "validation": (
        "mini-imagenet-cache-val.pkl",
        "mini-imagenet-cache-validation.pkl",
        "miniImageNet_category_split_val.pickle",
        "mini_imagenet_val.pickle",
    ),
    "novel": ("mini-imagenet-cache-test.pkl", "miniImageNet_category_split_test.pickle", "mini_imagenet_test.pickle"),
}
_MINI_IMAGENET_HELP = (
    "Its images are ImageNet's, for research only, so they are not downloaded here. "
    f"Fetch mini-imagenet-cache-{{train,validation,test}}.pkl from {_ZENODO} (1.3 GB), or lay images out as "
    "{train,val,test}/<class>/<image>.jpg, or as images/ with train.csv, val.csv and test.csv"
)
_FC100: Names = {
    "base": ("FC100_train.pickle",),
    "validation": ("FC100_val.pickle",),
    "novel": ("FC100_test.pickle",),
}
_FC100_HELP = (
    "The terms of its images (CIFAR-100) are not stated, so they are not downloaded here. "
    f"Fetch fc100.zip from {_ZENODO}, which may stay packed, or bring FC100_{{train,val,test}}.pickle"
)
_TIERED_IMAGENET_HELP = (
    "Its images are ImageNet's, for research only, so they are not downloaded here. Fetch "
    f"{{train,val,test}}_images_png.pkl and {{train,val,test}}_labels.pkl from {_ZENODO} (13 GB; there their names "
    "begin with tiered-imagenet-)"
)


def find_mini_imagenet(request: LoadRequest) -> Originals:
    """miniImageNet: 100 classes of ImageNet, 600 images each, 84x84, split 64/16/20 (Ravi & Larochelle, ICLR 2017).

    From pickles, or from a folder that :func:`~metantk_nas.episodes.folder.find_folder` understands.

    Raises:
        DataError: the files are missing, damaged or of another form.
    """
    folders = _folders("mini_imagenet", ("mini-imagenet", "miniImageNet", "miniimagenet"), request)
    for folder in folders:
        if any((folder / name).exists() for name in _MINI_IMAGENET["base"]):
            parts = {split: _pickled_part(split, folder, names) for split, names in _MINI_IMAGENET.items()}
            return _assembled("mini_imagenet", folder, parts)
        if any((folder / name).exists() for name in ("train", "base", "train.csv", "split/train.csv")):
            return replace(find_folder(replace(request, data_root=folder)), name="mini_imagenet")
    raise _missing("mini_imagenet", _MINI_IMAGENET["base"], folders, _MINI_IMAGENET_HELP)


def find_fc100(request: LoadRequest) -> Originals:
    """FC100: the 100 classes of CIFAR-100, 600 images each, 32x32, split 60/20/20 by superclass.

    From ``fc100.zip``, or from what is in it.

    Source: Oreshkin et al. 2018, arXiv 1805.10123 (TADAM).

    Raises:
        DataError: the files are missing, damaged or of another form.
    """
    folders = _folders("fc100", ("FC100",), request)
    for folder in _with_archives(folders, ("fc100.zip", "FC100.zip")):
        if (folder / _FC100["base"][0]).exists():
            parts = {split: _pickled_part(split, folder, names) for split, names in _FC100.items()}
            return _assembled("fc100", folder, parts)
    raise _missing("fc100", ["fc100.zip", *_FC100["base"]], folders, _FC100_HELP)


def find_tiered_imagenet(request: LoadRequest) -> Originals:
    """tieredImageNet: 608 classes of ImageNet, 779,165 images, 84x84, split 351/97/160 by superclass.

    Source: Ren et al. 2018, arXiv 1803.00676. Only labels are read until images are needed; then all images of a
    split are held in memory (about 7 GB for the base classes as PNG).

    Raises:
        DataError: the files are missing, damaged or of another form.
    """
    folders = _folders("tiered_imagenet", ("tiered-imagenet", "tieredImageNet"), request)
    for folder in folders:
        for prefix in ("", "tiered-imagenet-"):
            if (folder / f"{prefix}train_labels.pkl").exists():
                parts = {split: _tiered_part(split, folder, prefix) for split in ("base", "validation", "novel")}
                return _assembled("tiered_imagenet", folder, parts)
    raise _missing("tiered_imagenet", ["train_labels.pkl"], folders, _TIERED_IMAGENET_HELP)


@dataclass(frozen=True, eq=False)
class _Part:
    """One split: the files it lies in, what gives a row, and the rows of every class."""

    paths: tuple[Place, ...]
    row: Rows
    classes: Mapping[str, Sequence[int]]


def _assembled(dataset: str, folder: Place, parts: Mapping[str, _Part]) -> Originals:
    """The data set of three splits; its images are named by file and row."""
    paths = {path.name: _on_disk(path) for part in parts.values() for path in part.paths}
    rows = {part.paths[0].name: part.row for part in parts.values()}
    files = {
        split: {label: [f"{part.paths[0].name}/{row}" for row in found] for label, found in part.classes.items()}
        for split, part in parts.items()
    }
    top = Path(str(folder))
    return Originals(dataset, RowSource(top / dataset, rows, files_signature(top, paths)), files)


def _pickled_part(split: str, folder: Place, names: Sequence[str]) -> _Part:
    """A split whose pixels and classes lie in one pickle."""
    path = _first(folder, names)
    with _reading(path):
        content = _unpickle(path)
        if {"image_data", "class_dict"} <= content.keys():
            pixels = _checked_pixels(content["image_data"])
            found = {_class_name(split, key): _numbers(rows) for key, rows in content["class_dict"].items()}
        elif {"data", "labels"} <= content.keys():
            pixels = _checked_pixels(content["data"])
            found = _classes_of(split, content["labels"], {})
        else:
            raise ValueError(f"it has {sorted(content)}, not image_data and class_dict, nor data and labels")
        last = max((row for rows in found.values() for row in rows), default=-1)
        if min((row for rows in found.values() for row in rows), default=0) < 0 or last >= len(pixels):
            raise ValueError(f"its labels name row {last}, but it has {len(pixels)} images")
    return _Part((path,), pixels.__getitem__, found)


def _tiered_part(split: str, folder: Path, prefix: str) -> _Part:
    """A split whose images and labels lie in two files."""
    stem = prefix + {"base": "train", "validation": "val", "novel": "test"}[split]
    labels = _first(folder, [f"{stem}_labels.pkl"])
    images = _first(folder, [f"{stem}_images_png.pkl", f"{stem}_images.npz"])
    with _reading(labels):
        content = _unpickle(labels)
        by_authors = "label_specific" in content
        if not by_authors and "labels" not in content:
            raise ValueError(f"it has {sorted(content)}, neither label_specific nor labels")
        names = dict(enumerate(map(_text, content.get("label_specific_str", ()))))
        classes = _classes_of(split, content["label_specific" if by_authors else "labels"], names)
    if images.suffix == ".npz":
        return _Part((images, labels), _lazy_pixels(images, blue_first=by_authors), classes)
    return _Part((images, labels), _lazy_encoded(images), classes)


def _lazy_encoded(path: Place) -> Rows:
    """Rows of encoded images, read when the first is asked for."""

    @cache
    def images() -> Sequence[bytes | Images]:
        with _reading(path), path.open("rb") as file:
            found = safe_load_arrays(file)
            if not isinstance(found, list) or not all(isinstance(image, bytes | np.ndarray) for image in found):
                raise TypeError("it is no list of encoded images")
            return found

    def row(index: int) -> bytes:
        image = images()[index]
        return image if isinstance(image, bytes) else image.tobytes()

    return row


def _lazy_pixels(path: Place, *, blue_first: bool) -> Rows:
    """Rows of pixels, read when the first is asked for."""

    @cache
    def images() -> Images:
        with _reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return _checked_pixels(content["images"])

    def row(index: int) -> Images:
        pixels: Images = images()[index]
        return pixels[..., ::-1] if blue_first else pixels

    return row


def _unpickle(path: Place) -> dict[str, Any]:
    """A pickled dictionary, its keys as text."""
    with path.open("rb") as file:
        content = safe_load_arrays(file)
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, not a dictionary")
    return {_text(key): value for key, value in content.items()}


def _checked_pixels(value: Any) -> Images:
    pixels: Images = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"its images are {pixels.dtype} {list(pixels.shape)}; expected uint8 [image, height, width, 3]"
        )
    return pixels


def _classes_of(split: str, labels: Any, names: Mapping[Any, str]) -> dict[str, list[int]]:
    """Rows by class, from one label a row."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(np.asarray(labels).tolist()):
        found[_class_name(split, label, names.get(label, ""))].append(row)
    return dict(found)


def _class_name(split: str, label: Any, name: str = "") -> str:
    """Text stays; numbers, which count from 0 in every split, are told apart by the split's name."""
    return f"{split}{label} {name}".strip() if isinstance(label, int) else _text(label)


def _numbers(rows: Any) -> list[int]:
    return [int(row) for row in np.asarray(rows).ravel().tolist()]


def _text(value: object) -> str:
    """Text, which Python 2 has written as bytes."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _reading(path: Place) -> Iterator[None]:
    """Name the file that cannot be understood."""
    try:
        yield
    except (*BROKEN, RuntimeError) as error:  # the last where an archive is encrypted, or packed in a way of its own
        raise DataError(
            f"{path} cannot be read: {brief_text(error) or type(error).__name__}. Nothing in it was run. "
            "Fetch the file again, from where the data set's authors keep it."
        ) from error


def _first(folder: Place, names: Sequence[str]) -> Place:
    """The first file that is there."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder} holds no {' or '.join(names)}, which belongs to what is there; add it.")


def _folders(dataset: str, aliases: Sequence[str], request: LoadRequest) -> list[Path]:
    """Where the originals may lie: as all data sets' do, or in a folder with one of the usual names."""
    folders = data_folders(dataset, request)
    return folders + [folders[0].parent / alias for alias in aliases]


def _with_archives(folders: Sequence[Path], names: Sequence[str]) -> Iterator[Place]:
    """Yield folders, after each the archives of these names in it, and after each of these the folders at its top."""
    for folder in folders:
        yield folder
        for archive in (folder / name for name in names):
            if archive.is_file():
                top = zipfile.Path(open_zip(archive))
                yield top
                yield from (entry for entry in top.iterdir() if entry.is_dir())


def _on_disk(place: Place) -> Path:
    """The file itself, or the archive that it is in."""
    return place if isinstance(place, Path) else Path(str(place.root.filename))


def _missing(dataset: str, names: Sequence[str], folders: Sequence[Path], help_text: str) -> DataError:
    return DataError(
        f"{dataset}: none of {', '.join(names)} is in {folders[0]}. {help_text}. Put them there, or name the directory "
        "that holds them with --data-root."
    )
