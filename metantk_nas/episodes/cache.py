"""Decoded images kept on disk, so that tens of thousands of files are decoded only once."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from metantk_nas.episodes.dataset import SkippedImage
from metantk_nas.episodes.decode import ImageBank, decode_classes
from metantk_nas.episodes.request import LoadRequest, user_cache
from metantk_nas.episodes.source import AbstractSource
from metantk_nas.safe_pickle import BROKEN

FORMAT_VERSION = 1  # raise it whenever decoding changes, so that older caches are not read
DAMAGED = (*BROKEN, TokenError, SyntaxError)
"""What reading arrays raises where the bytes are not what they should be."""


def load_classes(
    source: AbstractSource, files: Mapping[str, Sequence[str]], label: str, request: LoadRequest
) -> ImageBank:
    """The images of every class, from the cache if they were decoded before, else decoded and then cached.

    A cache belongs to path, sizes and modification times of the originals, to the choice of files, the image size
    and the format version; one that is damaged is made anew.

    Args:
        source: where the files are.
        files: per class, the names of its image files.
        label: what progress is reported as.
        request: image size, cache directory and progress.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{FORMAT_VERSION}/{request.image_size}/{source.signature()}/{list(files.items())}".encode())
    path = (request.cache_dir or user_cache() / "images") / f"{source.path.stem}-{digest.hexdigest()}.npz"
    try:
        return _read(path, list(files), request.image_size)
    except DAMAGED:
        bank = decode_classes(source, files, label, request)
    try:
        _write(path, bank)
    except OSError as error:
        warnings.warn(f"decoded images could not be kept in {path.parent}: {error}", stacklevel=2)
    return bank


def _write(path: Path, bank: ImageBank) -> None:
    """Write beside ``path``, then rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                classes=np.array(list(bank.images), dtype=np.str_),
                n_images=np.array([len(images) for images in bank.images.values()], dtype=np.int64),
                pixels=np.concatenate(list(bank.images.values())),
                skipped=np.array([(skip.path, skip.reason) for skip in bank.skipped], dtype=np.str_).reshape(-1, 2),
            )
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _read(path: Path, classes: Sequence[str], image_size: int) -> ImageBank:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        pixels, ends = stored["pixels"], np.cumsum(stored["n_images"])
        if pixels.dtype != np.uint8 or pixels.shape[1:] not in [(image_size, image_size, n) for n in (1, 3)]:
            raise ValueError(f"its pixels are {pixels.dtype} {list(pixels.shape)}")
        if stored["classes"].tolist() != list(classes) or (stored["n_images"] < 0).any() or ends[-1] != len(pixels):
            raise ValueError("its classes are other ones, or not as large as it says")
        images = dict(zip(classes, np.split(pixels, ends[:-1]), strict=True))
        return ImageBank(images, tuple(SkippedImage(*row) for row in stored["skipped"].tolist()))
