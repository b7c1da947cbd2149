"""``datasets check`` tells of every ugly case what it sees, and what it says is what the data set then gives."""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from metantk_nas.cli.app import app
from metantk_nas.episodes.check import DatasetCheck, check_dataset
from metantk_nas.episodes.decode import ImageFacts, decode_image, describe_image
from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.episodes.images import class_files, encode, noise, write_folder
from tests.episodes.test_cub import write_cub
from tests.episodes.test_pickled_sets import write_fc100, write_tiered


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def sixteen_bits(*shape: int) -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, shape[0] * shape[1]).reshape(shape).astype(np.uint16))


UGLY = {
    "class00/grey.png": encode(noise(40, 20)),
    "class00/alpha.png": encode(noise(30, 30, 3).convert("RGBA")),
    "class00/grey_alpha.png": encode(noise(10, 10, 3).convert("LA")),
    "class01/sixteen.png": encode(sixteen_bits(12, 12)),
    "class01/sixteen.tif": encode(sixteen_bits(12, 12), "TIFF"),
    "class02/rotated.jpg": encode(noise(20, 50, 3), "JPEG", exif=exif(6)),
    "class02/mirrored.png": encode(noise(10, 10, 3), exif=exif(2)),
    "class03/bitmap.bmp": encode(noise(9, 9).convert("1"), "BMP"),
    "class03/palette.gif": encode(noise(9, 9, 3).convert("P"), "GIF"),
    "class03/moving.gif": encode(noise(9, 9, 3), "GIF", save_all=True, append_images=[noise(9, 9, 3, seed=1)]),
    "class03/print.tif": encode(noise(9, 9, 3).convert("CMYK"), "TIFF"),
}
"""Eleven images that not every program reads."""

OTHERS = dict.fromkeys(
    ("readme.txt", "class00/phone.heic", "class01/phone.HEIC", "class01/Thumbs"), b"no image by name"
)

DAMAGED = {
    "class00/empty.png": b"",
    "class01/text.jpg": b"no image",
    "class02/cut.png": encode(noise(40, 40))[:900],
    "class03/depth.tif": encode(noise(4, 4).convert("F"), "TIFF"),
    "stray.png": encode(noise(4, 4)),
}


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    """Sixteen classes of one size and six images, eleven more of many kinds in four of them, and what is no use."""
    return write_folder(tmp_path / "ugly", class_files(16, colour=True) | UGLY | DAMAGED | OTHERS)


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["datasets", *map(str, words)], env={"COLUMNS": "200"})


def notes_of(found: DatasetCheck) -> str:
    return "\n".join(found.notes)


@pytest.mark.parametrize(
    ("name", "width", "height", "told"),
    [
        ("class00/grey.png", 20, 40, {"grey"}),
        ("class00/alpha.png", 30, 30, {"alpha"}),
        ("class00/grey_alpha.png", 10, 10, {"grey", "alpha"}),
        ("class01/sixteen.png", 12, 12, {"grey", "sixteen_bit"}),
        ("class01/sixteen.tif", 12, 12, {"grey", "sixteen_bit"}),
        ("class02/rotated.jpg", 20, 50, {"rotated"}),
        ("class02/mirrored.png", 10, 10, {"rotated"}),
        ("class03/bitmap.bmp", 9, 9, {"grey"}),
        ("class03/palette.gif", 9, 9, set()),
        ("class03/moving.gif", 9, 9, {"several"}),
        ("class03/print.tif", 9, 9, set()),
    ],
)
def test_an_image_is_described_by_its_header(name: str, width: int, height: int, told: set[str]) -> None:
    found = asdict(describe_image(UGLY[name]))
    assert (found.pop("width"), found.pop("height")) == (width, height)
    assert {fact for fact, is_so in found.items() if is_so} == told


def test_sixteen_bits_of_colour_are_seen_and_scaled() -> None:
    """Pillow writes none, so the file is put together by hand."""
    pixels = np.array([[[0, 257 * 100, 65535], [65535, 0, 257 * 7]]], ">u2")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert describe_image(content) == ImageFacts(2, 1, False, False, True, False, several=False)
    np.testing.assert_array_equal(decode_image(content, 1)[0, 0], [128, 50, 131])  # means of 0, 255; 100, 0; 255, 7


def test_an_ugly_folder_is_told_as_it_is(ugly: Path) -> None:
    found = check_dataset(str(ugly), image_size=12)
    assert found.name == "ugly"
    assert (found.image_size, found.n_channels) == (12, 3)
    assert [split.n_classes for split in found.splits] == [6, 5, 5]
    assert sum(split.n_images for split in found.splits) == 16 * 6 + 11
    assert {split.fewest for split in found.splits} == {6}
    assert max(split.most for split in found.splits) == 10
    assert {each.path for each in found.skipped} == {*DAMAGED}
    files = found.files
    assert files is not None
    assert (files.n_grey, files.n_colour) == (5, 96 + 6)
    assert (files.n_alpha, files.n_sixteen_bit, files.n_rotated, files.n_several) == (2, 2, 2, 1)
    assert (files.smallest, files.median, files.largest) == ((9, 9), (14, 10), (20, 50))
    assert files.n_sizes == 7
    assert files.n_enlarged == 96 + 6, "sides of 10 and 9 pixels, not 12"
    assert found.reason == ""
    assert found.passed_over == {".heic": 2, ".txt": 1, "Thumbs": 1}
    for words in (
        "4 other files are no image by name: 2 .heic, 1 .txt, 1 Thumbs.",
        "5 images without colour: they",
        "2 images with transparency",
        "2 images of 16 bits",
        "2 images turned or mirrored by EXIF",
        "1 image of several pictures",
        "102 images smaller than",
        "7 sizes, from 9x9 over 14x10 (median) to 20x50",
    ):
        assert words in notes_of(found)
    assert "once more" not in notes_of(found)


def test_the_ugly_images_become_ordinary_ones(ugly: Path) -> None:
    """What is told of is also handled: every readable image is in its class, and all classes can be drawn."""
    dataset = load_dataset(str(ugly), image_size=12)
    counts = {
        label: len(images)
        for name in ("base", "validation", "novel")
        for label, images in zip(dataset.split(name).classes, dataset.split(name).images, strict=True)
    }
    extra = {"class00": 3, "class01": 2, "class02": 2, "class03": 4}
    assert counts == {f"class{label:02d}": 6 + extra.get(f"class{label:02d}", 0) for label in range(16)}
    for name in ("base", "validation", "novel"):
        episode = EpisodeSampler(dataset, name, n_way=5, n_shot=2, n_query=4, seed=0)(0)
        assert episode.query_images.shape == (20, 3, 12, 12)
        assert episode.query_images.isfinite().all()


def test_unequal_classes_are_drawn_equally_often(tmp_path: Path) -> None:
    files = class_files(5, 3) | class_files(1, 60, prefix="many")
    dataset = load_dataset(str(write_folder(tmp_path / "own", files)), image_size=4)
    sampler = EpisodeSampler(dataset, "base", n_way=3, n_shot=1, n_query=2, seed=0)
    drawn = [name for index in range(400) for name in sampler(index).class_names]
    share = drawn.count("many00") / len(drawn)
    assert share == pytest.approx(1 / 6, abs=0.04), "3 standard deviations of 1,200 draws"
    note = "base classes have 3 to 60 images (fewest: 'class00'); episodes draw all classes equally often."
    assert note in check_dataset(str(tmp_path / "own"), image_size=4).notes


def test_duplicates_are_told_by_where_they_are(tmp_path: Path) -> None:
    names = [
        f"{part}/{part}{label}/image{index}.png"
        for part in ("train", "val", "test")
        for label in "01"
        for index in "012"
    ]
    files = {name: encode(noise(5, 5, seed=seed)) for seed, name in enumerate(names)}
    files["train/train0/again.png"] = files["train/train0/and_again.png"] = files["train/train0/image0.png"]
    files["train/train0/elsewhere.png"] = files["train/train1/again.png"] = files["train/train1/image1.png"]
    files["test/test1/leak.png"] = files["val/val0/image2.png"]
    found = check_dataset(str(write_folder(tmp_path, files)), image_size=4, n_way=2)
    assert found.duplicates.within_class == 3
    assert found.duplicates.between_classes == 1
    assert found.duplicates.between_splits == 1
    assert set(found.duplicates.examples["between_splits"][0]) == {"val/val0/image2.png", "test/test1/leak.png"}
    where = "val/val0/image2.png = test/test1/leak.png"
    assert f"1 image is in two splits, so accuracies on novel classes would flatter; first: {where}." == found.notes[0]
    assert (
        "1 image is in two classes of one split: one of the labels is wrong; first: train/train0/el" in found.notes[1]
    )
    assert "3 images are there once more in their class; first: train/train0/again.png = train/train0" in found.notes[2]


@pytest.mark.parametrize(
    ("episode", "reason"),
    [
        ({"n_way": 7}, "'base' .* has 6 classes, but 7-way episodes need 7"),
        ({"n_shot": 5, "n_query": 2}, "has 6 images.* 5 support \\+ 2 query images need 7"),
        ({"n_way": 1}, "needs n_way >= 2"),
    ],
)
def test_episodes_that_cannot_be_drawn_are_named(ugly: Path, episode: dict[str, int], reason: str) -> None:
    found = check_dataset(str(ugly), image_size=4, **episode)
    with pytest.raises(DataError, match=reason):
        raise DataError(found.reason)
    assert found.reason == found.splits[0].uses[0].reason
    assert not found.to_dict()["usable"]


def test_a_data_set_without_novel_classes_can_be_ranked_but_not_judged(tmp_path: Path) -> None:
    found = check_dataset(str(write_folder(tmp_path, class_files(6))), image_size=4)
    assert found.reason == ""
    assert [bool(use.reason) for split in found.splits for use in split.uses] == [False, False, True, True]
    assert [split.fewest for split in found.splits] == [6, 0, 0]
    assert "architectures can be ranked, but not to judge on novel classes: split 'novel'" in notes_of(found)
    assert "can be drawn to rank, train, but not to choose weights, judge." in run("check", tmp_path).stdout


def test_classes_with_too_few_images_are_named_for_what_they_are_too_small(tmp_path: Path) -> None:
    files = class_files(16, 8) | class_files(1, 1, prefix="one") | class_files(2, 3, prefix="few")
    lists = {"base.txt": b"few00\nfew01\none00\n", "validation.txt": b"", "novel.txt": b""}
    for label in range(16):
        name = ("base.txt", "validation.txt", "novel.txt")[label // 6]
        lists[name] += f"class{label:02d}\n".encode()
    found = check_dataset(str(write_folder(tmp_path, files | lists)), image_size=4, n_way=4, eval_query=8)
    uses = {use.purpose: (use.n_needed, use.n_classes, use.left_out) for split in found.splits for use in split.uses}
    assert uses == {
        "rank": (2, 8, ("one00",)),
        "train": (6, 6, ("few00", "few01", "one00")),
        "choose weights": (6, 6, ()),
        "judge": (9, 0, ("class12", "class13", "class14", "class15")),
    }
    assert found.reason == ""
    assert "1 base class lacks the 2 images needed to rank, so never drawn for it: 'one00'." in found.notes
    assert "3 base classes lack the 6 images needed to train, so never drawn for it: 'few00', 'few01', 'one00'." in (
        found.notes
    )
    assert "not to judge on novel classes: class 'class12'" in notes_of(found)
    assert found.passed_over == {}, "lists of classes are no strangers"


def test_what_was_checked_is_decoded_already(ugly: Path) -> None:
    decoded: list[str] = []
    check_dataset(str(ugly), image_size=4)
    load_dataset(str(ugly), image_size=4, progress=lambda label, done, total: decoded.append(label))
    assert not decoded


@pytest.mark.parametrize(
    ("name", "write"),
    [("tiered_imagenet", lambda root: write_tiered(root, "png")), ("fc100", write_fc100), ("cub", write_cub)],
)
def test_data_sets_by_name_can_be_checked(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path)
    done = run("check", name, "--data-root", tmp_path, "--n-way", 3, "--image-size", 8, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert found["usable"]
    assert found["files"]["n_colour"] == sum(split["n_images"] for split in found["splits"])


def test_drawn_characters_have_no_files() -> None:
    found = check_dataset("glyphs", image_size=8)
    assert found.files is None
    assert [split.n_classes for split in found.splits] == [60, 20, 20]
    assert found.notes == ()


def test_the_command_tells_and_exits_with_0_or_2(ugly: Path) -> None:
    done = run("check", ugly, "--image-size", 12)
    assert done.exit_code == 0, done.output
    for text in (
        "ugly: 107 images of 16 classes, colour, at 12x12",
        "9x9 over 14x10 (median) to 20x50",
        "6 to rank (2), 6 to train (6)",
        "class00/empty.png (it is no image",
        "Usable: 5-way 1-shot episodes can be drawn to rank, train, choose weights, but not to judge.",
    ):
        assert text in done.stdout
    done = run("check", ugly, "--n-shot", 6)
    assert done.exit_code == 2
    assert "6 support + 1 query images need 7" in done.stderr
    assert "Usable" not in done.stdout


def test_json_has_all_of_it_even_when_it_cannot_be_used(ugly: Path) -> None:
    done = run("check", ugly, "--n-way", 9, "--json")
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert found["usable"] is False
    assert "9-way episodes need 9" in found["reason"]
    assert {each["path"] for each in found["skipped"]} == {*DAMAGED}
    assert found["splits"][0] == found["splits"][0] | {"name": "base", "n_classes": 6, "fewest": 6}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "not found; available"),
        ({}, "no directories with images"),
        (dict.fromkeys(class_files(2, 2), b"broken"), "no readable image in its base classes; the first of 4 skipped"),
    ],
)
def test_what_cannot_be_loaded_exits_with_2(tmp_path: Path, files: dict[str, bytes] | None, message: str) -> None:
    folder = tmp_path / "own"
    if files is not None:
        folder.mkdir()
        write_folder(folder, files)
    done = run("check", folder)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_the_list_of_data_sets_is_still_there() -> None:
    done = run()
    assert done.exit_code == 0
    assert "mini_imagenet" in done.stdout
    assert [row["name"] for row in json.loads(run("--json").stdout)][-1] == "hf"
