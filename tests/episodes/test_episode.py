from typing import Any

import numpy as np
import pytest
import torch

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.episodes.episode import EpisodeSampler, kernel_rows, stack_episodes
from metantk_nas.errors import DataError, ShapeError
from metantk_nas.rng import numpy_generator
from tests.contracts.dataset import digest, sampler


@pytest.fixture(scope="module")
def dataset() -> FewShotDataset:
    """Eight classes in each split, ten 4x4 images each, but only four of class ``base7``."""
    rng = numpy_generator(0, "test")
    images = {
        split: {
            f"{split}{label}": rng.integers(0, 256, (4 if (split, label) == ("base", 7) else 10, 4, 4, 1), np.uint8)
            for label in range(8)
        }
        for split in ("base", "validation", "novel")
    }
    return make_dataset("toy", images)


def test_seed_name_and_split_each_give_other_episodes(dataset: FewShotDataset) -> None:
    digests = {
        digest(sampler(dataset)(0)),
        digest(sampler(dataset, seed=6)(0)),
        digest(sampler(dataset, name="evaluation")(0)),
        digest(sampler(dataset, "validation")(0)),
    }
    assert len(digests) == 4


def test_splits_of_equal_shape_are_not_drawn_alike(dataset: FewShotDataset) -> None:
    """Else the n-th novel episode would mirror the n-th validation episode."""
    validation, novel = (
        [name.removeprefix(split) for episode in sampler(dataset, split).batch(0, 5) for name in episode.class_names]
        for split in ("validation", "novel")
    )
    assert validation != novel


def test_every_class_and_image_gets_its_turn(dataset: FewShotDataset) -> None:
    episodes = sampler(dataset, n_way=2, n_shot=1, n_query=1).batch(0, 400)
    names, counts = np.unique([name for episode in episodes for name in episode.class_names], return_counts=True)
    assert len(names) == 8
    assert counts.min() > 70, "800 draws of 8 classes, 100 each on average"
    seen = {image.numpy().tobytes() for episode in episodes for image in episode.support_images}
    assert len(seen) == 80


def test_more_shots_keep_the_queries_and_more_queries_keep_the_support(dataset: FewShotDataset) -> None:
    plain, shots, queries = (sampler(dataset, n_shot=n, n_query=m)(3) for n, m in ((1, 2), (5, 2), (1, 7)))
    assert plain.class_names == shots.class_names == queries.class_names
    assert torch.equal(plain.query_images, shots.query_images)
    assert torch.equal(plain.support_images, shots.support_images[::5])
    assert torch.equal(plain.support_images, queries.support_images)


def test_batch_is_the_episodes_in_order(dataset: FewShotDataset) -> None:
    draw = sampler(dataset)
    assert [digest(episode) for episode in draw.batch(2, 3)] == [digest(draw.episode(i)) for i in (2, 3, 4)]


def test_more_ways_than_classes_are_refused(dataset: FewShotDataset) -> None:
    with pytest.raises(DataError, match=r"split 'novel' of data set 'toy' has 8 classes, but 9-way .* lower n_way "):
        sampler(dataset, n_way=9)


def test_a_class_with_too_few_images_sits_out(dataset: FewShotDataset) -> None:
    draw = sampler(dataset, "base", n_way=7)
    assert draw.left_out == ("base7",)
    drawn = {name for episode in draw.batch(0, 5) for name in episode.class_names}
    assert drawn == {f"base{label}" for label in range(7)}
    assert sampler(dataset, "base", n_query=2).left_out == ()


def test_where_too_few_classes_have_the_images_the_smallest_is_named(dataset: FewShotDataset) -> None:
    message = r"class 'base7' in split 'base' .* has 4 images, but 2 support \+ 3 query .* need 5, and 8-way .* 8 such"
    with pytest.raises(DataError, match=message):
        sampler(dataset, "base", n_way=8)
    with pytest.raises(DataError, match=r"class 'base7' .* \(and 7 more classes fall short\)"):
        sampler(dataset, "base", n_query=20)


@pytest.mark.parametrize("wrong", [{"n_way": 1}, {"n_shot": 0}, {"n_query": 0}])
def test_empty_episodes_are_refused(dataset: FewShotDataset, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="n_way >= 2, n_shot >= 1 and n_query >= 1"):
        sampler(dataset, **wrong)


def test_stacking_keeps_every_episode(dataset: FewShotDataset) -> None:
    episodes = sampler(dataset).batch(0, 4)
    batch = stack_episodes(episodes)
    assert batch.support_images.shape == (4, 6, 1, 4, 4)
    assert batch.query_labels.shape == (4, 9)
    assert batch.n_way == 3
    for index, episode in enumerate(episodes):
        assert torch.equal(batch.support_images[index], episode.support_images)
        assert torch.equal(batch.query_images[index], episode.query_images)
        assert torch.equal(batch.support_labels[index], episode.support_labels)
        assert batch.class_names[index] == episode.class_names


def test_kernel_rows_are_where_the_layout_says(dataset: FewShotDataset) -> None:
    episodes = sampler(dataset).batch(0, 3)
    rows, layout, labels = kernel_rows(episodes)
    assert (layout.n_episodes, layout.n_support, layout.n_query_total) == (3, 6, 9)
    assert len(rows) == layout.n_rows == 45
    for index, episode in enumerate(episodes):
        assert torch.equal(rows[layout.query(index)], episode.query_images)
        assert torch.equal(rows[layout.support(index)], episode.support_images)
        assert torch.equal(labels.query[index], episode.query_labels)
        assert torch.equal(labels.support[index], episode.support_labels)


def test_episodes_of_different_shapes_do_not_stack(dataset: FewShotDataset) -> None:
    with pytest.raises(ShapeError, match="same n_way, support and query shapes"):
        kernel_rows([sampler(dataset)(0), sampler(dataset, n_shot=1)(0)])
    with pytest.raises(ShapeError, match="one or more"):
        stack_episodes([])


def test_an_episode_moves_with_all_its_tensors(dataset: FewShotDataset) -> None:
    episode = sampler(dataset)(0)
    for moved in (episode.to("meta"), stack_episodes([episode]).to("meta")):
        tensors = (moved.support_images, moved.support_labels, moved.query_images, moved.query_labels)
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert episode.to("cpu").class_names == episode.class_names


def test_the_sampler_says_what_it_draws(dataset: FewShotDataset) -> None:
    draw = EpisodeSampler(dataset, "novel", n_way=2, n_shot=1, n_query=1, seed=0)
    assert (draw.split.name, draw.name) == ("novel", "episodes")
