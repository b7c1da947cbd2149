"""Image data sets of the Hugging Face hub, or saved ones, through the package ``datasets`` (extra ``hf``)."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metantk_nas.episodes.folder import split_by_chance
from metantk_nas.episodes.originals import Originals
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.source import RowSource
from metantk_nas.errors import DataError, unknown_name

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:"
"""What the name of such a data set begins with."""

_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves behind


def read_reference(text: str) -> dict[str, Any]:
    """Read ``hf:NAME,config=…,image=…,label=…`` as options of :func:`find_hugging_face`.

    Raises:
        DataError: no name, or a part that is no ``option=value``.
    """
    name, *rest = text.removeprefix(PREFIX).split(",")
    pairs = [part.partition("=") for part in rest]
    if not name or not all(equals and value for _, equals, value in pairs):
        raise DataError(f"{text!r} names no data set; expected for example hf:uoft-cs/cifar100,label=coarse_label.")
    return {"name": name, **{option.strip(): value.strip() for option, _, value in pairs}}


def find_hugging_face(
    request: LoadRequest,
    *,
    name: str = "",
    config: str | None = None,
    image: str = "",
    label: str = "",
    min_classes: int = 5,
) -> Originals:
    """All labelled images of a data set; classes are split by chance, as those of a folder are.

    The parts that a data set comes in (``train``, ``test``, …) hold the same classes, so their images are joined.
    Rows without a label are left out. Programs inside a data set are not run: ``datasets`` 4 and later have no way to.

    Args:
        request: image size, cache directory, seed.
        name: name on the hub, or path of a folder that ``save_to_disk`` wrote or ``load_dataset`` reads.
        config: which of its configurations, where it has several.
        image: column of the images; the first that holds images where empty.
        label: column of the labels; the first that holds classes where empty.
        min_classes: smallest number of classes in a split.

    Raises:
        DataError: the package is missing, the data set cannot be loaded, or has no such columns.
    """
    if not name:
        raise DataError("the data set 'hf' needs a name or a path: hf:NAME, for example hf:uoft-cs/cifar100.")
    parts = _load_parts(name, config, offline=not request.download)
    rows: dict[str, Any] = {}
    classes: dict[str, list[str]] = defaultdict(list)
    for part, table in parts.items():
        image_column, label_column = _image_column(name, table, image), _label_column(name, table, label)
        for row, class_name in enumerate(_labels(table, label_column)):
            if class_name is not None:
                classes[class_name].append(f"{part}/{row}")
        rows[part] = _Encoded(table, image_column)
    chosen = split_by_chance(classes, request.seed, min_classes)
    files = {split: {label: classes[label] for label in labels} for split, labels in chosen.items()}
    stem = name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]
    return Originals(stem, RowSource(Path(stem), rows, _signature(name, config, image, parts)), files)


class _Encoded:
    """Gives the image of a row as the file that it was."""

    def __init__(self, table: "Dataset", column: str) -> None:
        from datasets import Image  # noqa: PLC0415 - the extra 'hf'

        self._table = table.select_columns([column]).cast_column(column, Image(decode=False))
        self._column = column

    def __call__(self, row: int) -> bytes:
        image = self._table[row][self._column]
        if image is None:
            raise LookupError("this row has no image")
        content: bytes = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        return content


def _load_parts(name: str, config: str | None, *, offline: bool) -> Mapping[str, "Dataset"]:
    """The parts of a data set by name."""
    try:
        import datasets  # noqa: PLC0415 - the extra 'hf'
    except ImportError as error:
        raise DataError(
            f"hf:{name} needs the package datasets, which is not installed; pip install 'metantk-nas[hf]'."
        ) from error
    try:
        if any((Path(name) / file).is_file() for file in _SAVED):
            found = datasets.load_from_disk(name)
        else:
            how = datasets.DownloadConfig(local_files_only=offline)
            found = datasets.load_dataset(name, config, download_config=how)
    except Exception as error:  # hub, network and file formats raise what their many packages please
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"hf:{name} could not be loaded: {reason[0]} Expected a name of huggingface.co/datasets "
            "(hf:owner/name,config=… where it has several configurations) or the path of a saved data set."
        ) from error
    return found if isinstance(found, dict) else {"all": found}


def _image_column(name: str, table: "Dataset", asked: str) -> str:
    from datasets import Image  # noqa: PLC0415 - the extra 'hf'

    found = [column for column, kind in table.features.items() if isinstance(kind, Image)]
    if asked and asked not in found:
        raise unknown_name(f"image column of hf:{name}", asked, found, DataError)
    if not found:
        raise DataError(f"hf:{name} has no column of images; its columns: {_columns(table)}.")
    return asked or found[0]


def _label_column(name: str, table: "Dataset", asked: str) -> str:
    from datasets import ClassLabel  # noqa: PLC0415 - the extra 'hf'

    if asked and asked not in table.features:
        raise unknown_name(f"label column of hf:{name}", asked, table.features, DataError)
    found = [column for column, kind in table.features.items() if isinstance(kind, ClassLabel)]
    found += [column for column in ("label", "labels", "class") if column in table.features]
    if not asked and not found:
        raise DataError(
            f"hf:{name} has no column of classes; its columns: {_columns(table)}. Name one: hf:{name},label=COLUMN."
        )
    return asked or found[0]


def _columns(table: "Dataset") -> str:
    return ", ".join(f"{column} ({type(kind).__name__})" for column, kind in table.features.items())


def _labels(table: "Dataset", column: str) -> Iterator[str | None]:
    """Yield the class of every row as text; ``None`` where there is none."""
    kind = table.features[column]
    names = getattr(kind, "names", None)
    for value in table.with_format(None)[column]:
        if value is None or (names and value < 0):
            yield None
        else:
            yield names[value] if names else str(value)


def _signature(name: str, config: str | None, image: str, parts: Mapping[str, "Dataset"]) -> str:
    """Hash of what was asked for, and of the files that hold the rows."""
    digest = hashlib.blake2b(f"{name}/{config}/{image}".encode(), digest_size=16)
    for part, table in parts.items():
        files = [Path(file["filename"]) for file in table.cache_files]
        facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest.update(f"{part}/{table.num_rows}/{facts}".encode())
    return digest.hexdigest()
