"""What every data set promises; a data set's own test file inherits this and says how to load it."""

import hashlib
import json
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.episode import Episode, EpisodeSampler
from metantk_nas.episodes.load import load_dataset

SPLITS = ("base", "validation", "novel")
IN_ANOTHER_PROCESS = """
import json, pathlib, sys
from metantk_nas.episodes.load import load_dataset
from tests.contracts.dataset import digest, sampler
arguments = {k: pathlib.Path(v) if k.endswith(("_dir", "_root")) else v for k, v in json.loads(sys.argv[1]).items()}
dataset = load_dataset(**arguments)
print(dataset.fingerprint, digest(sampler(dataset)(7)))
"""


def sampler(dataset: FewShotDataset, split: str = "novel", **options: Any) -> EpisodeSampler:
    return EpisodeSampler(dataset, split, **{"n_way": 3, "n_shot": 2, "n_query": 3, "seed": 5} | options)


def digest(episode: Episode) -> str:
    tensors = (episode.support_images, episode.query_images, episode.support_labels, episode.query_labels)
    content = b"".join(tensor.numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content + repr(episode.class_names).encode()).hexdigest()


def rows(images: Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


def nearest_prototype_accuracy(dataset: FewShotDataset, n_shot: int, n_episodes: int) -> float:
    """Percentage of 5-way novel queries whose nearest class mean in raw pixels is the right one."""
    draw = sampler(dataset, n_way=5, n_shot=n_shot, n_query=5)
    right = []
    for episode in map(draw, range(n_episodes)):
        prototypes = episode.support_images.reshape(5, n_shot, -1).mean(dim=1)
        nearest = torch.cdist(episode.query_images.flatten(1), prototypes).argmin(dim=1)
        right.append((nearest == episode.query_labels).double().mean().item())
    return 100 * float(np.mean(right))


class DatasetContract:
    """Subclasses define the class-scoped fixture ``arguments`` for `load_dataset`, and the number of channels."""

    n_channels: ClassVar[int]

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, arguments: dict[str, Any]) -> FewShotDataset:
        return load_dataset(**arguments)

    def test_images_are_bytes_of_the_size_asked_for(self, dataset: FewShotDataset, arguments: dict[str, Any]) -> None:
        size = arguments["image_size"]
        assert dataset.image_size == size
        assert dataset.n_channels == self.n_channels == len(dataset.mean) == len(dataset.std)
        for split in map(dataset.split, SPLITS):
            assert len(split.classes) == len(split.images) > 0
            assert split.n_images == sum(map(len, split.images)) > 0
            assert {images.dtype for images in split.images} == {np.dtype(np.uint8)}
            assert {images.shape[1:] for images in split.images} == {(size, size, self.n_channels)}

    def test_no_class_is_in_two_splits_or_named_twice(self, dataset: FewShotDataset) -> None:
        names = [name for split in SPLITS for name in dataset.split(split).classes]
        assert len(names) == len(set(names))

    def test_base_images_have_mean_zero_and_deviation_one(self, dataset: FewShotDataset) -> None:
        pixels = torch.cat([dataset.to_tensor(images) for images in dataset.base.images]).double()
        assert pixels.shape[1] == self.n_channels
        zeros = torch.zeros(self.n_channels, dtype=torch.float64)
        torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), zeros, atol=1e-5, rtol=0)
        torch.testing.assert_close(pixels.std(dim=(0, 2, 3), correction=0), zeros + 1, atol=1e-5, rtol=0)

    def test_a_fresh_process_loads_the_same_images_and_draws_the_same_episode(
        self, dataset: FewShotDataset, arguments: dict[str, Any]
    ) -> None:
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps(arguments, default=str)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert answer == [dataset.fingerprint, digest(sampler(dataset)(7))]

    @pytest.mark.parametrize("split", SPLITS)
    def test_an_episode_is_class_major_and_shows_every_class_it_names(
        self, dataset: FewShotDataset, split: str
    ) -> None:
        episode = sampler(dataset, split)(0)
        assert episode.support_labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert episode.query_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert episode.support_images.shape == (6, self.n_channels, *2 * [dataset.image_size])
        assert episode.query_images.shape == (9, self.n_channels, *2 * [dataset.image_size])
        assert len(set(episode.class_names)) == 3
        home = dataset.split(split)
        for label, name in enumerate(episode.class_names):
            known = set(rows(dataset.to_tensor(home.images[home.classes.index(name)])))
            assert known.issuperset(rows(episode.support_images[episode.support_labels == label]))
            assert known.issuperset(rows(episode.query_images[episode.query_labels == label]))

    def test_support_and_query_share_no_image(self, dataset: FewShotDataset) -> None:
        smallest = min(map(len, dataset.novel.images))
        episode = sampler(dataset, n_shot=2, n_query=smallest - 2)(0)
        for label, name in enumerate(episode.class_names):
            images = dataset.novel.images[dataset.novel.classes.index(name)]
            if len(images) == smallest:
                drawn = [
                    episode.support_images[episode.support_labels == label],
                    episode.query_images[episode.query_labels == label],
                ]
                assert rows(torch.cat(drawn)) == rows(dataset.to_tensor(images))

    def test_an_episode_depends_on_its_index_alone(self, dataset: FewShotDataset) -> None:
        draw = sampler(dataset)
        forward = [digest(episode) for episode in draw.batch(0, 4)]
        backward = [digest(sampler(dataset)(index)) for index in (3, 2, 1, 0)]
        assert forward == backward[::-1]
        assert len(set(forward)) == 4
