"""Omniglot: handwritten characters of 50 alphabets, 20 drawings each (Lake et al., Science 2015, MIT licence)."""

from collections import defaultdict

import numpy as np

from metantk_nas.episodes.cache import load_classes
from metantk_nas.episodes.dataset import FewShotDataset, Images, make_dataset
from metantk_nas.episodes.decode import ImageBank, is_image
from metantk_nas.episodes.download import RemoteFile, find_or_fetch
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import open_tree
from metantk_nas.errors import DataError

_SITE = "https://github.com/brendenlake/omniglot/raw/master/python/"
BACKGROUND = RemoteFile(
    "images_background.zip", _SITE + "images_background.zip", md5="68d2efa1b9178cc56df9314c21c6e718"
)
EVALUATION = RemoteFile(
    "images_evaluation.zip", _SITE + "images_evaluation.zip", md5="6b91aef0f799c5bb55b94e3f2daec811"
)
VALIDATION_ALPHABETS = ("Mkhedruli_(Georgian)", "N_Ko", "Ojibwe_(Canadian_Aboriginal_Syllabics)", "Sanskrit", "Tagalog")


def load_omniglot(request: LoadRequest, *, rotations: bool = False) -> FewShotDataset:
    """Omniglot in its official split, ink = 1 on 0, one channel.

    Novel classes are the 659 characters of the evaluation alphabets. Validation classes are the 147 characters of
    five of the 30 background alphabets (``VALIDATION_ALPHABETS``); base classes are the other 817.

    Args:
        request: image size, data root, cache directory.
        rotations: add every base class turned by 90, 180 and 270 degrees as three further base classes
            (Santoro et al. 2016, arXiv 1605.06065).

    Raises:
        DataError: the archives are missing and cannot be fetched, or are damaged.
    """
    background, evaluation = (_load_part(remote, request) for remote in (BACKGROUND, EVALUATION))
    held_out = {name for name in background.images if name.split("/")[0] in VALIDATION_ALPHABETS}
    base = background.select([name for name in background.images if name not in held_out])
    return make_dataset(
        "omniglot",
        {
            "base": base | _rotated(base) if rotations else base,
            "validation": background.select(sorted(held_out)),
            "novel": evaluation.images,
        },
        background.skipped + evaluation.skipped,
    )


def _load_part(remote: RemoteFile, request: LoadRequest) -> ImageBank:
    """Images of one archive (or of the folder it unpacks to) by ``Alphabet/character``, inverted."""
    folder = remote.name.removesuffix(".zip")
    tree = open_tree(find_or_fetch("omniglot", [remote.name, folder], remote, request))
    files = defaultdict(list)
    for name in filter(is_image, tree.names()):
        files["/".join(name.split("/")[-3:-1])].append(name)
    if not files:
        raise DataError(f"{tree.path} holds no images; expected {folder}/<alphabet>/<character>/<drawing>.png.")
    bank = load_classes(tree, files, f"reading omniglot {folder}", request)
    return ImageBank({name: 255 - images for name, images in bank.images.items()}, bank.skipped)


def _rotated(classes: dict[str, Images]) -> dict[str, Images]:
    return {
        f"{name}/rotated{90 * quarter}": np.ascontiguousarray(np.rot90(images, quarter, axes=(1, 2)))
        for name, images in classes.items()
        for quarter in (1, 2, 3)
    }
