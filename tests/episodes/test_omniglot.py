from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metantk_nas.episodes.load import load_dataset
from metantk_nas.episodes.omniglot import VALIDATION_ALPHABETS
from metantk_nas.errors import DataError
from tests.contracts.dataset import DatasetContract, nearest_prototype_accuracy
from tests.episodes.images import encode, write_folder, write_zip


def drawing(index: int) -> bytes:
    """A black L on white, as Omniglot stores its drawings (one bit a pixel)."""
    image = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(image).line([(20, 10), (20, 90), (40 + index, 90)], fill=0, width=4)
    return encode(image)


def small_omniglot(root: Path) -> Path:
    """Two characters with two drawings for one base, one validation and one evaluation alphabet, as official zips."""
    parts = {"images_background": ["Greek", VALIDATION_ALPHABETS[0]], "images_evaluation": ["Tibetan"]}
    for part, alphabets in parts.items():
        files = {
            f"{part}/{alphabet}/character{c:02d}/{c:04d}_{d:02d}.png": drawing(10 * c + d)
            for alphabet in alphabets
            for c in (1, 2)
            for d in (1, 2)
        }
        write_zip(root / "omniglot" / f"{part}.zip", files)
    return root


class TestOmniglot(DatasetContract):
    n_channels = 1

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, shared_data: Path, cache_dir: Path) -> dict[str, Any]:
        return {"name_or_path": "omniglot", "image_size": 32, "data_root": shared_data, "cache_dir": cache_dir}


def test_the_official_split_is_kept(shared_data: Path, cache_dir: Path) -> None:
    dataset = load_dataset("omniglot", image_size=32, data_root=shared_data, cache_dir=cache_dir)
    assert (len(dataset.base.classes), len(dataset.validation.classes), len(dataset.novel.classes)) == (817, 147, 659)
    assert {len(images) for name in ("base", "validation", "novel") for images in dataset.split(name).images} == {20}
    assert {name.split("/")[0] for name in dataset.validation.classes} == set(VALIDATION_ALPHABETS)
    assert "Tibetan/character01" in dataset.novel.classes
    assert "Greek/character01" in dataset.base.classes
    assert dataset.skipped == ()
    assert dataset.mean[0] < 0.2, "ink is 1 and paper is 0"


@pytest.mark.parametrize(("n_shot", "percent"), [(1, 43.0), (5, 69.5)])
def test_raw_pixels_reach_the_known_floor(shared_data: Path, cache_dir: Path, n_shot: int, percent: float) -> None:
    """Against figures measured elsewhere; 2 points cover the episodes drawn and the resizing."""
    dataset = load_dataset("omniglot", image_size=32, data_root=shared_data, cache_dir=cache_dir)
    assert nearest_prototype_accuracy(dataset, n_shot, n_episodes=200) == pytest.approx(percent, abs=2)


def test_ink_is_bright_and_upright(tmp_path: Path) -> None:
    dataset = load_dataset("omniglot", image_size=28, data_root=small_omniglot(tmp_path))
    image = dataset.base.images[dataset.base.classes.index("Greek/character01")][0, :, :, 0]
    assert image[:, 27].max() == 0
    assert image[12, 5] > 150
    assert image[24, 9] > 150


def test_rotations_add_turned_base_classes_only(tmp_path: Path) -> None:
    root = small_omniglot(tmp_path)
    plain = load_dataset("omniglot", image_size=28, data_root=root)
    turned = load_dataset("omniglot", image_size=28, data_root=root, rotations=True)
    assert len(turned.base.classes) == 4 * len(plain.base.classes)
    assert turned.novel.classes == plain.novel.classes
    assert turned.validation.classes == plain.validation.classes
    images = dict(zip(turned.base.classes, turned.base.images, strict=True))
    for name, upright in zip(plain.base.classes, plain.base.images, strict=True):
        np.testing.assert_array_equal(images[name], upright)
        for quarter in (1, 2, 3):
            again = np.rot90(images[f"{name}/rotated{90 * quarter}"], -quarter, axes=(1, 2))
            np.testing.assert_array_equal(again, upright)
    assert turned.to_tensor(images["Greek/character01/rotated90"]).shape == (2, 1, 28, 28)


def test_unpacked_folders_equal_the_zips(tmp_path: Path) -> None:
    zipped = load_dataset("omniglot", image_size=28, data_root=small_omniglot(tmp_path / "zips"))
    for part in ("images_background", "images_evaluation"):
        files = {
            f"{part}/{alphabet}/character{c:02d}/{c:04d}_{d:02d}.png": drawing(10 * c + d)
            for alphabet in (["Tibetan"] if part == "images_evaluation" else ["Greek", VALIDATION_ALPHABETS[0]])
            for c in (1, 2)
            for d in (1, 2)
        }
        write_folder(tmp_path / "folders", files)
    unpacked = load_dataset("omniglot", image_size=28, data_root=tmp_path / "folders")
    assert unpacked.fingerprint == zipped.fingerprint


def test_an_archive_without_images_names_the_layout(tmp_path: Path) -> None:
    root = small_omniglot(tmp_path)
    write_zip(root / "omniglot" / "images_evaluation.zip", {"readme.txt": b"nothing"})
    with pytest.raises(DataError, match=r"images_evaluation.zip holds no images; expected .*<character>"):
        load_dataset("omniglot", image_size=28, data_root=root)


def test_a_truncated_archive_is_named_with_the_next_step(tmp_path: Path) -> None:
    root = small_omniglot(tmp_path)
    archive = root / "omniglot" / "images_background.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"images_background.zip cannot be read .* fetch it again"):
        load_dataset("omniglot", image_size=28, data_root=root)
