"""Every data set by name, and any folder of images by path."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metantk_nas.episodes.cifar_fs import find_cifar_fs
from metantk_nas.episodes.cub import find_cub
from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.folder import find_folder
from metantk_nas.episodes.glyphs import load_glyphs
from metantk_nas.episodes.hugging_face import PREFIX, find_hugging_face, read_reference
from metantk_nas.episodes.omniglot import find_omniglot
from metantk_nas.episodes.originals import Originals, load_originals
from metantk_nas.episodes.pickled import find_fc100, find_mini_imagenet, find_tiered_imagenet
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
        find: the function that finds its images, or makes them; its keyword arguments are the data set's options.
    """

    name: str
    description: str
    source: str
    licence: str
    find: Callable[..., Originals | FewShotDataset]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that only this data set has."""
        parameters = inspect.signature(self.find).parameters.values()
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
        find_omniglot,
    ),
    DatasetInfo(
        "cifar_fs",
        "100 classes of colour photographs, 600 each, 32x32; 64/16/20 classes",
        "CIFAR-100, Krizhevsky 2009; split: Bertinetto et al. 2019, arXiv 1805.08136",
        "not stated",
        find_cifar_fs,
    ),
    DatasetInfo(
        "fc100",
        "100 classes of colour photographs, 600 each, 32x32; 60/20/20 apart by superclass; you bring the files",
        "CIFAR-100, Krizhevsky 2009; split: Oreshkin et al. 2018, arXiv 1805.10123",
        "not stated",
        find_fc100,
    ),
    DatasetInfo(
        "mini_imagenet",
        "100 classes of photographs, 600 each, 84x84; 64/16/20 classes; you bring the files",
        "ImageNet, Russakovsky et al. 2015; split: Ravi & Larochelle, ICLR 2017",
        "ImageNet's: research only",
        find_mini_imagenet,
    ),
    DatasetInfo(
        "tiered_imagenet",
        "608 classes of photographs, 779,165 in all, 84x84; 351/97/160 apart by superclass; you bring the files",
        "ImageNet, Russakovsky et al. 2015; split: Ren et al. 2018, arXiv 1803.00676",
        "ImageNet's: research only",
        find_tiered_imagenet,
    ),
    DatasetInfo(
        "cub",
        "200 species of birds, 11,788 photographs; 100/50/50 classes; you bring the files",
        "CUB-200-2011, Wah et al. 2011; split: Chen et al. 2019, arXiv 1904.04232",
        "not stated",
        find_cub,
    ),
    DatasetInfo(
        "folder", "your own images: the path of a folder or zip with one directory a class", "you", "yours", find_folder
    ),
    DatasetInfo(
        "hf",
        "any image data set of the Hugging Face hub, or a saved one: hf:NAME or hf:PATH; needs the extra 'hf'",
        "huggingface.co/datasets",
        "see its card",
        find_hugging_face,
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
    """Load a data set by name, a folder (or zip) of images by path, or one of Hugging Face as ``"hf:NAME"``.

    Args:
        name_or_path: a name of :func:`available_datasets`, a path, or ``"hf:"`` and a name or path.
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
    request = LoadRequest(image_size, data_root, cache_dir, seed, download, progress)
    found, request = find_dataset(name_or_path, request, **options)
    return load_originals(found, request) if isinstance(found, Originals) else found


def find_dataset(
    name_or_path: str, request: LoadRequest, **options: Any
) -> tuple[Originals | FewShotDataset, LoadRequest]:
    """Find the images of a data set without decoding them; one that is drawn has none, and comes as it is.

    Args:
        name_or_path: as for :func:`load_dataset`.
        request: what is asked of it.
        options: options of that data set.

    Returns:
        What was found, and the request as the data set understood it.

    Raises:
        DataError: as for :func:`load_dataset`.
    """
    infos = available_datasets()
    if request.image_size < 1:
        raise DataError(f"image_size is a number of pixels, at least 1; got {request.image_size}.")
    info = infos.get(name_or_path)
    if name_or_path.startswith(PREFIX):
        info, options = infos["hf"], read_reference(name_or_path) | options
    elif info is None:
        if not Path(name_or_path).exists():
            raise DataError(f"{unknown_name('data set', name_or_path, infos)} A folder of images is given by its path.")
        info, request = infos["folder"], replace(request, data_root=Path(name_or_path))
    for option in options:
        if option not in info.options:
            raise unknown_name(f"option of data set {info.name!r}", option, info.options, DataError)
    return info.find(request, **options), request
