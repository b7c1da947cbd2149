"""Your own images: a folder (or zip archive) with one directory a class."""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence

from metantk_nas.episodes.cache import load_classes
from metantk_nas.episodes.dataset import FewShotDataset, SkippedImage, make_dataset
from metantk_nas.episodes.decode import is_image
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import AbstractTree, open_tree
from metantk_nas.errors import DataError
from metantk_nas.rng import numpy_generator

_ALIASES = {"base": ("base", "train"), "validation": ("validation", "val", "valid"), "novel": ("novel", "test")}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}
_LAYOUT = """expected one directory a class:
    <folder>/<class>/<image>.png   (or .jpg, .bmp, .gif, .tif, .webp; any size, colour or grey)
and, to choose the split yourself, text files with one class a line:
    <folder>/base.txt, <folder>/validation.txt, <folder>/novel.txt"""

Splits = dict[str, dict[str, str]]
"""Per split, the directory of every class by the class's name."""


def load_folder(request: LoadRequest, *, min_classes: int = 5) -> FewShotDataset:
    """Images of any size, colour or grey, from a folder (or zip) with one directory a class.

    Every directory that directly holds images is a class, named by its path. Images are turned upright, cut to
    their centred square and resized. The classes are split

    1. by text files ``base.txt``, ``validation.txt``, ``novel.txt`` (or ``train``, ``val``, ``test``) in the folder,
       one class a line; base is needed, the others may be absent, classes in none of them are left out;
    2. else by directories of these names that hold all the class directories;
    3. else by chance, from the seed: 16 % validation, 20 % novel, at least ``min_classes`` each, the rest base.
       With fewer than ``3 * min_classes`` classes all are base: enough to score architectures, while asking for
       episodes of validation or novel classes is an error.

    Args:
        request: image size, path (as data root), cache directory, seed.
        min_classes: smallest number of classes in a split made by chance.

    Raises:
        DataError: no class directories, or a split that names unknown classes or one class twice.
    """
    if request.data_root is None:
        raise DataError("the data set 'folder' is your own images: give the path of the folder instead of its name.")
    tree = open_tree(request.data_root)
    top, files, stray = images_by_directory(tree)
    splits = _listed(tree, top, files) or _by_directory(files) or _by_chance(files, request.seed, min_classes)
    wanted = [directory for classes in splits.values() for directory in classes.values()]
    bank = load_classes(tree, {name: files[name] for name in wanted}, f"reading {tree.path.name}", request)
    images = {split: {n: bank.images[where] for n, where in classes.items()} for split, classes in splits.items()}
    return make_dataset(tree.path.resolve().stem, images, [*stray, *bank.skipped])


def images_by_directory(tree: AbstractTree) -> tuple[str, dict[str, list[str]], list[SkippedImage]]:
    """The directory that wraps all classes (``""`` or ``"pets/"``), image files by directory in it, and strays."""
    files, stray = defaultdict(list), []
    for name in filter(is_image, tree.names()):
        directory = posixpath.dirname(name)
        if directory:
            files[directory].append(name)
        else:
            stray.append(SkippedImage(name, "it lies outside the class directories"))
    if not files:
        raise DataError(f"{tree.path} has no directories with images in them; {_LAYOUT}")
    shared = posixpath.commonpath(files) if len(files) > 1 else ""
    top = f"{shared}/" if shared else ""
    return top, {directory.removeprefix(top): names for directory, names in files.items()}, stray


def _listed(tree: AbstractTree, top: str, files: Iterable[str]) -> Splits | None:
    """Splits as the text files say; ``None`` if there are none."""
    known, members = set(files), set(tree.names())
    splits: Splits = {split: {} for split in _ALIASES}
    for alias, split in _SPLIT_OF.items():
        name = f"{top}{alias}.txt"
        if name not in members:
            continue
        lines = tree.read(name).decode("utf-8-sig", errors="replace").splitlines()
        classes = [line.strip().rstrip("/") for line in lines if line.strip()]
        unknown = [label for label in classes if label not in known]
        if unknown:
            raise DataError(
                f"{tree.path}: {name} names the class {unknown[0]!r}, but there is no directory of that name with "
                f"images in it ({len(unknown)} of its {len(classes)} classes are missing); mend the list."
            )
        splits[split] |= {label: label for label in classes}
    if not any(splits.values()):
        return None
    if not splits["base"]:
        raise DataError(f"{tree.path} lists validation or novel classes but no base classes; add a base.txt to it.")
    return splits


def _by_directory(files: Iterable[str]) -> Splits | None:
    """Splits as directories such as ``train/<class>`` say; ``None`` if any class lies elsewhere."""
    splits: Splits = {split: {} for split in _ALIASES}
    for directory in files:
        part, _, label = directory.partition("/")
        if part not in _SPLIT_OF or not label:
            return None
        splits[_SPLIT_OF[part]][label] = directory
    return splits


def _by_chance(files: Iterable[str], seed: int, min_classes: int) -> Splits:
    labels: Sequence[str] = sorted(files)
    n_validation, n_novel = (max(min_classes, round(share * len(labels))) for share in (0.16, 0.20))
    if len(labels) < 3 * min_classes:
        n_validation = n_novel = 0
    order = numpy_generator(seed, "folder", "classes").permutation(len(labels))
    ends = {"validation": (0, n_validation), "novel": (n_validation, n_validation + n_novel)}
    ends["base"] = (n_validation + n_novel, len(labels))
    return {split: {labels[i]: labels[i] for i in sorted(order[start:stop])} for split, (start, stop) in ends.items()}
