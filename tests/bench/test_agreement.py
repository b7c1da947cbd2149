import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import ndcg_score

from metantk_nas.bench.agreement import STATISTICS, Estimate, Yardstick, estimate, paired_difference
from metantk_nas.errors import UsageError
from tests.reference import agreement as reference

FEW = 20  # resamples, where intervals do not matter
CORRELATIONS = ("kendall", "spearman")


@st.composite
def scores_and_truths(draw: st.DrawFn) -> tuple[list[float | None], list[float], int]:
    """Up to six rows with many ties, some scores unknown, and the size of a head."""
    n = draw(st.integers(3, 6))
    score = draw(st.lists(st.sampled_from([None, 0.0, 1.0, 2.0, math.inf]), min_size=n, max_size=n))
    truth = draw(st.lists(st.integers(0, 4).map(float), min_size=n, max_size=n).filter(lambda row: len(set(row)) > 1))
    return score, truth, draw(st.integers(1, n))


def as_array(score: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in score])


def values_of(estimates: dict[str, Estimate]) -> dict[str, float]:
    return {name: found.value for name, found in estimates.items()}


def noisy(n: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A score and the truth that it foretells badly."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    return truth + noise * rng.normal(size=n), truth


@settings(deadline=None, max_examples=60)
@given(scores_and_truths())
def test_every_statistic_is_what_plain_loops_over_pairs_and_orders_find(case) -> None:
    score, truth, k = case
    found = values_of(Yardstick(np.array(truth), k, FEW).measure(as_array(score)))
    assert set(found) == set(STATISTICS)
    for name in CORRELATIONS:
        assert found[name] == pytest.approx(getattr(reference, name)(score, truth), abs=1e-12, nan_ok=True)
    for name in ("ndcg", "top_k_recall", "regret"):
        assert found[name] == pytest.approx(getattr(reference, name)(score, truth, k), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(scores_and_truths())
def test_a_resample_counts_as_the_rows_that_it_repeats(case) -> None:
    score, truth, k = as_array(case[0]), np.array(case[1]), case[2]
    yardstick = Yardstick(truth, k, FEW)
    draws = yardstick.draws(score)
    for draw in range(1, FEW + 1):
        times = yardstick.counts[:, draw].astype(int)
        repeated = np.repeat(truth, times)
        if np.ptp(repeated) == 0:
            assert np.isnan([draws[name][draw] for name in (*CORRELATIONS, "ndcg")]).all()
            continue
        alone = values_of(Yardstick(repeated, k, 1).measure(np.repeat(score, times)))
        assert {name: values[draw] for name, values in draws.items()} == pytest.approx(alone, abs=1e-9, nan_ok=True)


def test_correlations_and_gain_agree_with_scipy_and_scikit_learn() -> None:
    score, truth = noisy(300)
    score = score.round(1)  # ties
    found = values_of(Yardstick(truth, 25, FEW).measure(score))
    assert found["kendall"] == pytest.approx(kendalltau(score, truth).statistic, abs=1e-12)
    assert found["spearman"] == pytest.approx(spearmanr(score, truth).statistic, abs=1e-12)
    gain = (truth - truth.min()) / np.ptp(truth)
    assert found["ndcg"] == pytest.approx(ndcg_score([gain], [score], k=25), abs=1e-12)


@pytest.mark.parametrize("n", [1_023, 1_025, 2_100])
def test_pairs_are_counted_in_blocks_without_losing_any(n: int) -> None:
    score, truth = noisy(n)
    yardstick = Yardstick(truth, n_resamples=3)
    draws = yardstick.draws(score)["kendall"]
    for draw in range(4):
        rows = np.repeat(np.arange(n), yardstick.counts[:, draw].astype(int))
        assert draws[draw] == pytest.approx(kendalltau(score[rows], truth[rows]).statistic, abs=1e-12)


def test_the_truth_itself_is_a_perfect_score_and_its_opposite_the_worst() -> None:
    truth = np.random.default_rng(1).permutation(50).astype(float)
    yardstick = Yardstick(truth, 5, FEW)
    perfect = {"kendall": 1.0, "spearman": 1.0, "ndcg": 1.0, "top_k_recall": 1.0, "regret": 0.0}
    assert values_of(yardstick.measure(truth)) == pytest.approx(perfect)
    worst = values_of(yardstick.measure(truth, higher_is_better=False))
    assert [worst[name] for name in ("kendall", "spearman", "top_k_recall", "regret")] == pytest.approx([-1, -1, 0, 45])
    assert worst == pytest.approx(values_of(yardstick.measure(-truth)))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=30).filter(lambda row: len(set(row)) > 1), st.integers(0, 99))
def test_only_the_order_of_a_score_counts(score: list[float], seed: int) -> None:
    levels = np.unique(score, return_inverse=True)[1]  # so that the cube does not lose digits
    yardstick = Yardstick(np.random.default_rng(seed).normal(size=len(score)), None, FEW, seed)
    before, after = yardstick.draws(levels), yardstick.draws(np.exp(levels / 10.0) ** 3)
    for name, draws in before.items():
        np.testing.assert_allclose(after[name], draws, atol=1e-12)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_unknown_scores_come_last_in_either_direction(higher_is_better: bool) -> None:
    truth = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    score = np.array([4.0, 3.0, np.nan, 2.0, -np.inf]) * (1 if higher_is_better else -1)
    last = np.array([4.0, 3.0, 0.0, 2.0, 1.0])
    yardstick = Yardstick(truth, 2, FEW)
    assert values_of(yardstick.measure(score, higher_is_better=higher_is_better)) == values_of(yardstick.measure(last))


def test_a_constant_score_has_no_correlation_and_the_recall_of_chance() -> None:
    found = Yardstick(np.arange(20.0), 4, FEW).measure(np.zeros(20))
    assert math.isnan(found["kendall"].value)
    assert math.isnan(found["kendall"].low)
    assert math.isnan(found["spearman"].value)
    assert found["top_k_recall"].value == pytest.approx(4 / 20)


def test_an_interval_covers_what_is_true_of_the_population_about_as_often_as_it_says() -> None:
    n_samples, correlation = 150, 0.6
    true = {"kendall": 2 / math.pi * math.asin(correlation), "spearman": 6 / math.pi * math.asin(correlation / 2)}
    rng = np.random.default_rng(3)
    covered = dict.fromkeys(true, 0)
    for sample in range(n_samples):
        truth, noise = rng.normal(size=(2, 60))
        score = correlation * truth + math.sqrt(1 - correlation**2) * noise
        found = Yardstick(truth, None, 200, sample).measure(score)
        for name, value in true.items():
            covered[name] += found[name].low <= value <= found[name].high
    for count in covered.values():  # 95 % of 150 is 142.5 with a standard deviation of 2.7
        assert 0.88 * n_samples <= count <= 0.995 * n_samples


def test_the_difference_of_two_similar_scores_is_surer_than_either() -> None:
    score, truth = noisy(200, noise=2.0)
    other = score + 0.3 * np.random.default_rng(5).normal(size=200)
    difference = paired_difference(score, other, truth)
    first, second = (Yardstick(truth).measure(each)["kendall"] for each in (score, other))
    assert difference.value == pytest.approx(first.value - second.value)
    assert difference.high - difference.low < 0.5 * (first.high - first.low)


def test_a_difference_knows_directions_and_statistics() -> None:
    score, truth = noisy(60)
    same = paired_difference(score, -score, truth, "regret", higher_is_better=(True, False), n_resamples=FEW)
    assert same == Estimate(0.0, 0.0, 0.0)
    lead = paired_difference(truth, score, truth, "spearman", n_resamples=FEW)
    assert 0 < lead.low <= lead.value <= lead.high
    with pytest.raises(UsageError, match=r"statistic 'kendal' not found.*Did you mean 'kendall'"):
        paired_difference(score, score, truth, "kendal")


def test_resamples_depend_on_the_seed_alone() -> None:
    score, truth = noisy(40)
    assert Yardstick(truth, seed=4).measure(score) == Yardstick(truth, seed=4).measure(score)
    assert Yardstick(truth, seed=4).measure(score) != Yardstick(truth, seed=5).measure(score)


def test_many_architectures_get_fewer_resamples_and_a_head_of_ten() -> None:
    assert Yardstick(np.arange(2_000.0)).counts.shape == (2_000, 1_001)
    assert Yardstick(np.arange(2_001.0)).counts.shape == (2_001, 201)
    assert [Yardstick(np.arange(float(n))).k for n in (3, 12, 40, 5_000)] == [1, 3, 10, 10]


def test_an_interval_leaves_out_draws_in_which_nothing_is_defined() -> None:
    assert estimate(np.array([0.5, np.nan, 0.4, 0.4])) == Estimate(0.5, 0.4, 0.4)
    assert math.isnan(estimate(np.array([0.5, np.nan])).low)


@pytest.mark.parametrize(
    ("truth", "options", "message"),
    [
        ([1.0, 2.0], {}, "2 architectures .* expected at least 3"),
        ([1.0, 2.0, np.nan], {}, "not finite"),
        ([1.0, 1.0, 1.0], {}, "all 3 truths are 1; there is no order"),
        ([1.0, 2.0, 3.0], {"top_k": 4}, r"top k is 4; expected 1 … 3"),
        ([1.0, 2.0, 3.0], {"top_k": 0}, r"top k is 0"),
        ([1.0, 2.0, 3.0], {"n_resamples": 0}, "0 resamples make no interval"),
    ],
)
def test_what_cannot_be_measured_is_refused(truth: list[float], options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Yardstick(np.array(truth), **options)


def test_a_score_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match=r"shape \(2,\), the truth \(3,\)"):
        Yardstick(np.arange(3.0)).measure([1.0, 2.0])
