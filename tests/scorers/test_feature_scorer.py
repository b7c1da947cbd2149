import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.errors import DataError
from metantk_nas.networks.build import resize
from metantk_nas.rng import child_seed, numpy_generator
from metantk_nas.scorers.features import (
    FeatureScorer,
    Pool,
    draw_pool,
    leave_one_out_loss,
    prototype_logits,
    ridge_logits,
)
from metantk_nas.spaces.load import load_space
from tests.contracts.scorer import ScorerContract, assert_close, make_setup, noise, noise_dataset, values
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone
from tests.reference import untrained_features as reference

POOL = {"n_classes": 12, "n_images": 10, "n_episodes": 30, "n_way": 3, "n_shot": 1, "n_query": 5}


def of_sizes(*sizes: int) -> FewShotDataset:
    """Classes with these numbers of images."""
    base = {f"class{index}": noise(f"class{index}", size) for index, size in enumerate(sizes)}
    return make_dataset("made up", {"base": base, "validation": {}, "novel": {}})


def pool_of(dataset: FewShotDataset, seed: int = 0, **options: int) -> Pool:
    return draw_pool(dataset, numpy_generator(seed, "pool"), **{**POOL, **options})


class TestFeatureScorer(ScorerContract):
    scorer = FeatureScorer


class Small(FeatureScorer):
    """Few enough episodes for plain loops."""

    n_classes = 6
    n_images = 7
    n_episodes = 25


@pytest.mark.parametrize("n_shot", [1, 2])
@pytest.mark.parametrize("space", SPACES)
def test_every_value_is_that_of_plain_loops_on_a_network_built_alone(space: str, n_shot: int) -> None:
    setup = make_setup(space, seed=4, n_shot=n_shot, dtype=torch.float64)
    chunk = draw(setup.space, 2, seed=3)
    scorer = Small(setup)
    pool = draw_pool(
        setup.dataset,
        numpy_generator(4, "features", 1),
        **{**POOL, "n_classes": 6, "n_images": 7, "n_episodes": 25, "n_shot": n_shot},
    )
    labels = pool.labels.numpy()
    episodes = list(zip(pool.support.numpy(), pool.query.numpy(), strict=True))
    for finding, genotype in zip(scorer.score(chunk, 1), chunk, strict=True):
        alone = build_alone(setup.space, genotype, seed=child_seed(4, "repeat", 1), in_channels=3).double()
        features = reference.unit_features(alone, pool.images.double())
        assert dict(finding.values) == pytest.approx(
            {
                "prototype_accuracy": reference.prototype_accuracy(features, labels, episodes),
                "ridge_accuracy": reference.ridge_accuracy(features, labels, episodes, ridge=0.1),
                "ridge_loss": reference.leave_one_out_loss(features, labels, ridge=0.1),
                "feature_effective_rank": reference.effective_rank(features),
            },
            rel=1e-7,
        )


@pytest.mark.parametrize("space", SPACES)
def test_in_single_precision_a_chunk_finds_what_each_finds_alone(space: str) -> None:
    """An accuracy may differ by a query or two of 6,000 that rounding decides."""
    wide = resize(load_space(space), init_channels=16, n_cells=3)
    single, double = (FeatureScorer(make_setup(wide, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    chunk = draw(wide, 3, seed=1)
    together = values(single.score(chunk, 0))
    for other in (values([single.score([genotype], 0)[0] for genotype in chunk]), values(double.score(chunk, 0))):
        for first, second in zip(together, other, strict=True):
            assert first == pytest.approx(second, rel=1e-4, abs=5e-4)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make_setup(dtype=torch.float64)
    chunk = draw(setup.space, 2)
    expected = FeatureScorer(setup).score(chunk, 0)
    monkeypatch.setattr(FeatureScorer, "batch", 7)
    assert_close(FeatureScorer(setup).score(chunk, 0), expected)


def test_classes_that_look_different_are_told_apart_better_than_classes_that_do_not() -> None:
    """Noise around a picture of each class, and noise alone."""
    rng = numpy_generator(0, "alike")
    pictures = rng.integers(0, 256, (8, 1, 12, 12, 3))
    found = []
    for share in (0.9, 0.0):
        images = share * pictures + (1 - share) * rng.integers(0, 256, (8, 12, 12, 12, 3))
        base = {f"class{i}": some.astype(np.uint8) for i, some in enumerate(images)}
        setup = make_setup(dataset=make_dataset("made up", {"base": base, "validation": {}, "novel": {}}))
        found.append(values(FeatureScorer(setup).score(draw(setup.space, 3, seed=1), 0)))
    for told, guessed in zip(*found, strict=True):
        for name in ("prototype_accuracy", "ridge_accuracy"):
            assert told[name] > 0.8
            assert guessed[name] == pytest.approx(1 / 3, abs=0.1)
        assert told["ridge_loss"] < 0.8 < guessed["ridge_loss"]


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 3), st.integers(4, 9))
def test_an_episode_has_its_classes_and_no_image_twice(seed: int, n_way: int, n_shot: int, n_images: int) -> None:
    pool = pool_of(of_sizes(4, 9, 5, 7, 4), seed, n_way=n_way, n_shot=n_shot, n_images=n_images, n_episodes=3)
    n_query = min(5, 4 - n_shot)
    assert pool.support.shape == (3, n_way * n_shot)
    assert pool.query.shape == (3, n_way * n_query)
    for support, query in zip(pool.support, pool.query, strict=True):
        classes = pool.labels[support].unique_consecutive()
        assert len(set(classes.tolist())) == n_way
        assert pool.labels[support].tolist() == classes.repeat_interleave(n_shot).tolist()
        assert pool.labels[query].tolist() == classes.repeat_interleave(n_query).tolist()
        rows = [*support.tolist(), *query.tolist()]
        assert len(set(rows)) == len(rows)


def test_a_pool_shows_each_image_of_each_class_once() -> None:
    pool = pool_of(of_sizes(20, 20, 20, 20), n_classes=3, n_images=6)
    assert pool.images.shape == (18, 3, 12, 12)
    assert pool.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert len(pool.images.flatten(1).unique(dim=0)) == 18
    within, across = (
        torch.cdist(pool.images[:6].flatten(1), pool.images[part].flatten(1)).mean()
        for part in (slice(6), slice(6, 18))
    )
    assert within < across


def test_small_data_make_do_with_what_there_is() -> None:
    """Fewer classes, fewer images, fewer queries; a class without an image to spare stays out."""
    pool = pool_of(of_sizes(1, 2, 3, 9), n_classes=40, n_images=12)
    assert sorted(pool.labels.bincount().tolist()) == [2, 3, 9]
    assert pool.query.shape[1] == 3
    (finding,) = FeatureScorer(make_setup(dataset=of_sizes(2, 2, 2))).score(draw(make_setup().space, 1), 0)
    assert finding.status == "ok"


def test_too_few_classes_are_refused_with_what_to_do() -> None:
    message = r"need 3 base classes of at least 2 support \+ 1 query images; data set 'made up' has 2 of 4; add images"
    with pytest.raises(DataError, match=message):
        pool_of(of_sizes(2, 2, 3, 9), n_shot=2)


def test_a_pool_of_fewer_classes_than_ways_is_drawn_larger() -> None:
    assert pool_of(noise_dataset(), n_classes=2, n_images=1, n_way=5).labels.bincount().tolist() == [2] * 5


def test_what_tells_no_image_from_another_has_no_signal() -> None:
    setup = make_setup()
    chunk = [draw(setup.space, 1)[0], setup.space.parse(NOTHING)]
    for _ in range(2):
        healthy, nothing = FeatureScorer(setup).score(chunk, 0)
        assert healthy.status == "ok"
        assert nothing.status == "no_signal"
        assert "no path from input to output" in nothing.reason
        assert all(math.isnan(value) for value in nothing.values.values())
        setup.network(0).final[0].bias.data.fill_(1)  # features of one for every image


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_touches_its_users_alone(broken: float) -> None:
    setup = make_setup()
    texts = (
        f"|{op}~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
        for op in ("nor_conv_3x3", "nor_conv_1x1")
    )
    setup.network(0).cells[0].ops["0_0_nor_conv_3x3"][1].weight.data.fill_(broken)
    first, second = FeatureScorer(setup).score([setup.space.parse(text) for text in texts], 0)
    assert first.status == "not_finite"
    assert second.status == "ok"


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3]))
def test_prototypes_and_a_very_strong_ridge_agree_where_class_means_are_equally_long(seed: int, n_shot: int) -> None:
    """With one unit vector a class, both rank by q·s."""
    unit = torch.randn(9, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    support, query = torch.nn.functional.normalize(unit, dim=-1).tensor_split([3])
    support = support.repeat_interleave(n_shot, dim=0)
    k_qs, k_ss = query @ support.mT, support @ support.mT
    nearest = prototype_logits(k_qs, k_ss, 3)
    distances = torch.cdist(query, support.unflatten(0, (3, n_shot)).mean(1))
    torch.testing.assert_close(1 - nearest, distances**2)
    strong = 1e6
    assert torch.equal(nearest.argmax(-1), ridge_logits(k_qs, k_ss, 3, ridge=strong).argmax(-1))


def test_a_strong_ridge_learns_nothing() -> None:
    gram = torch.eye(12, dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(4)
    assert leave_one_out_loss(gram, labels, ridge=1e9).item() == pytest.approx(1)
    assert leave_one_out_loss((labels[:, None] == labels).double(), labels, ridge=1e-9).item() == pytest.approx(
        0, abs=1e-6
    )
