import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from metantk_nas.errors import ShapeError
from metantk_nas.kernels.gram import Grams
from metantk_nas.kernels.metantk import adaptation_loss, adaptation_map, metantk
from metantk_nas.networks.build import build_shared
from metantk_nas.types import EpisodeLayout
from tests.contracts.space import draw
from tests.kernels.test_gram import N_OUTPUTS, shared_grams
from tests.networks.chunks import SPACES, build_alone, images, small
from tests.reference.dense_ntk import dense_adaptation_loss, dense_metantk, dense_ntk

LAYOUT = EpisodeLayout(n_episodes=2, n_support=3, n_query_total=4)
INNER = {"inner_time": 0.05, "inner_reg": 1e-3}


def jacobian(*batch: int, n_parameters: int = 40, layout: EpisodeLayout = LAYOUT) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, layout.n_rows, n_parameters, generator=generator, dtype=torch.float64)


def gram(jacobian: Tensor) -> Tensor:
    return jacobian @ jacobian.mT


@cache
def grams_both_ways(name: str) -> tuple[dict[torch.dtype, Grams], list[dict[str, np.ndarray]]]:
    """Grams of a chunk of two, and those of each candidate built alone from one gradient per row."""
    space, rows, chunk = small(name), images(8), draw(small(name), 2, seed=2)
    shared = build_shared(space, n_outputs=N_OUTPUTS, in_channels=2, seed=0)
    fast = {
        dtype: shared_grams(shared.to(dtype), space, chunk, rows.to(dtype)) for dtype in (torch.float32, torch.float64)
    }
    alone = [build_alone(space, genotype).double() for genotype in chunk]
    return fast, [{"maml": dense_ntk(some, rows), "anil": dense_ntk(some, rows, only="head")} for some in alone]


@pytest.mark.parametrize("inner_time", [0.01, math.inf])
@pytest.mark.parametrize("adaptation", ["maml", "anil"])
@pytest.mark.parametrize("name", SPACES)
def test_a_chunk_equals_the_dense_kernel_of_each_candidate_built_alone(
    name: str, adaptation: str, inner_time: float
) -> None:
    """From images to the MetaNTK and the adaptation loss: 1e-8 in float64, 1e-4 in float32."""
    layout, labels = EpisodeLayout(2, 2, 2), torch.tensor([[0, 2], [2, 0]])
    fast, dense = grams_both_ways(name)
    for dtype, bound in ((torch.float32, 1e-4), (torch.float64, 1e-8)):
        base = fast[dtype].ntk if adaptation == "maml" else fast[dtype].head
        inner = {"inner_time": inner_time, "inner_reg": 1e-3}
        found = metantk(fast[dtype].ntk, base, layout, **inner)
        loss = adaptation_loss(base, layout, labels, labels, n_way=3, **inner)
        for candidate, grams in enumerate(dense):
            plain = {"tau": inner_time, "reg": 1e-3}
            expected = dense_metantk(grams["maml"], grams[adaptation], n_episodes=2, n_support=2, n_query=2, **plain)
            np.testing.assert_allclose(found[candidate].numpy(), expected, rtol=0, atol=bound * np.abs(expected).max())
            expected_loss = dense_adaptation_loss(grams[adaptation], labels.tolist(), labels.tolist(), n_way=3, **plain)
            assert loss[candidate].item() == pytest.approx(expected_loss, rel=bound)


def test_it_is_the_gram_of_the_adapted_jacobian() -> None:
    """J_meta = J_Q − A J_S, so the MetaNTK is symmetric and positive semi-definite."""
    rows = jacobian(3)
    theta = gram(rows)
    adapted = adaptation_map(theta, LAYOUT, **INNER)
    meta = rows[:, : LAYOUT.n_query_rows] - adapted @ rows[:, LAYOUT.n_query_rows :]
    found = metantk(theta, theta, LAYOUT, **INNER)
    torch.testing.assert_close(found, gram(meta), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, found.mT, rtol=1e-10, atol=1e-10)
    assert (torch.linalg.eigvalsh(found)[:, 0] > 0).all()


def test_episodes_do_not_adapt_to_each_other() -> None:
    adapted = adaptation_map(gram(jacobian()), LAYOUT, **INNER)
    assert adapted[:4, :3].all()
    assert adapted[4:, 3:].all()
    assert not adapted[:4, 3:].any()
    assert not adapted[4:, :3].any()


def test_permuting_episodes_permutes_blocks() -> None:
    layout = EpisodeLayout(n_episodes=3, n_support=2, n_query_total=3)
    theta = gram(jacobian(layout=layout))
    order = [2, 0, 1]
    rows = torch.cat([torch.arange(layout.n_rows)[part(i)] for part in (layout.query, layout.support) for i in order])
    before = metantk(theta, theta, layout, **INNER)
    after = metantk(theta[rows][:, rows], theta[rows][:, rows], layout, **INNER)
    query = rows[: layout.n_query_rows]
    torch.testing.assert_close(after, before[query][:, query], rtol=1e-10, atol=1e-10)


def test_without_adaptation_it_is_the_ntk_of_the_queries() -> None:
    theta = gram(jacobian(2))
    found = metantk(theta, theta, LAYOUT, inner_time=0.0, inner_reg=1e-3)
    assert torch.equal(found, theta[:, : LAYOUT.n_query_rows, : LAYOUT.n_query_rows])


def test_a_long_inner_time_approaches_the_exact_inner_loop() -> None:
    theta = gram(jacobian())
    limit = metantk(theta, theta, LAYOUT, inner_time=math.inf, inner_reg=1e-3)
    distances = [
        (metantk(theta, theta, LAYOUT, inner_time=time, inner_reg=1e-3) - limit).norm() for time in (0.01, 0.1, 1, 10)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-10 * limit.norm()


def test_an_exact_inner_loop_without_ridge_removes_what_the_support_explains() -> None:
    """A J_S is then the projection of J_Q on the span of the support's gradients."""
    layout = EpisodeLayout(n_episodes=1, n_support=3, n_query_total=4)
    rows = jacobian(layout=layout)
    found = metantk(gram(rows), gram(rows), layout, inner_time=math.inf, inner_reg=0.0)
    query, support = rows[:4], rows[4:]
    projection = torch.linalg.pinv(support) @ support
    torch.testing.assert_close(found, gram(query - query @ projection), rtol=1e-8, atol=1e-8)


def test_scaling_both_kernels_scales_the_exact_metantk() -> None:
    theta = gram(jacobian())
    before = metantk(theta, theta, LAYOUT, inner_time=math.inf, inner_reg=0.0)
    after = metantk(7 * theta, 7 * theta, LAYOUT, inner_time=math.inf, inner_reg=0.0)
    torch.testing.assert_close(after, 7 * before, rtol=1e-8, atol=1e-8)


def test_trouble_stays_with_its_own_candidate() -> None:
    theta = gram(jacobian(3))
    broken = theta.clone()
    broken[1, 0, 0] = torch.nan
    found = metantk(broken, broken, LAYOUT, **INNER)
    assert found[1].isnan().any()
    healthy = torch.tensor([0, 2])
    torch.testing.assert_close(found[healthy], metantk(theta, theta, LAYOUT, **INNER)[healthy])


@pytest.mark.parametrize("inner_time", [0.02, math.inf])
def test_the_adaptation_loss_equals_plain_kernel_regression(inner_time: float) -> None:
    base = gram(jacobian(2))
    support, query = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[2, 1, 0, 0], [1, 0, 2, 1]])
    inner = {"inner_time": inner_time, "inner_reg": 1e-3}
    found = adaptation_loss(base, LAYOUT, support, query, n_way=3, **inner)
    for index in range(2):
        expected = dense_adaptation_loss(
            base[index].numpy(), support.tolist(), query.tolist(), n_way=3, tau=inner_time, reg=1e-3
        )
        assert found[index].item() == pytest.approx(expected, rel=1e-10)


def test_the_adaptation_loss_of_no_adaptation_is_the_labels_variance() -> None:
    labels = torch.tensor([[0, 1, 2, 0], [1, 1, 2, 0]])
    found = adaptation_loss(gram(jacobian()), LAYOUT, labels[:, :3], labels, n_way=3, inner_time=0.0, inner_reg=1e-3)
    assert found.item() == pytest.approx(LAYOUT.n_query_total * (1 - 1 / 3))


def test_the_adaptation_loss_vanishes_for_queries_that_are_the_support() -> None:
    layout = EpisodeLayout(n_episodes=2, n_support=3, n_query_total=3)
    support = jacobian(layout=layout)[:6]
    base = gram(torch.cat([support, support]))
    labels = torch.tensor([[0, 1, 2], [1, 0, 2]])
    found = adaptation_loss(base, layout, labels, labels, n_way=3, inner_time=math.inf, inner_reg=0.0)
    assert found.item() == pytest.approx(0, abs=1e-12)


def test_a_layout_of_other_rows_is_refused() -> None:
    theta = gram(jacobian())
    with pytest.raises(ShapeError, match=r"base has 13×13 entries; expected 14 rows: 2 episodes × \(4 query \+ 3 su"):
        metantk(theta[1:, 1:], theta[1:, 1:], LAYOUT, **INNER)
    with pytest.raises(ShapeError, match=r"theta has shape \(13, 13\), base \(14, 14\); expected equal"):
        metantk(theta[1:, 1:], theta, LAYOUT, **INNER)
