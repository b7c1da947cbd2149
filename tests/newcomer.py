"""What a newcomer brings: a folder of photographs as they lie about, the same as a zip, and others to be labelled.

Classes are characters that the program draws itself, each in ink and on paper of about its own colours, so that whoever
learns from the images is far above chance. ``python -m tests.newcomer FOLDER 5000`` writes them.
"""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from metantk_nas.episodes.dataset import Images
from metantk_nas.episodes.glyphs import load_glyphs
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.rng import numpy_generator
from tests.episodes.images import encode, write_folder, write_zip

NAMES = (
    "daisy", "poppy red", "Gänseblümchen", "桜", "Été à Paris", "birds/owl", "birds/night owl", "birds/sea/gull",
    "C++ [draft]", "100% wool", "com,ma", "it's", "-dash", "=sum", "[bold]", "café", "Σ", "été/olive",
)  # fmt: skip
"""Names that some program or other trips over."""

JUNK = {
    "photos/readme.txt": b"my photographs",
    "photos/Thumbs.db": b"\xd0\xcf\x11\xe0",
    "photos/.DS_Store": b"\0\0\0\1Bud1",
    "photos/daisy/.hidden.jpg": b"hidden",
    "photos/daisy/notes.txt": b"not an image",
    "photos/daisy/phone.heic": b"\0\0\0\x18ftypheic",
    "photos/daisy/film.mov": b"\0\0\0\x14ftypqt  ",
    "photos/daisy/backup.zip": b"PK\x05\x06" + bytes(18),
    "__MACOSX/photos/daisy/._1.jpg": b"\0\5\x16\7",
}
"""Files that are no images and say so by their names."""

BROKEN = {
    "photos/daisy/empty.png": b"",
    "photos/daisy/page.jpg": b"<html>404 not found</html>",
    "photos/birds/owl/noise.gif": b"GIF89a" + bytes(range(200)),
    "photos/stray.png": encode(Image.new("L", (20, 20))),
}
"""Files that say they are images, and one image outside all classes; a torn one is made of a whole one."""

TINY = {"one only": 1, "three only": 3}
"""Classes with too few images for most episodes."""

N_NEW, N_LABELLED = 8, 5
_DRAWN = 48  # pixels per side of a drawing before it is put into a picture


@dataclass(frozen=True)
class Belongings:
    """Where everything lies.

    Args:
        photos: a folder with one directory a class, in all the ways that people have images.
        archive: the same as a zip.
        labelled: a handful of images of each of `N_NEW` further classes, one directory a class.
        unlabelled: others of these classes, in no order.
        truth: class of every readable file in ``unlabelled``, by its path in there.
    """

    photos: Path
    archive: Path
    labelled: Path
    unlabelled: Path
    truth: dict[str, str]


def write_belongings(folder: Path, n_images: int, *, n_unlabelled: int = 40, seed: int = 0) -> Belongings:
    """Write ``n_images`` photographs of at least eighteen classes, the largest with ten times as many as the smallest.

    Args:
        folder: where to write.
        n_images: readable images in ``photos``, but for duplicates; at least 100.
        n_unlabelled: images to be labelled.
        seed: of everything.
    """
    counts = class_sizes(n_images, n_classes=min(60, max(len(NAMES), n_images // 60)))
    n_each = N_LABELLED + n_unlabelled // N_NEW
    drawings = iter(_drawings(len(counts) + N_NEW, max(n_each, *counts.values()), seed))
    files = {
        name: content
        for (label, count), images in zip(counts.items(), drawings, strict=False)
        for name, content in _pictures(f"photos/{label}", images[:count], seed)
    }
    files |= JUNK | BROKEN | _accidents(files)
    new: dict[str, bytes] = {}
    truth: dict[str, str] = {}
    for index, images in enumerate(drawings):
        pictures = list(_pictures(label := f"new class {index}", images[:n_each], seed))
        new |= {f"labelled/{name}": content for name, content in pictures[:N_LABELLED]}
        for name, content in pictures[N_LABELLED:]:
            where = f"{'more/' * (index % 2)}IMG {numpy_generator(seed, name).integers(10**8):08d}{Path(name).suffix}"
            new[f"unlabelled/{where}"] = content
            truth[where] = label
    new["unlabelled/torn.jpg"] = new[f"unlabelled/{next(iter(truth))}"][:150]
    write_folder(folder, files | new)
    archive = write_zip(folder / "photos.zip", files)
    return Belongings(folder / "photos", archive, folder / "labelled", folder / "unlabelled", truth)


def class_sizes(n_images: int, n_classes: int) -> dict[str, int]:
    """Images of every class: two tiny ones, and the rest spread evenly in logarithm over a factor of ten."""
    weights = np.geomspace(1, 10, n_classes)[numpy_generator(0, "newcomer", "sizes").permutation(n_classes)]
    sizes = np.maximum(5, weights / weights.sum() * (n_images - sum(TINY.values()))).round().astype(int)
    names = [*NAMES, *(f"flowers/kind {index}" for index in range(n_classes - len(NAMES)))]
    return TINY | dict(zip(names, sizes.tolist(), strict=True))


def _drawings(n_classes: int, n_drawings: int, seed: int) -> tuple[Images, ...]:
    """Drawings of each character, ink = 255, uint8 ``[drawing, height, width, 1]``."""
    request = LoadRequest(_DRAWN, seed=seed)
    return load_glyphs(request, n_base=n_classes, n_validation=0, n_novel=0, n_drawings=n_drawings).base.images


def _pictures(where: str, drawings: Images, seed: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of image files, one a drawing, most as usual and some not."""
    dice = numpy_generator(seed, where, "colours")
    colours = np.stack([dice.integers(0, 130, 3), dice.integers(160, 256, 3)])
    for index, drawing in enumerate(drawings):
        rng = numpy_generator(seed, where, index)
        kind = rng.choice(len(KINDS), p=_SHARES)
        suffix, save = KINDS[kind][1:]
        yield f"{where}/{index}{suffix}", save(*_painted(drawing[..., 0], colours, rng))


def _painted(drawing: Images, colours: Images, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """A drawing in ink on paper of about these colours ``[2, 3]``, of any size and shape; and where the ink is."""
    side = int(np.exp(rng.uniform(np.log(24), np.log(500))))
    size = (side, round(side * rng.uniform(1, 1.6)))[:: rng.choice([1, -1])]
    ink, paper = np.clip(colours + rng.normal(0, 20, (2, 3)), 0, 255).astype(int)
    texture = Image.fromarray(np.clip(paper + rng.normal(0, 12, (12, 12, 3)), 0, 255).astype(np.uint8))
    image = texture.resize(size, Image.Resampling.BICUBIC)
    mask = Image.new("L", size)
    mask.paste(Image.fromarray(drawing).resize((side, side)), ((size[0] - side) // 2, (size[1] - side) // 2))
    image.paste(tuple(ink.tolist()), mask=mask)
    return image, mask


def _jpeg(image: Image.Image, _: Image.Image) -> bytes:
    return encode(image, "JPEG", quality=85)


def _as(mode: str, kind: str) -> Callable[[Image.Image, Image.Image], bytes]:
    return lambda image, _: encode(image.convert(mode), kind)


def _turned(orientation: int, way: Image.Transpose) -> Callable[[Image.Image, Image.Image], bytes]:
    """Stored as the camera was held; EXIF says how to turn it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda image, _: encode(image.transpose(way), "JPEG", exif=exif)


def _cut_out(_: Image.Image, mask: Image.Image) -> bytes:
    """Dark ink on nothing."""
    image = Image.new("RGBA", mask.size, (30, 20, 60, 255))
    image.putalpha(mask)
    return encode(image)


def _faint(image: Image.Image, mask: Image.Image) -> bytes:
    """Grey with transparency: all is there, but for a corner."""
    grey = image.convert("LA")
    grey.putalpha(Image.new("L", mask.size, 255))
    grey.putpixel((0, 0), (0, 0))
    return encode(grey)


def _sixteen(kind: str) -> Callable[[Image.Image, Image.Image], bytes]:
    return lambda image, _: encode(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), kind)


def _animated(image: Image.Image, _: Image.Image) -> bytes:
    stream = io.BytesIO()
    black = Image.new("RGB", image.size)
    image.save(stream, "GIF", save_all=True, append_images=[black, image], duration=100)
    return stream.getvalue()


KINDS = (
    (50, ".jpg", _jpeg),
    (10, ".JPG", _jpeg),
    (10, ".png", _as("RGB", "PNG")),
    (4, ".jpeg", _as("L", "JPEG")),
    (3, ".webp", _as("RGB", "WEBP")),
    (3, ".bmp", _as("RGB", "BMP")),
    (3, ".png", _as("P", "PNG")),
    (3, ".png", _cut_out),
    (2, ".png", _faint),
    (2, ".png", _sixteen("PNG")),
    (2, ".tif", _sixteen("TIFF")),
    (2, ".jpg", _turned(3, Image.Transpose.ROTATE_180)),
    (2, ".jpg", _turned(6, Image.Transpose.ROTATE_90)),
    (1, ".jpg", _turned(8, Image.Transpose.ROTATE_270)),
    (2, ".jpg", _as("CMYK", "JPEG")),
    (1, ".gif", _animated),
)
"""Images of every kind in a hundred, how their files end, and how they are written."""

_SHARES = [share / 100 for share, _, _ in KINDS]


def _accidents(files: dict[str, bytes]) -> dict[str, bytes]:
    """A torn file, an image that is there twice, and one that is in two classes."""
    whole = next(content for name, content in files.items() if name.endswith(".jpg") and len(content) > 3000)
    first, second = (next(name for name in files if name.startswith(f"photos/{label}/")) for label in NAMES[:2])
    return {
        "photos/daisy/torn.jpg": whole[: len(whole) // 2],
        f"photos/daisy/copy of 0{Path(first).suffix}": files[first],
        f"photos/daisy/wrong label{Path(second).suffix}": files[second],
    }


if __name__ == "__main__":
    found = write_belongings(Path(sys.argv[1]), int(sys.argv[2]), n_unlabelled=400)
    lines = [f"{name}\t{label}" for name, label in found.truth.items()]
    (Path(sys.argv[1]) / "truth.tsv").write_text("\n".join(lines), encoding="utf-8")
