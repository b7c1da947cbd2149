import numpy as np
import pytest
import torch

from metantk_nas.episodes.dataset import Images, SkippedImage, make_dataset
from metantk_nas.errors import DataError


def pixels(*levels: int, n_channels: int = 1) -> Images:
    """Images of 2x2 pixels, each of one level."""
    images = np.array(levels, np.uint8)[:, None, None, None]
    return np.broadcast_to(images, (len(levels), 2, 2, n_channels)).copy()


def test_statistics_are_those_of_the_base_images_per_channel() -> None:
    base = {"a": pixels(0, 255, n_channels=3), "b": pixels(51, n_channels=3)}
    base["b"][..., 2] = 102
    dataset = make_dataset("toy", {"base": base, "validation": {"c": pixels(9, n_channels=3)}, "novel": {}})
    scaled = np.concatenate(list(base.values())) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


def test_to_tensor_scales_and_puts_channels_first() -> None:
    base = pixels(0, 255, n_channels=3)
    base[1, 0, 1, 2] = 51
    dataset = make_dataset("toy", {"base": {"a": base}, "validation": {}, "novel": {}})
    tensor = dataset.to_tensor(base)
    assert tensor.shape == (2, 3, 2, 2)
    assert tensor.dtype == torch.float32
    expected = (0.2 - dataset.mean[2]) / dataset.std[2]
    assert tensor[1, 2, 0, 1].item() == pytest.approx(expected, rel=1e-6)


def test_a_channel_that_never_varies_is_only_centred() -> None:
    dataset = make_dataset("toy", {"base": {"a": pixels(51, 51)}, "validation": {}, "novel": {}})
    assert dataset.std == (1.0,)
    assert dataset.to_tensor(pixels(51)).abs().max() < 1e-6


def test_the_fingerprint_follows_pixels_and_names_and_splits() -> None:
    def fingerprint(level: int = 1, name: str = "a", split: str = "novel") -> str:
        images = {"base": {"x": pixels(5)}, "validation": {}, "novel": {}}
        return make_dataset("toy", images | {split: {name: pixels(level)}}).fingerprint

    alike = fingerprint()
    assert fingerprint() == alike
    assert len({alike, fingerprint(level=2), fingerprint(name="b"), fingerprint(split="validation")}) == 4


def test_a_data_set_without_base_images_says_what_was_skipped() -> None:
    images = {"base": {"a": pixels()}, "validation": {}, "novel": {}}
    with pytest.raises(DataError, match=r"'toy' has no readable image .* first of 1 skipped: a/1.png \(broken\)"):
        make_dataset("toy", images, [SkippedImage("a/1.png", "broken")])


def test_an_unknown_split_is_refused() -> None:
    dataset = make_dataset("toy", {"base": {"a": pixels(1)}, "validation": {}, "novel": {}})
    with pytest.raises(DataError, match=r"split 'novl' not found; .* Did you mean 'novel'"):
        dataset.split("novl")
