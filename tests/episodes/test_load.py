import builtins
from pathlib import Path
from typing import Any

import pytest

from metantk_nas.episodes.hugging_face import read_reference
from metantk_nas.episodes.load import available_datasets, load_dataset
from metantk_nas.errors import DataError
from tests.episodes.images import class_files, write_folder


def test_every_data_set_is_described() -> None:
    infos = available_datasets()
    own_copies = ["fc100", "mini_imagenet", "tiered_imagenet", "cub"]
    assert list(infos) == ["glyphs", "omniglot", "cifar_fs", *own_copies, "folder", "hf"]
    for name, info in infos.items():
        assert info.name == name
        assert info.description
        assert "\n" not in info.description
        assert info.source
        assert info.licence
    assert infos["omniglot"].options == ("rotations",)
    assert infos["cifar_fs"].options == ()


def test_an_unknown_name_gets_the_near_miss() -> None:
    with pytest.raises(DataError, match=r"'omniglott' not found; available: .* Did you mean 'omniglot'\? .* its path"):
        load_dataset("omniglott", image_size=8)


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(DataError, match=r"'\./no/such/folder' not found"):
        load_dataset("./no/such/folder", image_size=8)


def test_an_unknown_option_gets_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"option of data set 'omniglot' 'rotation' not found.* mean 'rotations'"):
        load_dataset("omniglot", image_size=8, data_root=tmp_path, rotation=True)


def test_image_size_is_a_number_of_pixels() -> None:
    with pytest.raises(DataError, match="at least 1; got 0"):
        load_dataset("glyphs", image_size=0)


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"anything")
    with pytest.raises(DataError, match=r"image.png cannot be read as a zip archive .* give a folder"):
        load_dataset(str(path), image_size=8)


@pytest.mark.parametrize("name", ["omniglot", "cifar_fs"])
def test_without_download_the_error_says_what_to_fetch_and_where_to_put_it(
    name: str, tmp_path: Path, user_cache_of_the_test: Path
) -> None:
    with pytest.raises(DataError) as own:
        load_dataset(name, image_size=8, data_root=tmp_path, download=False)
    with pytest.raises(DataError) as default:
        load_dataset(name, image_size=8, download=False)
    for error, folder in ((own, tmp_path / name), (default, user_cache_of_the_test / "data" / name)):
        message = str(error.value)
        assert message.startswith(f"{name}: none of ")
        assert f"put it at {folder}" in message
        assert "Fetch https://" in message
        assert "--data-root" in message
    assert ("md5 68d2efa1b9178cc56df9314c21c6e718" in str(own.value)) == (name == "omniglot")


def test_a_data_root_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data root .*typo is not a directory"):
        load_dataset("omniglot", image_size=8, data_root=tmp_path / "typo")


def test_by_default_images_are_cached_in_the_users_cache(tmp_path: Path, user_cache_of_the_test: Path) -> None:
    load_dataset(str(write_folder(tmp_path / "own", class_files(2))), image_size=8)
    assert [path.suffix for path in (user_cache_of_the_test / "images").iterdir()] == [".npz"]


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"hf:mnist needs the package datasets, .* pip install 'metantk-nas\[hf\]'"):
        load_dataset("hf:mnist", image_size=4)


def test_a_reference_is_read() -> None:
    assert read_reference("hf:a/b") == {"name": "a/b"}
    assert read_reference("hf:a, label = c") == {"name": "a", "label": "c"}
