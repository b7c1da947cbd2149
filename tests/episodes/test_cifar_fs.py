import zipfile
from pathlib import Path
from typing import Any

import pytest

from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.contracts.dataset import DatasetContract, nearest_prototype_accuracy
from tests.episodes.images import DATA_MISSING, class_files, write_folder, write_zip

SPLITS = {"train": ["class00", "class01", "class02"], "val": ["class03"], "test": ["class05", "class04"]}


def small_cifar(prefix: str = "cifar100/") -> dict[str, bytes]:
    files = {f"{prefix}data/{name}": content for name, content in class_files(6, 3, colour=True).items()}
    lists = {f"{prefix}splits/bertinetto/{name}.txt": "\n".join(some).encode() for name, some in SPLITS.items()}
    return files | lists


@pytest.fixture(scope="session")
def real_cifar(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the novel classes of the real archive, and 10 images of the others: all take long to decode."""
    source = shared_data / "cifar_fs.zip"
    if not source.is_file():
        pytest.skip(DATA_MISSING)
    with zipfile.ZipFile(source) as archive:
        novel = archive.read("cifar100/splits/bertinetto/test.txt").decode().split()
        names = [
            name
            for name in archive.namelist()
            if name.endswith(".txt") or name.split("/")[-2] in novel or int(name[-7:-4]) < 10
        ]
        files = {name: archive.read(name) for name in names}
    return write_zip(tmp_path_factory.mktemp("cifar") / "cifar_fs.zip", files).parent


class TestCifarFs(DatasetContract):
    n_channels = 3

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, real_cifar: Path, cache_dir: Path) -> dict[str, Any]:
        return {"name_or_path": "cifar_fs", "image_size": 32, "data_root": real_cifar, "cache_dir": cache_dir}

    @pytest.mark.parametrize(("n_shot", "percent"), [(1, 30.5), (5, 40.3)])
    def test_raw_pixels_reach_the_known_floor(self, dataset: Any, n_shot: int, percent: float) -> None:
        """Against figures measured elsewhere; 2 points cover the episodes drawn."""
        assert nearest_prototype_accuracy(dataset, n_shot, n_episodes=200) == pytest.approx(percent, abs=2)

    def test_the_published_split_is_kept(self, dataset: Any) -> None:
        assert [len(dataset.split(name).classes) for name in ("base", "validation", "novel")] == [64, 16, 20]
        assert dataset.novel.classes[:3] == ("baby", "bed", "bicycle")


@pytest.mark.slow
def test_all_of_cifar_fs_loads(shared_data: Path, cache_dir: Path) -> None:
    dataset = load_dataset("cifar_fs", image_size=32, data_root=shared_data, cache_dir=cache_dir)
    assert sum(dataset.split(name).n_images for name in ("base", "validation", "novel")) == 60_000
    assert dataset.skipped == ()


@pytest.mark.parametrize("name", ["cifar_fs.zip", "cifar_fs/cifar100.zip"])
def test_either_archive_and_the_unpacked_folder_hold_the_same(tmp_path: Path, name: str) -> None:
    write_zip(tmp_path / "zip" / name, small_cifar())
    write_folder(tmp_path / "folder", small_cifar())
    zipped, unpacked = (load_dataset("cifar_fs", image_size=8, data_root=tmp_path / kind) for kind in ("zip", "folder"))
    assert zipped.base.classes == tuple(SPLITS["train"])
    assert zipped.novel.classes == tuple(SPLITS["test"])
    assert zipped.fingerprint == unpacked.fingerprint


def test_a_missing_split_list_is_named(tmp_path: Path) -> None:
    files = {name: content for name, content in small_cifar().items() if not name.endswith("val.txt")}
    write_zip(tmp_path / "cifar_fs.zip", files)
    with pytest.raises(DataError, match=r"no splits/bertinetto/val.txt; expected cifar100/data/<class>"):
        load_dataset("cifar_fs", image_size=8, data_root=tmp_path)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    files = {name: content for name, content in small_cifar().items() if "class03/" not in name}
    write_zip(tmp_path / "cifar_fs.zip", files)
    with pytest.raises(DataError, match="no images of class 'class03'"):
        load_dataset("cifar_fs", image_size=8, data_root=tmp_path)
