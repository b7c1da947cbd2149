"""Your own images: a folder (or zip archive) with one directory a class."""

import csv
import posixpath
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from metantk_nas.episodes.dataset import SkippedImage
from metantk_nas.episodes.decode import is_image
from metantk_nas.episodes.originals import Files, Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import AbstractTree, open_tree
from metantk_nas.errors import DataError
from metantk_nas.rng import numpy_generator

_ALIASES = {"base": ("base", "train"), "validation": ("validation", "val", "valid"), "novel": ("novel", "test")}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}
_LAYOUT = """expected one directory a class:
    <folder>/<class>/<image>.png   (or .jpg, .bmp, .gif, .tif, .webp; any size, colour or grey)
and, to choose the split yourself, text files with one class a line:
    <folder>/base.txt, <folder>/validation.txt, <folder>/novel.txt
or tables train.csv, val.csv, test.csv with lines "filename,label" and the images in <folder>/images"""

Splits = dict[str, dict[str, str]]
"""Per split, the directory of every class by the class's name."""


def find_folder(request: LoadRequest, *, min_classes: int = 5) -> Originals:
    """Images of any size, colour or grey, from a folder (or zip) with one directory a class.

    Every directory that directly holds images is a class, named by its path. Images are turned upright, cut to
    their centred square and resized. The classes are split

    1. by tables ``train.csv``, ``val.csv``, ``test.csv`` (or ``base``, ``validation``, ``novel``) in the folder or in
       its directory ``split``, one image a line, ``filename,label``, with files in the folder or in its directory
       ``images``: the form of Ravi & Larochelle's split of miniImageNet;
    2. else by text files ``base.txt``, ``validation.txt``, ``novel.txt`` (or ``train``, ``val``, ``test``) in the
       folder, one class a line; base is needed, the others may be absent, classes in none of them are left out;
    3. else by directories of these names that hold all the class directories;
    4. else by chance, from the seed: 16 % validation, 20 % novel, at least ``min_classes`` each, the rest base.
       With fewer than ``3 * min_classes`` classes all are base: enough to score architectures, while asking for
       episodes of validation or novel classes is an error.

    Args:
        request: image size, path (as data root), cache directory, seed.
        min_classes: smallest number of classes in a split made by chance.

    Raises:
        DataError: no class directories, or a split that names unknown classes or files, or one class twice.
    """
    if request.data_root is None:
        raise DataError("the data set 'folder' is your own images: give the path of the folder instead of its name.")
    tree = open_tree(request.data_root)
    name = tree.path.resolve().stem
    if tabled := _tabled(tree):
        return Originals(name, tree, tabled)
    top, files, stray = images_by_directory(tree)
    splits = _listed(tree, top, files) or _by_directory(files)
    if splits is None:
        chosen = split_by_chance(files, request.seed, min_classes)
        splits = {split: {label: label for label in labels} for split, labels in chosen.items()}
    named = {split: {label: files[where] for label, where in classes.items()} for split, classes in splits.items()}
    return Originals(name, tree, named, tuple(stray), _passed_over(tree))


def split_by_chance(labels: Iterable[str], seed: int, min_classes: int) -> dict[str, list[str]]:
    """Draw validation and novel classes: 16 % and 20 %, at least ``min_classes`` each, where there are enough."""
    ordered: Sequence[str] = sorted(labels)
    n_validation, n_novel = (max(min_classes, round(share * len(ordered))) for share in (0.16, 0.20))
    if len(ordered) < 3 * min_classes:
        n_validation = n_novel = 0
    order = numpy_generator(seed, "folder", "classes").permutation(len(ordered))
    ends = {"validation": (0, n_validation), "novel": (n_validation, n_validation + n_novel)}
    ends["base"] = (n_validation + n_novel, len(ordered))
    return {split: [ordered[i] for i in sorted(order[start:stop])] for split, (start, stop) in ends.items()}


def images_by_directory(tree: AbstractTree) -> tuple[str, dict[str, list[str]], list[SkippedImage]]:
    """The directory that wraps all classes (``""`` or ``"pets/"``), image files by directory in it, and strays."""
    files = defaultdict(list)
    for name in filter(is_image, tree.names()):
        files[posixpath.dirname(name)].append(name)
    outside = files.pop("", [])
    if not files:
        raise DataError(f"{tree.path} has no directories with images in them; {_LAYOUT}")
    shared = posixpath.commonpath(files) if len(files) > 1 else ""
    outside += files.pop(shared, [])
    stray = [SkippedImage(name, "it lies outside the class directories") for name in outside]
    top = f"{shared}/" if shared else ""
    return top, {directory.removeprefix(top): names for directory, names in files.items()}, stray


def _passed_over(tree: AbstractTree) -> Mapping[str, int]:
    """Count what is neither an image nor a list of classes, by how the names end."""
    names = map(PurePosixPath, tree.names())
    lists = {f"{alias}.txt" for alias in _SPLIT_OF}
    ends = (path.suffix.lower() or path.name for path in names if path.name not in lists)
    return dict(Counter(end for end in ends if not is_image(end)))


def _tabled(tree: AbstractTree) -> Files | None:
    """Splits as tables of files and labels say; ``None`` if there is none of base classes."""
    members = tree.names()
    known, files = set(members), {}
    for name in members:
        split = _SPLIT_OF.get(posixpath.basename(name).removesuffix(".csv"))
        if split and name.endswith(".csv") and (rows := _table_rows(tree, name)):
            top = posixpath.dirname(name)
            files[split] = _labelled(
                f"{tree.path}: {name}",
                rows,
                posixpath.dirname(top) if posixpath.basename(top) == "split" else top,
                known,
            )
    return files if "base" in files else None


def _table_rows(tree: AbstractTree, name: str) -> list[list[str]]:
    """Lines ``filename,label`` of a table, without its header; none where the header is another one."""
    try:
        rows = [row for row in csv.reader(tree.read_text(name).splitlines()) if row]
    except csv.Error:
        return []
    return rows[1:] if rows[:1] == [["filename", "label"]] else []


def _labelled(where: str, rows: Sequence[Sequence[str]], top: str, known: Container[str]) -> dict[str, list[str]]:
    """Files by class."""
    classes, missing = defaultdict(list), []
    for file, label in ((row[0].strip(), row[-1].strip()) for row in rows):
        places = [posixpath.join(top, "images", file), posixpath.join(top, file)]
        found = next((place for place in places if place in known), None)
        if found is None:
            missing.append(file)
        else:
            classes[label].append(found)
    if missing:
        raise DataError(
            f"{where} names the file {missing[0]!r}, which is neither beside it nor in images/ ({len(missing)} of its "
            f"{len(rows)} files are missing); mend the table or add the files."
        )
    return dict(classes)


def _listed(tree: AbstractTree, top: str, files: Iterable[str]) -> Splits | None:
    """Splits as the text files say; ``None`` if there are none."""
    known, members = set(files), set(tree.names())
    splits: Splits = {split: {} for split in _ALIASES}
    for alias, split in _SPLIT_OF.items():
        name = f"{top}{alias}.txt"
        if name not in members:
            continue
        lines = tree.read_text(name).splitlines()
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
