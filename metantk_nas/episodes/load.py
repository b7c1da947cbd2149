"""Every data set by name, and any folder of images by path."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metantk_nas.episodes.cifar_fs import load_cifar_fs
from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.folder import load_folder
from metantk_nas.episodes.glyphs import load_glyphs
from metantk_nas.episodes.omniglot import load_omniglot
from metantk_nas.episodes.request import LoadRequest, Progress
from metantk_nas.errors import DataError, unknown_name


@dataclass(frozen=True)
class DatasetInfo:
    """One line about a data set, for ``metantk-nas datasets``.

    Args:
        name: what it is called by.
        description: what is in it.
        source: who made it.
        licence: on what terms.
        load: the function that loads it; its keyword arguments are the data set's options.
    """

    name: str
    description: str
    source: str
    licence: str
    load: Callable[..., FewShotDataset]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that only this data set has."""
        parameters = inspect.signature(self.load).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


_INFOS = (
    DatasetInfo(
        "glyphs", "characters drawn by this program, 20 drawings each; no download", "built in", "MIT", load_glyphs
    ),
    DatasetInfo(
        "omniglot",
        "1,623 handwritten characters of 50 alphabets, 20 drawings each",
        "Lake, Salakhutdinov & Tenenbaum 2015, github.com/brendenlake/omniglot",
        "MIT",
        load_omniglot,
    ),
    DatasetInfo(
        "cifar_fs",
        "100 classes of colour photographs, 600 each, 32x32; 64/16/20 classes",
        "CIFAR-100, Krizhevsky 2009; split: Bertinetto et al. 2019, arXiv 1805.08136",
        "not stated",
        load_cifar_fs,
    ),
    DatasetInfo(
        "folder", "your own images: the path of a folder or zip with one directory a class", "you", "yours", load_folder
    ),
)


def available_datasets() -> Mapping[str, DatasetInfo]:
    """All data sets by name."""
    return {info.name: info for info in _INFOS}


def load_dataset(
    name_or_path: str,
    *,
    image_size: int,
    data_root: Path | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    download: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> FewShotDataset:
    """Load a data set by name, or a folder (or zip) of images by path.

    Args:
        name_or_path: a name of :func:`available_datasets`, or a path.
        image_size: height and width of the images, in pixels.
        data_root: directory that holds the originals, itself or in a sub-directory named like the data set;
            default ``<user cache>/metantk-nas/data``. For ``"folder"``: the folder itself.
        cache_dir: directory for decoded images; default ``<user cache>/metantk-nas/images``.
        seed: draws the built-in characters and splits folders by class.
        download: fetch missing originals.
        progress: told how far long work is.
        options: options of that data set, such as ``rotations=True`` for Omniglot.

    Raises:
        DataError: unknown name or option, images that are missing, unreadable or badly laid out.
    """
    infos = available_datasets()
    if image_size < 1:
        raise DataError(f"image_size is a number of pixels, at least 1; got {image_size}.")
    info = infos.get(name_or_path)
    if info is None:
        if not Path(name_or_path).exists():
            raise DataError(f"{unknown_name('data set', name_or_path, infos)} A folder of images is given by its path.")
        info, data_root = infos["folder"], Path(name_or_path)
    for option in options:
        if option not in info.options:
            raise unknown_name(f"option of data set {info.name!r}", option, info.options, DataError)
    return info.load(LoadRequest(image_size, data_root, cache_dir, seed, download, progress), **options)
