from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.contracts.dataset import SPLITS, DatasetContract
from tests.episodes.images import class_files, encode, noise, write_folder, write_zip


def classes(dataset: Any) -> dict[str, tuple[str, ...]]:
    return {name: dataset.split(name).classes for name in SPLITS}


class TestFolder(DatasetContract):
    n_channels = 3

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Any]:
        folder = write_folder(tmp_path_factory.mktemp("own"), class_files(15) | class_files(1, 6, colour=True))
        return {"name_or_path": str(folder), "image_size": 12, "cache_dir": cache_dir}


class TestZipOfAFolder(DatasetContract):
    n_channels = 1

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Any]:
        files = {f"wrapped/{name}": content for name, content in class_files(15).items()}
        archive = write_zip(tmp_path_factory.mktemp("own") / "pets.zip", files)
        return {"name_or_path": str(archive), "image_size": 12, "cache_dir": cache_dir}


@pytest.mark.parametrize(
    ("n_classes", "sizes"), [(15, [5, 5, 5]), (20, [10, 5, 5]), (40, [26, 6, 8]), (14, [14, 0, 0]), (1, [1, 0, 0])]
)
def test_classes_are_split_by_chance(tmp_path: Path, n_classes: int, sizes: list[int]) -> None:
    folder = write_folder(tmp_path / "own", class_files(n_classes, 1))
    dataset = load_dataset(str(folder), image_size=4)
    assert [len(dataset.split(name).classes) for name in SPLITS] == sizes
    assert sorted(sum(classes(dataset).values(), ())) == [f"class{label:02d}" for label in range(n_classes)]
    assert dataset.name == "own"


def test_the_seed_chooses_the_split(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path, class_files(20, 1)))
    first, again, other = (classes(load_dataset(folder, image_size=4, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_smaller_splits_can_be_asked_for(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path, class_files(9, 1)))
    dataset = load_dataset(folder, image_size=4, min_classes=3)
    assert [len(dataset.split(name).classes) for name in SPLITS] == [3, 3, 3]


def test_few_classes_can_be_scored_but_have_no_novel_episodes(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_folder(tmp_path, class_files(6))), image_size=4)
    assert EpisodeSampler(dataset, "base", n_way=5, n_shot=1, n_query=1, seed=0)(0).n_way == 5
    with pytest.raises(DataError, match=r"'novel' .* has 0 classes, but 5-way episodes need 5; .*novel.txt"):
        EpisodeSampler(dataset, "novel", n_way=5, n_shot=1, n_query=1, seed=0)


@pytest.mark.parametrize("names", [("base", "validation", "novel"), ("train", "val", "test")])
@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_text_files_choose_the_split(tmp_path: Path, names: tuple[str, str, str], prefix: str) -> None:
    lists = {
        f"{prefix}{names[0]}.txt": b"\xef\xbb\xbfclass03\r\nclass01/\r\n\r\n",
        f"{prefix}{names[1]}.txt": b"class00",
        f"{prefix}{names[2]}.txt": b" class04 \nclass02\n",
    }
    images = {f"{prefix}{name}": content for name, content in class_files(6, 1).items()}
    dataset = load_dataset(str(write_folder(tmp_path, images | lists)), image_size=4)
    assert classes(dataset) == {
        "base": ("class03", "class01"),
        "validation": ("class00",),
        "novel": ("class04", "class02"),
    }


TABLE = b"filename,label\nclass00/image0.png,a\nclass01/image0.png,b\nclass01/image1.png,a\n"


@pytest.mark.parametrize("names", [("base", "validation", "novel"), ("train", "val", "test")])
@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_tables_choose_classes_and_split(tmp_path: Path, names: tuple[str, str, str], prefix: str) -> None:
    files = {f"{prefix}images/{name}": content for name, content in class_files(3, 2).items()}
    files |= {
        f"{prefix}{names[0]}.csv": TABLE,
        f"{prefix}{names[2]}.csv": b"\xef\xbb\xbffilename,label\r\nclass02/image0.png,c",
    }
    dataset = load_dataset(str(write_folder(tmp_path, files)), image_size=4)
    assert classes(dataset) == {"base": ("a", "b"), "validation": (), "novel": ("c",)}
    assert [len(images) for images in dataset.base.images] == [2, 1]


def test_tables_of_something_else_are_no_splits(tmp_path: Path) -> None:
    other = {"train.csv": b"id,breed\n1,pug\n", "test.csv": b"", "val.csv": b'filename,label\n"' + b"x" * 200_000}
    dataset = load_dataset(str(write_folder(tmp_path, class_files(3, 1) | other)), image_size=4)
    assert classes(dataset)["base"] == ("class00", "class01", "class02")


def test_a_file_that_a_table_names_in_vain_is_named(tmp_path: Path) -> None:
    files = class_files(2, 1) | {"train.csv": TABLE}
    with pytest.raises(DataError, match=r"train.csv names the file 'class01/image1.png', .* \(1 of its 3 files"):
        load_dataset(str(write_folder(tmp_path, files)), image_size=4)


def test_directories_choose_the_split(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for part, start in (("train", 0), ("val", 3), ("test", 5)):
        files |= class_files(2, 1, prefix=f"{part}/c{start}")
    dataset = load_dataset(str(write_folder(tmp_path, files)), image_size=4)
    assert classes(dataset) == {"base": ("c000", "c001"), "validation": ("c300", "c301"), "novel": ("c500", "c501")}


def test_one_class_in_two_splits_is_refused(tmp_path: Path) -> None:
    files = class_files(2, 1, prefix="train/c") | class_files(1, 1, prefix="test/c")
    with pytest.raises(DataError, match=r"class 'c00' .* in both 'base' and 'novel'"):
        load_dataset(str(write_folder(tmp_path, files)), image_size=4)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"base.txt": b"class00\nclass77"}, r"base.txt names the class 'class77', .* \(1 of its 2 classes"),
        ({"novel.txt": b"class00"}, "no base classes; add a base.txt"),
        ({"base.txt": b"class00", "novel.txt": b"class00"}, "in both 'base' and 'novel'"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path: Path, lists: dict[str, bytes], message: str) -> None:
    folder = write_folder(tmp_path, class_files(3, 1) | lists)
    with pytest.raises(DataError, match=message):
        load_dataset(str(folder), image_size=4)


@pytest.mark.parametrize("files", [{}, {"image.png": encode(noise(4, 4))}, {"class/readme.txt": b"no image"}])
def test_a_folder_without_classes_shows_the_layout(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match=r"no directories with images in them; expected one directory a class:\n.*<cl"):
        load_dataset(str(write_folder(tmp_path, files)), image_size=4)


def test_nested_classes_are_named_by_their_path(tmp_path: Path) -> None:
    files = class_files(2, 1, prefix="birds/b") | class_files(1, 1, prefix="cats/c")
    assert load_dataset(str(write_folder(tmp_path, files)), image_size=4).base.classes == (
        "birds/b00",
        "birds/b01",
        "cats/c00",
    )


def test_what_lies_beside_the_classes_is_no_class_in_a_wrapping_directory_either(tmp_path: Path) -> None:
    files = {f"pets/{name}": content for name, content in (class_files(2, 1) | {"cover.png": b""}).items()}
    dataset = load_dataset(str(write_zip(tmp_path / "own.zip", files)), image_size=4)
    assert dataset.base.classes == ("class00", "class01")
    assert [(each.path, each.reason) for each in dataset.skipped] == [
        ("pets/cover.png", "it lies outside the class directories")
    ]


def test_unreadable_images_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    whole = encode(noise(30, 30))
    files = class_files(3) | {
        "class00/broken.jpg": b"not an image",
        "class01/cut.png": whole[: len(whole) // 2],
        "class02/empty.png": b"",
        "stray.png": whole,
    }
    dataset = load_dataset(str(write_folder(tmp_path, files)), image_size=4)
    assert dataset.base.n_images == 18
    assert {skipped.path for skipped in dataset.skipped} == {*files} - {*class_files(3)}
    assert all(skipped.reason for skipped in dataset.skipped)
    reasons = {skipped.path: skipped.reason for skipped in dataset.skipped}
    assert "truncated" in reasons["class01/cut.png"]
    assert "outside the class directories" in reasons["stray.png"]


def test_a_class_that_falls_short_by_unreadable_images_is_named(tmp_path: Path) -> None:
    files = class_files(5) | {f"class03/image{index}.png": b"" for index in range(5)}
    dataset = load_dataset(str(write_folder(tmp_path, files)), image_size=4)
    with pytest.raises(DataError, match=r"'class03' .* has 1 images; 5 image files were skipped, but 1 support \+ 2"):
        EpisodeSampler(dataset, "base", n_way=5, n_shot=1, n_query=2, seed=0)


def test_only_unreadable_images_is_an_error(tmp_path: Path) -> None:
    files = dict.fromkeys(class_files(2, 2), b"broken")
    with pytest.raises(DataError, match=r"no readable image .* first of 4 skipped: class00/image0.png \(it is no"):
        load_dataset(str(write_folder(tmp_path, files)), image_size=4)


def test_colour_wins_over_grey(tmp_path: Path) -> None:
    grey, colour = encode(noise(4, 4)), encode(noise(4, 4, 3))
    dataset = load_dataset(str(write_folder(tmp_path, {"a/0.png": grey, "b/0.png": colour})), image_size=4)
    assert dataset.n_channels == 3
    image = dict(zip(dataset.base.classes, dataset.base.images, strict=True))["a"][0]
    np.testing.assert_array_equal(image, np.repeat(np.asarray(noise(4, 4))[..., None], 3, axis=-1))


def test_hidden_files_and_the_litter_of_archives_are_ignored(tmp_path: Path) -> None:
    litter = dict.fromkeys(("__MACOSX/a/x.png", "class00/._image0.png", ".cache/a/x.png"), b"litter")
    dataset = load_dataset(str(write_folder(tmp_path, class_files(2) | litter)), image_size=4)
    assert dataset.base.classes == ("class00", "class01")
    assert dataset.skipped == ()


def test_the_name_folder_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the path of the folder"):
        load_dataset("folder", image_size=4)
    dataset = load_dataset("folder", image_size=4, data_root=write_folder(tmp_path, class_files(2)))
    assert dataset.base.classes == ("class00", "class01")
