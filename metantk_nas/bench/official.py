"""The official files of NAS-Bench-201, read without running anything that they hold, and once.

Three forms of one benchmark are understood, all by Dong & Yang (arXiv 2001.00326, 2009.00437):

- a NATS-Bench topology folder: one ``<index>.pickle.pbz2`` an architecture, read one after the other in little memory;
- the same as one ``NATS-tss-*.pickle.pbz2``, and the older ``NAS-Bench-201-*.pth``, which are read as a whole and
  need several times their size in memory.

They are pickles, which `metantk_nas.safe_pickle` reads: text, numbers and containers, nothing else. Neither PyTorch nor
the benchmark's own package takes part.

What is kept is one row an architecture: its accuracies in percent after the last of 12 and of 200 epochs, averaged over
training seeds, on validation and test images. They go to a small CSV in a cache, from which they are read next time.
"""

import bz2
import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metantk_nas.episodes.request import Progress, user_cache
from metantk_nas.errors import UsageError, brief_text
from metantk_nas.results import write_text
from metantk_nas.safe_pickle import BROKEN, safe_load

FORMAT_VERSION = 1  # raise it whenever the small table changes, so that older caches are not read
SUFFIX = ".pickle.pbz2"
MAX_BYTES = 64_000_000  # of one architecture, unpacked; the official ones have 0.3 MB
MAX_MEMORY = 1 << 28  # bytes that reading may take beside what the file's size explains
GROWTH = 16, 256  # bytes of Python objects for a byte of a pickle, and for a byte of a whole compressed benchmark
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file of torch.save before 1.6
EPOCHS = {"12": 12, "less": 12, "200": 200, "full": 200}  # by the name of the training schedule
ACCURACIES = {  # column: (training set, what is judged)
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_test": ("ImageNet16-120", "x-test"),
}


def is_official(path: Path) -> bool:
    """Whether ``path`` looks like one of the three forms."""
    if path.is_dir():
        return any(path.glob(f"*{SUFFIX}"))
    return path.name.endswith((SUFFIX, ".pth"))


def official_table(path: Path, cache_dir: Path | None = None, progress: Progress | None = None) -> pd.DataFrame:
    """Accuracies of every architecture in an official file or folder.

    Args:
        path: a NATS-Bench topology folder, its single file, or a NAS-Bench-201 file.
        cache_dir: where the small table is kept; the user's cache where None. It belongs to the path, sizes and
            modification times of the originals.
        progress: called as ``progress(label, done, total)`` while a folder is read.

    Returns:
        One row an architecture: ``index``, ``arch`` and accuracies in percent such as ``cifar10_test200``.

    Raises:
        UsageError: the files are damaged, are something else, or want to run code.
    """
    files = sorted(path.glob(f"[0-9]*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no architecture; expected files such as 000000{SUFFIX}.")
    cache = (cache_dir or user_cache() / "truth") / f"{path.stem}-{_signature(path, files)}.csv"
    try:
        return pd.read_csv(cache)
    except (OSError, ValueError):
        rows = list(_rows(files, progress))
    if not rows:
        raise UsageError(f"{path} holds no architecture; expected 15,625 of them. Fetch the official file again.")
    table = pd.DataFrame(rows).sort_values("index", ignore_index=True)
    try:
        write_text(cache, table.to_csv(index=False, lineterminator="\n"))
    except UsageError as error:
        warnings.warn(f"the accuracies of {path.name} will be read again next time: {error}", stacklevel=2)
    return table


def _signature(path: Path, files: list[Path]) -> str:
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.blake2b(f"{FORMAT_VERSION}/{path.resolve()}/{facts}".encode(), digest_size=8).hexdigest()


def _rows(files: list[Path], progress: Progress | None) -> Iterator[dict[str, Any]]:
    """Rows of every file; one that cannot be read is named."""
    for done, path in enumerate(files):
        if progress is not None:
            progress("reading the benchmark", done, len(files))
        try:
            yield from map(_row, _architectures(path))
        except BROKEN as error:
            raise UsageError(
                f"{path} cannot be read as NAS-Bench-201 or NATS-Bench (topology): {brief_text(error)}. Nothing in it "
                "was run. Fetch the official file again (github.com/D-X-Y/NATS-Bench; of two folders the one named "
                "-simple)."
            ) from error


def _architectures(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield for each architecture of a file its results by training schedule."""
    content = _read_pth(path) if path.suffix == ".pth" else _read_bz2(path)
    if "arch2infos" in content:
        yield from content["arch2infos"].values()
    else:
        yield content


def _read_bz2(path: Path) -> Any:
    with bz2.open(path) as file:
        if not re.fullmatch(r"\d+", path.name.removesuffix(SUFFIX)):
            return safe_load(file, _most(path))
        unpacked = file.read(MAX_BYTES + 1)
    if len(unpacked) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
    return safe_load(io.BytesIO(unpacked), MAX_MEMORY + GROWTH[0] * len(unpacked))


def _most(path: Path) -> int:
    """How much memory a whole benchmark may take."""
    return MAX_MEMORY + GROWTH[1] * path.stat().st_size


def _read_pth(path: Path) -> Any:
    """Read the pickle in what ``torch.save`` wrote: a zip archive, or since before 1.6 a row of pickles."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(names) != 1:
                raise ValueError("it is no file of torch.save")
            with archive.open(names[0]) as file:
                return safe_load(file, _most(path))
    with path.open("rb") as file:
        if safe_load(file, MAX_MEMORY) != TORCH_MAGIC:
            raise ValueError("it is no file of torch.save")
        _version, _system = safe_load(file, MAX_MEMORY), safe_load(file, MAX_MEMORY)
        return safe_load(file, _most(path))


def _row(schedules: Mapping[str, Any]) -> dict[str, Any]:
    """Mean accuracies of one architecture."""
    states = {EPOCHS[name]: state for name, state in schedules.items() if name in EPOCHS}
    row: dict[str, Any] = {"index": int(states[200]["arch_index"]), "arch": str(states[200]["arch_str"])}
    for epochs, state in sorted(states.items()):
        for column, (trained_on, judged_on) in ACCURACIES.items():
            trainings = [run for (data, _seed), run in state["all_results"].items() if data == trained_on]
            curves, last = [run["eval_acc1es"] for run in trainings], f"{judged_on}@{epochs - 1}"
            found = [float(curve[last]) for curve in curves if last in curve]
            row[f"{column}{epochs}"] = sum(found) / len(found) if found else np.nan
    return row
