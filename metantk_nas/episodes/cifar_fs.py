"""CIFAR-FS: the 100 classes of CIFAR-100, 600 colour images each, split for few-shot learning.

Images: Krizhevsky 2009. Split (64 base, 16 validation, 20 novel classes): Bertinetto et al. 2019, arXiv 1805.08136.
"""

from collections import defaultdict
from collections.abc import Sequence

from metantk_nas.episodes.decode import is_image
from metantk_nas.episodes.download import RemoteFile, find_or_fetch
from metantk_nas.episodes.originals import Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import AbstractTree, open_tree
from metantk_nas.errors import DataError

ARCHIVE = RemoteFile("cifar100.zip", "https://zenodo.org/record/7978538/files/cifar100.zip")
_SPLIT_FILES = {"base": "train.txt", "validation": "val.txt", "novel": "test.txt"}
_LAYOUT = "cifar100/data/<class>/<image>.png and cifar100/splits/bertinetto/{train,val,test}.txt"


def find_cifar_fs(request: LoadRequest) -> Originals:
    """CIFAR-FS from ``cifar_fs.zip``, ``cifar100.zip`` or a folder ``cifar100``; three channels.

    Raises:
        DataError: the archive is missing and cannot be fetched, is damaged, or lacks a class of its own split.
    """
    names = ["cifar_fs.zip", "cifar100.zip", "cifar100"]
    tree = open_tree(find_or_fetch("cifar_fs", names, ARCHIVE, request))
    members = tree.names()
    splits = {split: _split_classes(tree, members, file) for split, file in _SPLIT_FILES.items()}
    files = defaultdict(list)
    for name in filter(is_image, members):
        files[name.split("/")[-2]].append(name)
    wanted = [name for classes in splits.values() for name in classes]
    missing = [name for name in wanted if name not in files]
    if missing:
        raise DataError(f"{tree.path} has no images of class {missing[0]!r}; expected {_LAYOUT}.")
    chosen = {split: {name: files[name] for name in classes} for split, classes in splits.items()}
    return Originals("cifar_fs", tree, chosen)


def _split_classes(tree: AbstractTree, members: Sequence[str], file: str) -> list[str]:
    lists = [name for name in members if name.endswith(f"splits/bertinetto/{file}")]
    if not lists:
        raise DataError(f"{tree.path} has no splits/bertinetto/{file}; expected {_LAYOUT}.")
    return tree.read_text(lists[0]).split()
