import time
from typing import Any

import numpy as np
import pytest

from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError
from tests.contracts.dataset import SPLITS, DatasetContract, nearest_prototype_accuracy


class TestGlyphs(DatasetContract):
    n_channels = 1

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls) -> dict[str, Any]:
        return {"name_or_path": "glyphs", "image_size": 20, "n_base": 10, "n_validation": 4, "n_novel": 4}


def test_the_default_set_is_drawn_in_five_seconds_of_one_core() -> None:
    start = time.process_time()
    dataset = load_dataset("glyphs", image_size=32)
    assert time.process_time() - start < 5
    assert [len(dataset.split(name).classes) for name in SPLITS] == [60, 20, 20]
    assert {len(images) for name in SPLITS for images in dataset.split(name).images} == {20}


def test_raw_pixels_are_about_as_hard_as_in_omniglot() -> None:
    dataset = load_dataset("glyphs", image_size=32)
    assert 43 < nearest_prototype_accuracy(dataset, n_shot=1, n_episodes=150) < 57
    assert 72 < nearest_prototype_accuracy(dataset, n_shot=5, n_episodes=150) < 86


def test_strokes_are_white_on_black_and_antialiased() -> None:
    base = load_dataset("glyphs", image_size=32, n_validation=0, n_novel=0).base
    pixels = np.concatenate(base.images)
    assert np.median(pixels) == 0
    assert pixels.max() == 255
    assert 0.03 < ((pixels > 0) & (pixels < 255)).mean() < 0.2
    assert all((image > 127).any() for image in pixels)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_two_characters_look_alike(seed: int) -> None:
    """Each character's mean drawing is told from all others by other drawings; both seeds draw near twins at first."""
    dataset = load_dataset("glyphs", image_size=20, n_drawings=100, seed=seed)
    drawings = [images.reshape(100, -1) / 255 for split in SPLITS for images in dataset.split(split).images]
    means = np.stack([some[:50].mean(axis=0) for some in drawings])
    others = np.stack([some[50:].mean(axis=0) for some in drawings])
    distances = np.linalg.norm(means[:, None] - others, axis=-1)
    assert distances.argmin(axis=1).tolist() == list(range(100))


def test_the_seed_chooses_the_characters() -> None:
    sizes: dict[str, Any] = {"n_base": 4, "n_validation": 0, "n_novel": 0}
    first, second = (load_dataset("glyphs", image_size=16, seed=seed, **sizes) for seed in (0, 1))
    assert first.fingerprint != second.fingerprint


def test_more_drawings_or_classes_keep_those_that_were_there() -> None:
    few = load_dataset("glyphs", image_size=16, n_base=3, n_drawings=4).base
    many = load_dataset("glyphs", image_size=16, n_base=5, n_drawings=9).base
    for label in range(3):
        np.testing.assert_array_equal(few.images[label], many.images[label][:4])


@pytest.mark.parametrize("options", [{"n_base": 0}, {"n_novel": -1}, {"n_drawings": 0}])
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="n_base >= 1"):
        load_dataset("glyphs", image_size=16, **options)


def test_a_supply_of_characters_that_runs_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metantk_nas.episodes.glyphs._ALIKE", 0.0)
    with pytest.raises(DataError, match="no character unlike the first 1; ask for fewer"):
        load_dataset("glyphs", image_size=16)


def test_progress_counts_characters() -> None:
    seen: list[tuple[str, int, int]] = []
    sizes: dict[str, Any] = {"n_base": 2, "n_validation": 1, "n_novel": 0}
    load_dataset("glyphs", image_size=8, progress=lambda *state: seen.append(state), **sizes)
    assert seen == [("drawing glyphs", done, 3) for done in (1, 2, 3)]
