from pathlib import Path
from typing import Any

import pytest

from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.contracts.dataset import SPLITS, DatasetContract
from tests.episodes.images import encode, noise, write_folder


def write_cub(folder: Path, n_classes: int = 16, n_images: int = 6) -> Path:
    """The unpacked archive, with fewer classes and images, and some of what else lies in it."""
    names = [f"{number:03d}.Bird_{number}" for number in range(1, n_classes + 1)]
    files = {
        f"images/{name}/Bird_{index:04d}.jpg": encode(noise(9, 12, 3, seed=100 * place + index), "JPEG")
        for place, name in enumerate(names)
        for index in range(n_images)
    }
    files["classes.txt"] = "".join(f"{number} {name}\n" for number, name in enumerate(names, start=1)).encode()
    files |= {"README": b"text", f"segmentations/{names[0]}/Bird_0000.png": encode(noise(4, 4))}
    return write_folder(folder / "CUB_200_2011", files).parent


class TestCub(DatasetContract):
    n_channels = 3

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Any]:
        root = write_cub(tmp_path_factory.mktemp("birds"))
        return {"name_or_path": "cub", "image_size": 8, "data_root": root, "cache_dir": cache_dir}


@pytest.mark.parametrize("place", ["root", "sub-directory", "itself"])
def test_the_usual_split_is_kept_wherever_the_folder_lies(tmp_path: Path, place: str) -> None:
    """Counted from 0, even classes are base, 1, 5, 9, … validation and 3, 7, 11, … novel (Chen et al. 2019)."""
    write_cub(tmp_path / "cub" if place == "sub-directory" else tmp_path, n_classes=200, n_images=1)
    root = tmp_path / "CUB_200_2011" if place == "itself" else tmp_path
    dataset = load_dataset("cub", image_size=4, data_root=root)
    numbers = {name: [int(label[:3]) - 1 for label in dataset.split(name).classes] for name in SPLITS}
    assert numbers == {"base": [*range(0, 200, 2)], "validation": [*range(1, 200, 4)], "novel": [*range(3, 200, 4)]}
    assert sum(dataset.split(name).n_images for name in SPLITS) == 200, "segmentations are no photographs"


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    write_cub(tmp_path, n_classes=4, n_images=1)
    (tmp_path / "CUB_200_2011" / "images" / "002.Bird_2" / "Bird_0000.jpg").unlink()
    with pytest.raises(DataError, match=r"no images of class '002.Bird_2' \(1 of 4 classes are missing\); exp"):
        load_dataset("cub", image_size=4, data_root=tmp_path)


def test_without_the_folder_the_error_says_where_it_is(tmp_path: Path, user_cache_of_the_test: Path) -> None:
    for root, place in ((tmp_path, tmp_path / "cub"), (None, user_cache_of_the_test / "data" / "cub")):
        with pytest.raises(DataError, match=r"^cub: no CUB_200_2011/classes.txt is in .* --data-root\.$") as error:
            load_dataset("cub", image_size=4, data_root=root)
        assert "https://data.caltech.edu/records/65de6-vp158" in str(error.value)
        assert "md5 97eceeb196236b17998738112f37df78" in str(error.value)
        assert f"unpack it in {place}" in str(error.value)
