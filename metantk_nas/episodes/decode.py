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
from metantk_nas.episodes.source import AbstractSource
from metantk_nas.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_GREY_MODES = {"1", "L", "LA", "La"}
MAX_PIXELS = 1 << 26
"""Of one image as it is decoded: a few bytes may stand for a gigabyte. Large JPEGs are decoded at a fraction."""
_ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 5 to 8 have width and height swapped
_PNG_DEPTH = 24  # where a PNG file says how many bits a channel has
UNREADABLE = (
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


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is, before it is decoded.

    Args:
        width: in pixels, of the upright image.
        height: in pixels, of the upright image.
        grey: whether it has no colour.
        alpha: whether parts of it may be transparent.
        sixteen_bit: whether its channels have 16 bits.
        rotated: whether its EXIF orientation says that it does not lie upright.
        several: whether it holds more than one picture; the first is taken.
    """

    width: int
    height: int
    grey: bool
    alpha: bool
    sixteen_bit: bool
    rotated: bool
    several: bool


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return name.lower().endswith(SUFFIXES)


def decode_classes(
    source: AbstractSource, files: Mapping[str, Sequence[str]], label: str, request: LoadRequest
) -> ImageBank:
    """Decode the images of every class; all become colour as soon as one is.

    Args:
        source: where the files are.
        files: per class, the names of its image files.
        label: what progress is reported as.
        request: image size and progress.
    """
    total, done = sum(map(len, files.values())), 0
    images: dict[str, list[Images]] = {name: [] for name in files}
    skipped: list[SkippedImage] = []
    for class_name, names in files.items():
        for name in names:
            decoded = _decode_or_reason(source, name, request.image_size)
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
        ValueError: pixels are 32-bit numbers, whose range is not known, or there are more than `MAX_PIXELS`.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # large JPEGs are decoded at a fraction of their size
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width:,} x {image.height:,} pixels; expected {MAX_PIXELS:,} at most")
        ImageOps.exif_transpose(image, in_place=True)
        plain = _to_eight_bits(image)
    if plain.size != (image_size, image_size):
        plain = ImageOps.fit(plain, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(plain).reshape(image_size, image_size, -1)


def describe_image(content: bytes) -> ImageFacts:
    """Say what one image file is, from its header.

    Raises:
        OSError and others: Pillow cannot read it.
    """
    with Image.open(io.BytesIO(content)) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size if orientation < 5 else image.size[::-1]
        grey_numbers = image.mode.startswith("I")
        return ImageFacts(
            width=width,
            height=height,
            grey=grey_numbers or image.mode in _GREY_MODES,
            alpha=_has_alpha(image),
            sixteen_bit=grey_numbers or (image.format == "PNG" and content[_PNG_DEPTH] == 16),
            rotated=orientation > 1,
            several=getattr(image, "is_animated", False),
        )


def _has_alpha(image: Image.Image) -> bool:
    return bool({"A", "a"} & set(image.getbands())) or "transparency" in image.info


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L (grey) or RGB."""
    if image.mode in {"I", "F"} and image.format != "PNG":
        raise ValueError(f"its pixels are 32-bit numbers of unknown range (mode {image.mode}); save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257 + 0.5).astype(np.uint8))
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if _has_alpha(image):
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(mode)


def _decode_or_reason(source: AbstractSource, name: str, image_size: int) -> Images | SkippedImage:
    try:
        return decode_image(source.read(name), image_size)
    except DataError:  # the whole source is broken, not this image
        raise
    except UnidentifiedImageError:  # its own words name a place in memory
        return SkippedImage(name, "it is no image, or damaged at its beginning")
    except UNREADABLE as error:
        return SkippedImage(name, f"{type(error).__name__}: {error}")


def _stack(images: Sequence[Images], image_size: int, n_channels: int) -> Images:
    stacked = np.empty((len(images), image_size, image_size, n_channels), np.uint8)
    for row, image in enumerate(images):
        stacked[row] = image  # a grey image fills all three channels
    return stacked
