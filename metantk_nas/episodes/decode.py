"""Image files into uint8 arrays of one size, class by class; a file that cannot be read is reported, not fatal."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metantk_nas.episodes.dataset import Images, SkippedImage
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.tree import AbstractTree

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_GREY_MODES = {"1", "L", "LA", "La"}
_UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # all that reading archives and Pillow's decoders raise on damaged bytes; MemoryError is not among them


@dataclass(frozen=True, eq=False)
class ImageBank:
    """Decoded images by class name, with the files that could not be decoded."""

    images: Mapping[str, Images]
    skipped: tuple[SkippedImage, ...]

    def select(self, classes: Sequence[str]) -> dict[str, Images]:
        """The images of some classes, in the order asked for."""
        return {name: self.images[name] for name in classes}


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return name.lower().endswith(SUFFIXES)


def decode_classes(
    tree: AbstractTree, files: Mapping[str, Sequence[str]], label: str, request: LoadRequest
) -> ImageBank:
    """Decode the images of every class; all become colour as soon as one is.

    Args:
        tree: where the files are.
        files: per class, the names of its image files.
        label: what progress is reported as.
        request: image size and progress.
    """
    total, done = sum(map(len, files.values())), 0
    images: dict[str, list[Images]] = {name: [] for name in files}
    skipped: list[SkippedImage] = []
    for class_name, names in files.items():
        for name in names:
            decoded = _decode_or_reason(tree, name, request.image_size)
            if isinstance(decoded, SkippedImage):
                skipped.append(decoded)
            else:
                images[class_name].append(decoded)
            done += 1
            request.report(label, done, total)
    n_channels = max((image.shape[-1] for some in images.values() for image in some), default=1)
    return ImageBank(
        {name: _stack(some, request.image_size, n_channels) for name, some in images.items()}, tuple(skipped)
    )


def decode_image(content: bytes, image_size: int) -> Images:
    """One image file as uint8 ``[height, width, channel]``: 1 channel if it is stored as grey, else 3.

    Turned upright by its EXIF orientation, 16-bit grey scaled down to 8, transparency laid on white, the largest
    centred square cut out and resized with antialiasing.

    Raises:
        OSError and others: Pillow cannot read it.
        ValueError: pixels are 32-bit numbers, whose range is not known.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # large JPEGs are decoded at a fraction of their size
        ImageOps.exif_transpose(image, in_place=True)
        plain = _to_eight_bits(image)
    if plain.size != (image_size, image_size):
        plain = ImageOps.fit(plain, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(plain).reshape(image_size, image_size, -1)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L (grey) or RGB."""
    if image.mode in {"I", "F"} and image.format != "PNG":
        raise ValueError(f"its pixels are 32-bit numbers of unknown range (mode {image.mode}); save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257 + 0.5).astype(np.uint8))
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(mode)


def _decode_or_reason(tree: AbstractTree, name: str, image_size: int) -> Images | SkippedImage:
    try:
        return decode_image(tree.read(name), image_size)
    except UnidentifiedImageError:  # its own words name a place in memory
        return SkippedImage(name, "it is no image, or damaged at its beginning")
    except _UNREADABLE as error:
        return SkippedImage(name, f"{type(error).__name__}: {error}")


def _stack(images: Sequence[Images], image_size: int, n_channels: int) -> Images:
    stacked = np.empty((len(images), image_size, image_size, n_channels), np.uint8)
    for row, image in enumerate(images):
        stacked[row] = image  # a grey image fills all three channels
    return stacked
