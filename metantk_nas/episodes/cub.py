"""CUB-200-2011: 200 species of birds, about 60 photographs each (Wah et al. 2011, CNS-TR-2011-001)."""

from collections import defaultdict

from metantk_nas.episodes.decode import is_image
from metantk_nas.episodes.download import data_folders
from metantk_nas.episodes.originals import Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import FolderTree
from metantk_nas.errors import DataError

_LAYOUT = "CUB_200_2011/images/<number>.<species>/<image>.jpg and CUB_200_2011/classes.txt"
_SPLITS = ("base", "validation", "base", "novel")
"""Splits of the classes in the order of ``classes.txt``, over and over."""


def find_cub(request: LoadRequest) -> Originals:
    """CUB from the unpacked folder ``CUB_200_2011``, 100 base, 50 validation and 50 novel classes, three channels.

    Counted from 0, even classes are base, classes 1, 5, 9, … validation and classes 3, 7, 11, … novel: the split of
    Chen et al. 2019 (A Closer Look at Few-shot Classification, arXiv 1904.04232; ``write_CUB_filelist.py`` of
    their program), which most few-shot papers have kept.

    Raises:
        DataError: the folder is missing or lacks images of a class.
    """
    folders = data_folders("cub", request)
    places = [place for folder in folders for place in (folder / "CUB_200_2011", folder)]
    folder = next((place for place in places if (place / "classes.txt").is_file()), None)
    if folder is None:
        raise DataError(
            f"cub: no CUB_200_2011/classes.txt is in {folders[-1]}. The terms of its photographs are not stated, so "
            "they are not downloaded here. Fetch CUB_200_2011.tgz (md5 97eceeb196236b17998738112f37df78) from "
            f"https://data.caltech.edu/records/65de6-vp158, unpack it in {folders[0]} (tar -xzf CUB_200_2011.tgz), or "
            "name the directory that holds CUB_200_2011 with --data-root."
        )
    tree = FolderTree(folder)
    files = defaultdict(list)
    for name in filter(is_image, tree.names()):
        parts = name.split("/")
        if parts[0] == "images":
            files[parts[-2]].append(name)
    lines = tree.read_text("classes.txt").splitlines()
    classes = [line.split()[-1] for line in lines if line.strip()]
    missing = [label for label in classes if label not in files]
    if missing:
        raise DataError(
            f"{folder} has no images of class {missing[0]!r} ({len(missing)} of {len(classes)} classes are missing); "
            f"expected {_LAYOUT}."
        )
    chosen: dict[str, dict[str, list[str]]] = {split: {} for split in ("base", "validation", "novel")}
    for place, label in enumerate(classes):
        chosen[_SPLITS[place % 4]][label] = files[label]
    return Originals("cub", tree, chosen)
