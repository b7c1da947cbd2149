import math

import pytest
import torch

from metantk_nas.errors import DataError, UsageError
from metantk_nas.scorers.setup import KernelSettings
from tests.contracts.scorer import make_setup, noise_dataset


def test_rows_are_queries_then_support_grouped_by_episode() -> None:
    setup = make_setup(n_shot=2, n_query=1, n_episodes=2)
    rows = setup.rows(0)
    assert rows.images.shape == (2 * (3 + 6), 3, 12, 12)
    assert (rows.layout.n_episodes, rows.layout.n_support, rows.layout.n_query_total) == (2, 6, 3)
    assert rows.query_labels.tolist() == [[0, 1, 2]] * 2
    assert rows.support_labels.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    flat = rows.images.flatten(1)
    own, other = (torch.cdist(flat[rows.layout.query(0)], flat[rows.layout.support(i)]) for i in (0, 1))
    assert own.argmin(1).tolist() in [[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    assert own.min(1).values.sum() < other.min(1).values.sum()


def test_no_image_is_shown_twice_where_there_are_enough() -> None:
    setup = make_setup(dataset=noise_dataset(n_classes=6, n_images=8), n_episodes=3)
    for repeat in range(6):
        rows = setup.rows(repeat)
        assert len(rows.images.unique(dim=0)) == len(rows.images) == 18
        assert rows.distinct.tolist() == list(range(18))


def test_distinct_rows_are_the_first_that_show_their_image() -> None:
    rows = make_setup(dataset=noise_dataset(n_classes=3, n_images=2), n_episodes=3).rows(0)
    shown = [image.numpy().tobytes() for image in rows.images]
    assert rows.distinct.tolist() == [index for index, image in enumerate(shown) if image not in shown[:index]]
    assert len(rows.distinct) == 6


def test_repeats_have_their_own_weights_and_episodes_made_once() -> None:
    setup = make_setup()
    assert setup.network(0) is setup.network(0)
    assert setup.rows(0) is setup.rows(0)
    assert not torch.equal(setup.network(0).head.weight, setup.network(1).head.weight)
    assert not torch.equal(setup.rows(0).images, setup.rows(1).images)


def test_a_repeat_does_not_depend_on_those_before_it() -> None:
    first, second = make_setup(), make_setup()
    first.rows(0), first.network(0)
    assert torch.equal(first.rows(2).images, second.rows(2).images)
    assert torch.equal(first.network(2).head.weight, second.network(2).head.weight)


def test_networks_have_an_output_for_each_class_and_are_frozen_in_evaluation() -> None:
    network = make_setup(n_way=4, dtype=torch.float64).network(0)
    assert network.head.out_features == 4
    assert network.head.weight.dtype == torch.float64
    assert not network.training


@pytest.mark.parametrize("options", [{"inner_time": -1.0}, {"inner_time": math.nan}, {"inner_reg": -1e-3}])
def test_an_impossible_inner_loop_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"inner loop got .*; expected both at least 0"):
        KernelSettings(**options)


def test_unknown_settings_are_named_with_their_near_miss() -> None:
    with pytest.raises(UsageError, match=r"adaptation 'mmal' not found; available: anil, maml\. Did you mean 'maml'\?"):
        KernelSettings(adaptation="mmal")
    with pytest.raises(UsageError, match=r"output_reduction 'mean' not found; available: sum, trace"):
        KernelSettings(output_reduction="mean")


def test_more_ways_than_classes_are_refused() -> None:
    with pytest.raises(DataError, match="has 8 classes, but 9-way episodes need 9"):
        make_setup(n_way=9).rows(0)
