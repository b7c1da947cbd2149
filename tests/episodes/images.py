"""Small image files for the tests of the episodes floor."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metantk_nas.rng import numpy_generator

DATA_MISSING = "the shared data folder is absent; METANTK_DATA names another"


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> Image.Image:
    """An image of random pixels, ``[height, width]`` or ``[height, width, 3]``."""
    return Image.fromarray(numpy_generator(seed, "noise").integers(0, 256, shape, dtype=np.uint8))


def class_files(n_classes: int, n_images: int = 6, *, prefix: str = "class", colour: bool = False) -> dict[str, bytes]:
    """Files of a folder with one directory a class, all images different."""
    shape = (10, 14, 3) if colour else (10, 14)
    return {
        f"{prefix}{label:02d}/image{index}.png": encode(noise(*shape, seed=1000 * label + index))
        for label in range(n_classes)
        for index in range(n_images)
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
