import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.contracts.dataset import SPLITS, DatasetContract
from tests.episodes.images import encode, noise

datasets = pytest.importorskip("datasets", reason="the package datasets is in the extra 'hf'")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub or writes to the user's cache of it."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def table(n_classes: int = 15, n_images: int = 6, **more: Any) -> Any:
    """A table of images and classes, class after class, as PNG files."""
    names = [f"kind{label:02d}" for label in range(n_classes)]
    images = [encode(noise(10, 14, 3, seed=row)) for row in range(n_classes * n_images)]
    columns = {
        "id": [*range(len(images))],
        "img": [{"bytes": image, "path": None} for image in images],
        "kind": [label for label in range(n_classes) for _ in range(n_images)],
        "size": [row % 2 for row in range(len(images))],
    }
    kinds = {
        "id": datasets.Value("int64"),
        "img": datasets.Image(),
        "kind": datasets.ClassLabel(names=names),
        "size": datasets.ClassLabel(names=["small", "large"]),
    }
    return datasets.Dataset.from_dict(columns | more, features=datasets.Features(kinds))


def save(content: Any, folder: Path) -> str:
    content.save_to_disk(str(folder))
    return f"hf:{folder}"


class TestSavedDataset(DatasetContract):
    n_channels = 3

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Any]:
        return {"name_or_path": save(table(), tmp_path_factory.mktemp("hf")), "image_size": 8, "cache_dir": cache_dir}


def test_the_parts_of_a_data_set_are_joined_and_its_classes_split_by_the_seed(tmp_path: Path) -> None:
    whole = table()
    parts = datasets.DatasetDict(train=whole.select(range(3, 90)), test=whole.select(range(3)))
    name = save(parts, tmp_path / "birds")
    first, again, other = (load_dataset(name, image_size=10, seed=seed) for seed in (0, 0, 1))
    assert first.name == "birds"
    assert [len(first.split(split).classes) for split in SPLITS] == [5, 5, 5]
    assert first.fingerprint == again.fingerprint
    assert first.base.classes != other.base.classes
    found = {label: images for s in map(first.split, SPLITS) for label, images in zip(s.classes, s.images, strict=True)}
    assert sorted(found) == [f"kind{label:02d}" for label in range(15)]
    assert {len(images) for images in found.values()} == {6}
    expected = np.asarray(noise(10, 14, 3, seed=14))[:, 2:12]
    assert any(np.array_equal(image, expected) for image in found["kind02"])


def test_a_single_table_is_a_data_set_too(tmp_path: Path) -> None:
    assert load_dataset(save(table(4), tmp_path / "own"), image_size=4).base.n_images == 24


def test_files_that_the_package_reads_are_a_data_set_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    table(4).to_parquet(str(tmp_path / "own" / "data.parquet"))
    dataset = load_dataset(f"hf:{tmp_path / 'own'}", image_size=4)
    assert dataset.base.classes == ("kind00", "kind01", "kind02", "kind03")


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    name = save(table(), tmp_path / "own")
    assert load_dataset(f"{name},label=size", image_size=4).base.classes == ("large", "small")
    assert load_dataset(name, image_size=4, label="size").base.classes == ("large", "small")
    by_number = load_dataset(f"{name},label=id,image=img", image_size=4)
    assert sum(len(by_number.split(split).classes) for split in SPLITS) == 90


def test_rows_without_label_are_left_out_and_rows_without_image_listed(tmp_path: Path) -> None:
    images = [None, *({"bytes": encode(noise(4, 4, seed=row)), "path": None} for row in range(1, 8))]
    images[5] = {"bytes": b"broken", "path": None}
    whole = table(2, 4, img=images, kind=[0, 0, 0, 0, 1, 1, -1, None])
    dataset = load_dataset(save(whole, tmp_path / "own"), image_size=4)
    assert [len(images) for images in dataset.base.images] == [3, 1]
    assert {skipped.path for skipped in dataset.skipped} == {"all/0", "all/5"}


def test_images_that_lie_in_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(noise(4, 4, 3)))
    whole = table(2, 1, img=[str(tmp_path / "a.png")] * 2)
    dataset = load_dataset(save(whole, tmp_path / "own"), image_size=4)
    np.testing.assert_array_equal(dataset.base.images[0][0], np.asarray(noise(4, 4, 3)))


def test_the_second_load_decodes_nothing_until_the_rows_change(tmp_path: Path) -> None:
    decoded: list[int] = []

    def load() -> str:
        decoded.clear()
        name = f"hf:{tmp_path / 'own'}"
        return load_dataset(name, image_size=4, progress=lambda label, done, total: decoded.append(done)).fingerprint

    save(table(3), tmp_path / "own")
    first = load()
    assert len(decoded) == 18
    assert load() == first
    assert not decoded
    other = [{"bytes": encode(noise(10, 14, 3, seed=100 + row)), "path": None} for row in range(18)]
    save(table(3, img=other), tmp_path / "own")
    assert load() != first


def test_a_name_goes_to_the_hub_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, config: str | None, *, download_config: Any) -> Any:
        asked.append((name, config, download_config.local_files_only))
        return datasets.DatasetDict(train=table(3))

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = load_dataset("hf:uoft-cs/cifar100,config=plain", image_size=4)
    load_dataset("hf:mnist", image_size=4, download=False)
    assert asked == [("uoft-cs/cifar100", "plain", False), ("mnist", None, True)]
    assert dataset.name == "cifar100"


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^hf:.*nowhere could not be loaded: .* Expected a name of huggingface"
    ) as error:
        load_dataset(f"hf:{tmp_path / 'nowhere'}", image_size=4)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="hf:owner/nothing could not be loaded"):
        load_dataset("hf:owner/nothing", image_size=4)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="could not be loaded"):
        load_dataset(f"hf:{tmp_path}", image_size=4)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{},image=imgs", r"image column of hf:.* 'imgs' not found; available: img\. Did you mean 'img'"),
        ("{},label=kinds", r"label column of hf:.* 'kinds' not found; .* Did you mean 'kind'"),
        ("{},lable=kind", r"option of data set 'hf' 'lable' not found; .* Did you mean 'label'"),
        ("{},label", "names no data set; expected for example hf:uoft-cs/cifar100,label=coarse_label"),
        ("hf:", "names no data set"),
        ("hf", "needs a name or a path: hf:NAME"),
    ],
)
def test_a_wrong_reference_gets_the_near_miss(tmp_path: Path, reference: str, message: str) -> None:
    name = save(table(2, 1), tmp_path / "own")
    with pytest.raises(DataError, match=message):
        load_dataset(reference.format(name), image_size=4)


def test_tables_without_images_or_classes_show_their_columns(tmp_path: Path) -> None:
    name = save(table(2, 1).remove_columns(["kind", "size"]), tmp_path / "unlabelled")
    with pytest.raises(
        DataError, match=r"no column of classes; its columns: id \(Value\), img \(Image\)\. .*label=COL"
    ):
        load_dataset(name, image_size=4)
    name = save(table(2, 1).remove_columns(["img"]), tmp_path / "text")
    with pytest.raises(DataError, match=r"no column of images; its columns: id \(Value\), kind \(ClassLabel\)"):
        load_dataset(name, image_size=4)


def test_images_come_as_the_files_that_they_were(tmp_path: Path) -> None:
    """Grey stays grey, and nothing is encoded again."""
    grey = [{"bytes": encode(noise(6, 6, seed=row)), "path": None} for row in range(4)]
    dataset = load_dataset(save(table(2, 2, img=grey), tmp_path / "own"), image_size=6)
    assert dataset.n_channels == 1
    expected = np.asarray(Image.open(io.BytesIO(grey[3]["bytes"])))
    np.testing.assert_array_equal(dataset.base.images[1][1, :, :, 0], expected)
