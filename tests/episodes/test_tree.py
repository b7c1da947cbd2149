import zipfile
from pathlib import Path

import pytest

from metantk_nas.episodes.load import load_dataset
from metantk_nas.episodes.tree import open_tree
from metantk_nas.errors import DataError
from tests.episodes.images import class_files, encode, noise, write_folder, write_zip

FILES = {"a/1.png": b"one", "b/c/2.png": b"two", "list.txt": b"text"}


def test_folder_and_archive_read_alike(tmp_path: Path) -> None:
    for tree in (open_tree(write_folder(tmp_path / "f", FILES)), open_tree(write_zip(tmp_path / "z.zip", FILES))):
        assert tree.names() == sorted(FILES)
        assert {name: tree.read(name) for name in tree.names()} == FILES


def test_names_that_lead_outside_an_archive_are_ignored_and_nothing_is_unpacked(tmp_path: Path) -> None:
    evil = dict.fromkeys(("../up.png", "/abs.png", "a/../../up.png", "C:/x.png", "a\\..\\x.png", "a//b.png"), b"evil")
    archive = write_zip(tmp_path / "in" / "z.zip", evil | FILES)
    assert open_tree(archive).names() == sorted(FILES)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "z.zip"]


def test_links_are_followed_at_the_top_only(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", {"1.png": b"one"})
    (elsewhere / "loop").symlink_to(elsewhere)
    top = write_folder(tmp_path / "top", {"b/2.png": b"two"})
    (top / "a").symlink_to(elsewhere)
    (top / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert open_tree(top).names() == ["a/1.png", "b/2.png"]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; expected a folder or a zip"):
        open_tree(tmp_path / "gone")


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the operating system's refusal, which the superuser never meets."""
    write_folder(tmp_path, FILES)

    def refuse(top: Path, onerror: object) -> None:
        assert callable(onerror)
        onerror(PermissionError(13, "Permission denied", str(top)))

    monkeypatch.setattr("metantk_nas.episodes.tree.os.walk", refuse)
    with pytest.raises(DataError, match=r"may not be read .*Permission denied.* change its permissions"):
        open_tree(tmp_path)


def test_a_damaged_member_is_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    files = class_files(2) | {"class00/hurt.png": encode(noise(40, 40))}
    archive = write_zip(tmp_path / "own.zip", files)
    with zipfile.ZipFile(archive) as opened:
        offset = opened.getinfo("class00/hurt.png").header_offset + 60
    content = bytearray(archive.read_bytes())
    content[offset + 500] ^= 0xFF
    archive.write_bytes(content)
    dataset = load_dataset(str(archive), image_size=4)
    assert [skipped.path for skipped in dataset.skipped] == ["class00/hurt.png"]
    assert "CRC" in dataset.skipped[0].reason
    assert dataset.base.n_images == 12
