"""Omniglot: handwritten characters of 50 alphabets, 20 drawings each (Lake et al., Science 2015, MIT licence)."""

from collections import defaultdict
from functools import partial

import numpy as np

from metantk_nas.episodes.dataset import Images
from metantk_nas.episodes.decode import is_image
from metantk_nas.episodes.download import RemoteFile, find_or_fetch
from metantk_nas.episodes.originals import Decoded, Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.source import JoinedSource
from metantk_nas.episodes.tree import AbstractTree, open_tree
from metantk_nas.errors import DataError

_SITE = "https://github.com/brendenlake/omniglot/raw/master/python/"
BACKGROUND = RemoteFile(
    "images_background.zip", _SITE + "images_background.zip", md5="68d2efa1b9178cc56df9314c21c6e718"
)
EVALUATION = RemoteFile(
    "images_evaluation.zip", _SITE + "images_evaluation.zip", md5="6b91aef0f799c5bb55b94e3f2daec811"
)
VALIDATION_ALPHABETS = ("Mkhedruli_(Georgian)", "N_Ko", "Ojibwe_(Canadian_Aboriginal_Syllabics)", "Sanskrit", "Tagalog")


def find_omniglot(request: LoadRequest, *, rotations: bool = False) -> Originals:
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
    trees = [_open(remote, request) for remote in (BACKGROUND, EVALUATION)]
    background, evaluation = map(_characters, trees)
    held_out = {name for name in background if name.split("/")[0] in VALIDATION_ALPHABETS}
    files = {
        "base": {name: background[name] for name in background if name not in held_out},
        "validation": {name: background[name] for name in sorted(held_out)},
        "novel": evaluation,
    }
    return Originals("omniglot", JoinedSource(trees), files, finish=partial(_finish, rotations=rotations))


def _open(remote: RemoteFile, request: LoadRequest) -> AbstractTree:
    """One archive, or the folder it unpacks to."""
    return open_tree(find_or_fetch("omniglot", [remote.name, remote.name.removesuffix(".zip")], remote, request))


def _characters(tree: AbstractTree) -> dict[str, list[str]]:
    """Files by ``Alphabet/character``, named as in the joined source."""
    files = defaultdict(list)
    for name in filter(is_image, tree.names()):
        files["/".join(name.split("/")[-3:-1])].append(f"{tree.path.name}/{name}")
    if not files:
        raise DataError(f"{tree.path} holds no images; expected {tree.path.stem}/<alphabet>/<character>/<drawing>.png.")
    return dict(files)


def _finish(images: Decoded, *, rotations: bool) -> Decoded:
    """Invert all images, and turn the base classes if that was asked for."""
    inverted = {
        split: {name: 255 - drawings for name, drawings in classes.items()} for split, classes in images.items()
    }
    return inverted | {"base": inverted["base"] | _rotated(inverted["base"])} if rotations else inverted


def _rotated(classes: dict[str, Images]) -> dict[str, Images]:
    return {
        f"{name}/rotated{90 * quarter}": np.ascontiguousarray(np.rot90(images, quarter, axes=(1, 2)))
        for name, images in classes.items()
        for quarter in (1, 2, 3)
    }
