import os
from pathlib import Path

import numpy as np
import pytest

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.load import load_dataset
from tests.episodes.images import class_files, encode, noise, write_folder, write_zip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "own", class_files(3) | {"class00/broken.png": b"broken"})


def load(own: Path, cache_dir: Path, image_size: int = 8) -> tuple[FewShotDataset, int]:
    """The data set, and how many images were decoded to get it."""
    decoded: list[int] = []
    dataset = load_dataset(
        str(own), image_size=image_size, cache_dir=cache_dir, progress=lambda label, done, total: decoded.append(done)
    )
    return dataset, len(decoded)


def test_the_second_load_decodes_nothing_and_is_equal(own: Path, cache_dir: Path) -> None:
    first, n_first = load(own, cache_dir)
    second, n_second = load(own, cache_dir)
    assert (n_first, n_second) == (19, 0)
    assert first.fingerprint == second.fingerprint
    assert first.skipped == second.skipped
    assert first.skipped[0].path == "class00/broken.png"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "pickle"])
def test_a_damaged_cache_is_made_anew(own: Path, tmp_path: Path, damage: str) -> None:
    first, _ = load(own, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    replacement = {
        "cut": bytes(content[:-100]),
        "flipped": bytes(content),
        "empty": b"",
        "text": b"no archive",
        "pickle": b"",
    }
    path.write_bytes(replacement[damage])
    if damage == "pickle":
        with path.open("wb") as file:
            np.savez(file, classes=np.array([{"an": "object"}], dtype=object))
    again, n_decoded = load(own, tmp_path / "cache")
    assert n_decoded == 19
    assert again.fingerprint == first.fingerprint
    assert load(own, tmp_path / "cache")[1] == 0
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npz"], "no temporary file is left"


def test_another_image_size_is_another_cache(own: Path, cache_dir: Path) -> None:
    load(own, cache_dir)
    dataset, n_decoded = load(own, cache_dir, image_size=6)
    assert n_decoded == 19
    assert dataset.image_size == 6


def test_changed_originals_are_decoded_again(own: Path, cache_dir: Path) -> None:
    first, _ = load(own, cache_dir)
    path = own / "class01" / "image0.png"
    facts = path.stat()
    path.write_bytes(encode(noise(10, 14, seed=99)))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    second, n_decoded = load(own, cache_dir)
    assert n_decoded == 19
    assert second.fingerprint != first.fingerprint


def test_a_changed_archive_is_decoded_again(tmp_path: Path, cache_dir: Path) -> None:
    archive = write_zip(tmp_path / "own.zip", class_files(2))
    assert load(archive, cache_dir)[1] == 12
    assert load(archive, cache_dir)[1] == 0
    write_zip(archive, class_files(3))
    assert load(archive, cache_dir)[1] == 18


def test_a_cache_that_cannot_be_written_is_only_a_warning(own: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be kept in .*file"):
        dataset, n_decoded = load(own, tmp_path / "file")
    assert n_decoded == 19
    assert dataset.base.n_images == 18
