import io

import numpy as np
import pytest
from PIL import Image

from metantk_nas.episodes.decode import decode_image
from tests.episodes.images import encode, noise


def ramp(width: int, height: int) -> Image.Image:
    """Brightness grows from left to right."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None], height, axis=0))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_lossless_formats_keep_their_pixels(kind: str) -> None:
    image = noise(8, 8)
    np.testing.assert_array_equal(decode_image(encode(image, kind), 8).mean(axis=-1), np.asarray(image))


def test_lossy_formats_are_read() -> None:
    for kind in ("JPEG", "WEBP"):
        decoded = decode_image(encode(ramp(16, 16).convert("RGB"), kind, quality=95), 16)
        assert decoded.shape == (16, 16, 3)
        assert np.abs(decoded[..., 0].astype(int) - np.asarray(ramp(16, 16))).max() < 20


@pytest.mark.parametrize(("mode", "n_channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_grey_stays_grey_and_colour_colour(mode: str, n_channels: int) -> None:
    assert decode_image(encode(noise(9, 9, 3).convert(mode)), 4).shape == (4, 4, n_channels)


def test_print_colours_become_screen_colours() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode_image(encode(red, "TIFF"), 4)[0, 0].tolist() == [255, 0, 0]


def test_the_largest_centred_square_is_kept() -> None:
    stripes = Image.fromarray(np.repeat(np.array([[0, 0, 100, 100, 100, 100, 255, 255]], np.uint8), 4, axis=0))
    assert np.unique(decode_image(encode(stripes), 4)).tolist() == [100]
    assert np.unique(decode_image(encode(stripes.rotate(90, expand=True)), 4)).tolist() == [100]


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    decoded = decode_image(encode(Image.fromarray(checks.astype(np.uint8))), 8)
    assert np.abs(decoded.astype(int) - 127).max() < 8


def test_large_photographs_are_read_at_a_fraction_but_look_the_same() -> None:
    small = decode_image(encode(ramp(1600, 1200).convert("RGB"), "JPEG"), 16)
    exact = decode_image(encode(ramp(1600, 1200).convert("RGB")), 16)
    assert np.abs(small.astype(int) - exact).max() <= 3


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 257 * 100], [65406, 65535]], np.uint16)
    assert decode_image(encode(Image.fromarray(levels)), 2)[..., 0].tolist() == [[0, 100], [254, 255]]
    assert decode_image(encode(Image.fromarray(levels), "TIFF"), 2)[..., 0].tolist() == [[0, 100], [254, 255]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=r"unknown range .* 8 or 16 bits"):
        decode_image(encode(noise(4, 4).convert(mode), "TIFF"), 4)


def test_transparency_shows_white_paper() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    decoded = decode_image(encode(image), 4)
    assert decoded[0, 0].tolist() == [0, 0, 255]
    assert decoded[1, 1].tolist() == [255, 255, 255]


def test_a_transparent_palette_colour_shows_white_paper() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    decoded = decode_image(encode(image, transparency=0), 4)
    assert decoded[0, 0].tolist() == [0, 255, 0]
    assert decoded[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_photographs_are_turned_upright(kind: str) -> None:
    """Orientation 6: the camera was held so that the picture must be turned clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encode(ramp(16, 16), kind, exif=exif), 16)[..., 0].astype(int)
    assert (np.diff(decoded.mean(axis=1)) > 0).all(), "what was left is now on top"


def test_damaged_files_are_errors() -> None:
    whole = encode(noise(40, 40, 3))
    for content in (b"", b"text", whole[:-300], whole[:20]):
        with pytest.raises(OSError, match=r"(?i)cannot identify|truncated"):
            decode_image(content, 8)


def test_an_image_of_absurd_size_is_refused_before_it_fills_memory() -> None:
    stream = io.BytesIO(encode(Image.new("1", (4, 4)), "BMP"))
    bomb = bytearray(stream.getvalue())
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(Image.DecompressionBombError):
        decode_image(bytes(bomb), 8)
