import errno
import math
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metantk_nas.errors import RunError, UsageError
from metantk_nas.ordering import places
from metantk_nas.results import (
    Ranking,
    aggregate,
    make_ranking,
    rank,
    rank_interval,
    read_json,
    repeat_table,
    write_json,
    write_text,
)
from metantk_nas.store import Candidate
from metantk_nas.types import Metric, RankRule, Score
from tests.reference.ranking import dense_ranks, dense_scores

CONDITION = Metric("condition_number", higher_is_better=False, description="", source="")
TRACE = Metric("trace", higher_is_better=True, description="", source="")
PARAMS = Metric("params", higher_is_better=True, description="", source="")
RANK_SUM = RankRule("metantk", (CONDITION, TRACE))
LOG_RANK_SUM = RankRule("metantk", (CONDITION, TRACE), "log_rank_sum")
RULES = pytest.mark.parametrize("rule", [RANK_SUM, LOG_RANK_SUM], ids=lambda rule: rule.combine)

# Few different values make ties common; members of one key share their values.
KEY_VALUES = st.lists(
    st.tuples(
        st.sampled_from([1.0, 1.5, 2.0, 1e6, -3.0, 1.23456789e-8]),
        st.sampled_from([0.0, 0.25, 7.0, -2.0]),
        st.sampled_from(["ok", "ok", "ok", "singular"]),
        st.integers(1, 3),
    ),
    max_size=12,
)


def make_frame(keys: Iterable[tuple[float, float, str, int]]) -> pd.DataFrame:
    rows = [
        {
            "arch": f"{index}.{member}",
            "key": f"key{index}",
            "status": status,
            "reason": "",
            "condition_number": condition,
            "trace": trace,
        }
        for index, (condition, trace, status, n_members) in enumerate(keys)
        for member in range(n_members)
    ]
    return pd.DataFrame(rows, columns=["arch", "key", "status", "reason", "condition_number", "trace"])


def frame_of(conditions: list[float], traces: list[float], keys: list[str] | None = None) -> pd.DataFrame:
    names = [f"arch{index}" for index in range(len(conditions))]
    return pd.DataFrame(
        {
            "arch": names,
            "key": keys or names,
            "status": "ok",
            "reason": "",
            "condition_number": conditions,
            "trace": traces,
        }
    )


def ranks_by_arch(frame: pd.DataFrame) -> dict[str, int]:
    return dict(zip(frame["arch"], frame["rank"], strict=True))


def make_score(key: str, repeat: int, status: str = "ok", reason: str = "", **values: float) -> Score:
    return Score(key, repeat, "metantk", values, status, reason, seconds=0.5)


def noisy_scores(n_keys: int, n_repeats: int, noise: float) -> list[Score]:
    rng = np.random.default_rng(0)
    quality = rng.normal(size=n_keys)
    values = quality[:, None, None] + noise * rng.normal(size=(n_keys, n_repeats, 2))
    return [
        make_score(
            f"{key:05d}",
            repeat,
            condition_number=float(np.exp(-values[key, repeat, 0])),
            trace=float(values[key, repeat, 1]),
        )
        for key in range(n_keys)
        for repeat in range(n_repeats)
    ]


def candidates_of(keys: Iterable[str]) -> list[Candidate]:
    return [
        Candidate(position, f"arch-{key}", key, f"arch-{key}", 100 + position, 1_000)
        for position, key in enumerate(keys)
    ]


# --- aggregate


def test_metrics_are_averaged_over_repeats_with_their_sample_deviation() -> None:
    frame = aggregate(
        repeat_table(
            [make_score("b", 0, trace=9.0), *(make_score("a", r, trace=v) for r, v in enumerate([1.0, 2.0, 6.0]))]
        )
    )
    assert frame.loc["a", "trace"] == 3.0
    assert frame.loc["a", "trace_sd"] == pytest.approx(math.sqrt(7))
    assert frame.loc["a", "seconds"] == 1.5
    assert math.isnan(frame.loc["b", "trace_sd"])  # one repeat: unknown, not zero


def test_a_metric_that_is_measured_once_brings_its_deviation_along() -> None:
    scores = [make_score("a", repeat, trace=float(repeat)) for repeat in range(3)]
    frame = aggregate(repeat_table([*scores, Score("a", 0, "latency", {"latency_ms": 7.0, "latency_ms_sd": 0.5})]))
    assert frame.loc["a", "latency_ms"] == 7.0
    assert frame.loc["a", "latency_ms_sd"] == 0.5
    assert "latency_ms_sd_sd" not in frame.columns
    assert frame.loc["a", "trace_sd"] == 1.0


FACTORS = {"factors": (1.0, 2.0, 32.0), "zero": (0.0, 2.0), "negative": (-1.0, 2.0), "infinite": (1.0, math.inf)}


def test_metrics_that_differ_by_factors_have_a_geometric_mean() -> None:
    scores = [make_score(key, r, trace=v) for key, values in FACTORS.items() for r, v in enumerate(values)]
    found = aggregate(repeat_table(scores), {"trace": replace(TRACE, averaging="geometric")})["trace"]
    assert found["factors"] == pytest.approx(4)
    assert found["zero"] == 0
    assert math.isnan(found["negative"])
    assert math.isinf(found["infinite"])


def test_a_repeat_of_a_larger_scale_weighs_no_more_than_the_others() -> None:
    """By arithmetic means b would win, because of the third repeat alone."""
    values = {"a": (1.0, 1.0, 400.0), "b": (2.0, 2.0, 300.0)}
    scores = [make_score(key, r, condition_number=v) for key, found in values.items() for r, v in enumerate(found)]
    rule = RankRule("κ", (replace(CONDITION, averaging="geometric"),))
    frame = make_ranking(candidates_of(values), scores, rule, seed=0).frame
    assert frame["key"].to_list() == ["a", "b"]
    assert places([np.array([found]) for found in values.values()], rule) == [1, 2]


def test_scorers_of_one_key_join_and_a_metric_measured_once_is_kept() -> None:
    scores = [make_score("a", 0, trace=1.0), make_score("a", 1, trace=3.0), Score("a", 0, "naswot", {"naswot": 7.0})]
    frame = aggregate(repeat_table(scores))
    assert frame.loc["a", ["trace", "naswot", "status"]].to_list() == [2.0, 7.0, "ok"]


def test_one_bad_repeat_spoils_the_status_and_the_first_reason_is_given() -> None:
    scores = [
        make_score("a", 0, trace=1.0),
        make_score("a", 1, "singular", "λmin is below 1e-12", trace=math.inf),
        make_score("a", 2, "not_finite", "the kernel has 2 NaN", trace=math.nan),
        make_score("b", 0, trace=1.0),
    ]
    frame = aggregate(repeat_table(reversed(scores)))
    assert frame["status"].to_dict() == {"a": "singular", "b": "ok"}
    assert frame["reason"].to_dict() == {"a": "repeat 1: λmin is below 1e-12", "b": ""}
    assert frame.loc["a", "trace"] == math.inf  # raw stays raw


def test_no_signal_explains_the_trouble_of_others() -> None:
    others = [Score("a", 0, name, {}, "singular", f"{name} is singular") for name in ("alpha", "omega")]
    scores = [others[0], Score("a", 0, "kernel", {}, "no_signal", "no path"), others[1]]
    found = aggregate(repeat_table(scores)).loc["a"]
    assert (found["status"], found["reason"]) == ("no_signal", "repeat 0: no path")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_ok(value: float) -> None:
    frame = aggregate(repeat_table([make_score("a", 0, trace=1.0), make_score("a", 1, trace=value)]))
    assert frame.loc["a", "status"] == "not_finite"
    assert frame.loc["a", "reason"] == f"repeat 1: trace is {value}"


def test_a_metric_that_comes_from_two_scores_is_refused() -> None:
    with pytest.raises(RunError, match=r"trace of key 'a' in repeat 0 comes from two scores, the second of 'other'"):
        repeat_table([make_score("a", 0, trace=1.0), Score("a", 0, "other", {"trace": 2.0})])


# --- rank


@RULES
@given(keys=KEY_VALUES)
def test_ranks_and_scores_equal_those_of_plain_loops(rule: RankRule, keys: list[tuple[float, float, str, int]]) -> None:
    frame = make_frame(keys)
    ranked = rank(frame, rule)
    rows = ranked.to_dict("records")
    scores = dense_scores(rows, [(metric.name, metric.higher_is_better) for metric in rule.metrics], rule.combine)
    expected = [math.nan if score is None else score for score in scores]
    np.testing.assert_allclose(ranked["score"].to_numpy(float), expected, rtol=1e-12, atol=1e-11)
    assert ranked["rank"].to_list() == dense_ranks(scores)
    assert ranked["rank"].is_monotonic_increasing
    assert sorted(ranked["arch"]) == sorted(frame["arch"])


@RULES
@given(keys=KEY_VALUES, order=st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    rule: RankRule, keys: list[tuple[float, float, str, int]], order: Any
) -> None:
    frame = make_frame(keys)
    places = list(range(len(frame)))
    order.shuffle(places)
    pd.testing.assert_frame_equal(rank(frame.iloc[places], rule), rank(frame, rule))


@RULES
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=12))
def test_a_monotone_transform_of_a_metric_changes_nothing(rule: RankRule, values: list[tuple[int, int]]) -> None:
    conditions, traces = (list(map(float, column)) for column in zip(*values, strict=True))
    plain = rank(frame_of(conditions, traces), rule)
    bent = rank(frame_of([math.exp(value / 20) for value in conditions], [value**3 for value in traces]), rule)
    assert plain[["arch", "rank", "score"]].equals(bent[["arch", "rank", "score"]])


@RULES
@given(keys=KEY_VALUES)
def test_more_members_of_a_key_do_not_reorder_the_others(
    rule: RankRule, keys: list[tuple[float, float, str, int]]
) -> None:
    alone = rank(make_frame((*values, 1) for *values, _ in keys), rule)
    crowd = rank(make_frame(keys), rule).drop_duplicates("key")
    assert crowd["key"].to_list() == alone["key"].to_list()
    np.testing.assert_array_equal(crowd["score"], alone["score"])


@given(st.lists(st.tuples(*[st.integers(0, 3).map(float)] * 3), min_size=1, max_size=12))
def test_a_tie_breaker_orders_those_whose_sums_are_equal_and_nobody_else(values: list[tuple[float, ...]]) -> None:
    conditions, traces, params = map(list, zip(*values, strict=True))
    frame = frame_of(conditions, traces).assign(params=params)
    ranked = rank(frame, RankRule("ties", (CONDITION, TRACE, PARAMS), breaks_ties=True))
    sums = rank(frame, RANK_SUM).set_index("arch")["score"]
    pairs = [(sums[row["arch"]], -row["params"]) for _, row in ranked.iterrows()]
    assert ranked["rank"].to_list() == [1 + sum(other < pair for other in pairs) for pair in pairs]
    assert (ranked["score"] // 0.5 * 0.5).to_list() == [score for score, _ in pairs]


def test_only_sums_of_ranks_have_ties_to_break() -> None:
    with pytest.raises(ValueError, match="rule 'x'"):
        RankRule("x", (CONDITION,), breaks_ties=True)
    with pytest.raises(ValueError, match="rule 'x'"):
        RankRule("x", (CONDITION, TRACE), "log_rank_sum", breaks_ties=True)


def test_members_of_a_key_share_a_rank_and_the_next_rank_skips() -> None:
    ranked = rank(frame_of([2.0, 1.0, 3.0, 1.0], [1.0, 5.0, 0.0, 5.0], ["b", "a", "c", "a"]), RANK_SUM)
    assert ranked["rank"].to_list() == [1, 1, 3, 4]
    assert ranked["key"].to_list() == ["a", "a", "b", "c"]
    assert ranked["score"].to_list() == [2.0, 2.0, 4.0, 6.0]


def test_equal_metrics_share_the_average_rank() -> None:
    ranked = rank(frame_of([1.0, 1.0, 2.0], [3.0, 2.0, 1.0]), RANK_SUM)
    assert ranked["score"].to_list() == [2.5, 3.5, 6.0]


def test_the_direction_of_each_metric_is_its_own() -> None:
    best = rank(frame_of([1.0, 10.0], [10.0, 1.0]), RANK_SUM).iloc[0]
    assert (best["condition_number"], best["trace"], best["score"]) == (1.0, 10.0, 2.0)


def test_the_log_rank_sum_is_zero_for_the_best_everywhere_and_punishes_the_last_anywhere() -> None:
    n = 9
    balanced, specialist = 4.0, 0.0  # rank 5 of 9 in both metrics; rank 1 in one and 9 in the other
    conditions = [specialist, 1.0, 2.0, 3.0, balanced, 5.0, 6.0, 7.0, 8.0]
    traces = [-value for value in [8.0, 1.0, 2.0, 3.0, balanced, 5.0, 6.0, 7.0, specialist]]
    sums = rank(frame_of(conditions, traces), RANK_SUM).set_index("arch")["score"]
    logs = rank(frame_of(conditions, traces), LOG_RANK_SUM).set_index("arch")["score"]
    assert sums["arch0"] == sums["arch4"] == 10.0
    assert logs["arch4"] == pytest.approx(-2 * math.log(5 / n))
    assert logs["arch0"] == pytest.approx(-math.log(1 / n))
    assert logs["arch4"] < logs["arch0"]
    assert rank(frame_of([1.0, 2.0], [2.0, 1.0]), LOG_RANK_SUM)["score"].iloc[0] == 0.0


@pytest.mark.parametrize("condition", [-1e9, math.nan, math.inf, 1.0])
def test_a_failed_candidate_ranks_last_even_where_its_raw_value_would_be_best(condition: float) -> None:
    frame = frame_of([5.0, condition, 3.0], [1.0, 1e9, 2.0])
    frame.loc[1, ["status", "reason"]] = ["singular", "two rows of the kernel are equal"]
    ranked = rank(frame, RANK_SUM)
    assert ranks_by_arch(ranked) == {"arch2": 1, "arch0": 2, "arch1": 3}
    last = ranked.iloc[-1]
    np.testing.assert_equal(last["condition_number"], condition)
    assert math.isnan(last["score"])
    without = rank(frame.drop(index=1), RANK_SUM)
    assert without["score"].to_list() == ranked["score"].to_list()[:2]


def test_failed_candidates_share_the_last_rank() -> None:
    frame = frame_of([5.0, 1.0, 3.0], [1.0, 2.0, 2.0])
    frame["status"] = ["singular", "ok", "constant_output"]
    assert rank(frame, RANK_SUM)["rank"].to_list() == [1, 2, 2]
    frame["status"] = "singular"
    assert rank(frame, RANK_SUM)["rank"].to_list() == [1, 1, 1]


def test_an_ok_candidate_without_a_value_of_the_rule_is_named_and_ranks_last() -> None:
    ranked = rank(frame_of([1.0, 2.0], [math.nan, 1.0]), RANK_SUM)
    assert ranks_by_arch(ranked) == {"arch1": 1, "arch0": 2}
    assert ranked.iloc[-1][["status", "reason"]].to_list() == ["not_scored", "no finite value of trace"]


def test_the_last_bits_of_a_value_do_not_decide_an_order() -> None:
    ranked = rank(frame_of([1.0, 1.0 + 1e-9, 123456.7, 123456.7 + 1e-3], [1.0] * 4), RANK_SUM)
    assert ranked["rank"].to_list() == [1, 1, 3, 3]
    assert rank(frame_of([1.0, 1.00002], [1.0] * 2), RANK_SUM)["rank"].to_list() == [1, 2]


@pytest.mark.parametrize("scale", [1e-299, 1e-20, 1e-2, 1.0, 1e6, 1e300])
def test_values_on_both_sides_of_a_power_of_ten_are_equal_when_rounded(scale: float) -> None:
    ranked = rank(frame_of([1.1 * scale, 0.99999997 * scale, 1.0000003 * scale, scale, -scale], [1.0] * 5), RANK_SUM)
    assert ranked["rank"].to_list() == [1, 2, 2, 2, 5]


def test_the_order_of_adding_logarithms_does_not_break_a_tie() -> None:
    columns = {name: np.roll(np.arange(1.0, 8.0), shift) for shift, name in enumerate("abc")}
    frame = frame_of([1.0] * 7, [1.0] * 7).assign(**columns)
    scores = {}
    for names in ("abc", "cba", "bca"):
        rule = RankRule(names, tuple(Metric(name, False, "", "") for name in names), "log_rank_sum")
        scores[names] = rank(frame, rule).set_index("arch")["score"].sort_index().to_list()
    assert scores["abc"] == scores["cba"] == scores["bca"]


def test_a_metric_that_is_not_there_is_named_with_the_near_miss() -> None:
    rule = RankRule("tace", (Metric("tace", True, "", ""),))
    with pytest.raises(UsageError, match=r"metric 'tace' not found; .*Did you mean 'trace'"):
        rank(frame_of([1.0], [1.0]), rule)


@pytest.mark.parametrize("metrics", [(), (TRACE, TRACE)])
def test_a_rule_without_metrics_or_with_one_twice_is_refused(metrics: tuple[Metric, ...]) -> None:
    with pytest.raises(UsageError, match="at least one metric and each of them once"):
        rank(frame_of([1.0], [1.0]), RankRule("mine", metrics))


# --- rank_interval


@RULES
def test_the_interval_mostly_holds_the_rank_and_is_the_same_every_time(rule: RankRule) -> None:
    table = repeat_table(noisy_scores(n_keys=60, n_repeats=5, noise=0.3))
    ranked = make_ranking(candidates_of(table.index.unique("key")), noisy_scores(60, 5, 0.3), rule, seed=0).frame
    assert (ranked["rank_low"] <= ranked["rank_high"]).all()
    assert ranked["rank"].between(ranked["rank_low"], ranked["rank_high"]).mean() > 0.9
    assert (ranked["rank_high"] - ranked["rank_low"]).mean() > 3
    again = rank_interval(ranked, table, rule, seed=0)
    assert ranked[["rank_low", "rank_high"]].equals(again)
    assert not again.equals(rank_interval(ranked, table, rule, seed=1))


def test_repeats_that_agree_leave_no_doubt() -> None:
    scores = [
        make_score(f"{key}", repeat, condition_number=float(key), trace=1.0)
        for key in range(1, 9)
        for repeat in range(3)
    ]
    frame = make_ranking(candidates_of("12345678"), scores, RANK_SUM, seed=0).frame
    assert frame["rank"].to_list() == frame["rank_low"].to_list() == frame["rank_high"].to_list() == list(range(1, 9))


def test_the_interval_of_two_repeats_that_disagree_is_what_counting_says() -> None:
    values = {"a": (1.0, 4.0), "b": (2.0, 2.0)}  # means of resamples: a is 1, 2.5 or 4 with odds 1:2:1, b always 2
    scores = [
        make_score(key, r, condition_number=v, trace=1.0) for key, pair in values.items() for r, v in enumerate(pair)
    ]
    frame = make_ranking(candidates_of("ab"), scores, RankRule("κ", (CONDITION,)), seed=0).frame
    assert frame[["key", "rank", "rank_low", "rank_high"]].to_numpy().tolist() == [["b", 1, 1, 2], ["a", 2, 1, 2]]
    table = repeat_table(scores)
    middle = rank_interval(frame, table, RankRule("κ", (CONDITION,)), seed=0, level=0.4, n_resamples=10_000)
    assert middle.to_numpy().tolist() == [[1, 1], [2, 2]]  # three in four resamples put b first, and 0.7 < 3/4


def test_with_one_repeat_or_a_failure_nothing_is_known() -> None:
    once = make_ranking(
        candidates_of("ab"), [make_score(k, 0, condition_number=1.0, trace=1.0) for k in "ab"], RANK_SUM, 0
    )
    assert once.frame[["rank_low", "rank_high"]].isna().all(axis=None)
    scores = noisy_scores(3, 3, 0.1)
    scores[0] = make_score("00000", 0, "singular", "λmin is 0", condition_number=-1.0, trace=1.0)
    frame = make_ranking(candidates_of(["00000", "00001", "00002"]), scores, RANK_SUM, seed=0).frame
    assert frame["rank_low"].isna().to_list() == [False, False, True]


def test_all_of_nas_bench_201_with_three_repeats_ranks_within_seconds() -> None:
    scores = noisy_scores(15_625, 3, 0.3)
    start = time.process_time()
    frame = make_ranking(candidates_of(f"{key:05d}" for key in range(15_625)), scores, RANK_SUM, seed=0).frame
    assert time.process_time() - start < 15  # below 1 on one core; the bound allows for a busy machine
    assert frame["rank"].iloc[-1] <= 15_625


# --- make_ranking and files


def example(objectives: Sequence[Metric] = ()) -> Ranking:
    candidates = [
        *candidates_of(["a", "b", "c"]),
        Candidate(3, "arch-a2", "a", "arch-a", 999, 5),
        Candidate(4, "arch-d", "d", "arch-d", 1, 1),
    ]
    scores = [
        *(make_score("a", r, condition_number=1.1 + r / 3, trace=0.1, params=7.0) for r in range(2)),
        *(make_score("b", r, condition_number=2.0, trace=1e-300) for r in range(2)),
        *(
            make_score("c", r, "singular", 'λmin is "0", sadly', condition_number=-math.inf, trace=math.nan)
            for r in range(2)
        ),
        *(Score(key, 0, "naswot", {"naswot": 3.0}) for key in "ab"),
    ]
    return make_ranking(candidates, scores, RANK_SUM, 5, objectives=objectives)


def test_the_columns_stand_in_their_order_and_every_candidate_is_there() -> None:
    frame = example().frame
    assert frame.columns.to_list() == [
        *("rank", "arch", "key", "status", "reason", "score", "rank_low", "rank_high"),
        *("condition_number", "condition_number_sd", "trace", "trace_sd", "naswot", "naswot_sd"),
        *("params", "macs", "seconds", "seed"),
    ]
    assert frame["arch"].to_list() == ["arch-a", "arch-a2", "arch-b", "arch-c", "arch-d"]
    assert frame["rank"].to_list() == [1, 1, 3, 4, 4]
    assert frame["params"].to_list() == [100, 999, 101, 102, 1]  # of the candidate, not of its key
    assert frame["status"].to_list() == ["ok", "ok", "ok", "singular", "not_scored"]
    assert set(frame["seed"]) == {5}


def test_a_run_in_which_everything_failed_is_still_a_ranking(tmp_path: Path) -> None:
    failures = [
        Score(key, repeat, "metantk", {}, "constant_output", "all logits are equal")
        for key in "ab"
        for repeat in (0, 1)
    ]
    for scores in (failures, []):
        ranking = make_ranking(candidates_of("ab"), scores, RANK_SUM, seed=0)
        assert ranking.frame["rank"].to_list() == [1, 1]
        assert set(ranking.frame["status"]) == ({"constant_output"} if scores else {"not_scored"})
        assert ranking.frame[["condition_number", "trace_sd", "rank_low"]].isna().all(axis=None)
        assert len(ranking.top(1)) == 0
        ranking.save(tmp_path / "ranking.csv")
        pd.testing.assert_frame_equal(Ranking.load(tmp_path / "ranking.csv").frame, ranking.frame)


def test_no_candidates_make_an_empty_ranking(tmp_path: Path) -> None:
    ranking = make_ranking([], [], RANK_SUM, seed=0)
    assert len(ranking) == 0
    ranking.save(tmp_path / "ranking.csv")
    assert len(Ranking.load(tmp_path / "ranking.csv")) == 0


def test_members_of_a_key_may_differ_in_parameters_and_then_rank_apart() -> None:
    candidates = [Candidate(0, "small", "a", "small", 10, 1), Candidate(1, "large", "a", "small", 20, 1)]
    scores = [make_score("a", repeat, condition_number=1.0) for repeat in range(2)]
    frame = make_ranking(candidates, scores, RankRule("mine", (CONDITION, PARAMS)), seed=0).frame
    assert frame[["arch", "rank", "rank_low", "rank_high"]].to_numpy().tolist() == [
        ["large", 1, 1, 1],
        ["small", 2, 2, 2],
    ]


def test_only_what_could_be_scored_is_on_a_pareto_front(tmp_path: Path) -> None:
    objectives = [Metric(name, higher_is_better=False, description="", source="") for name in ("params", "macs")]
    ranking = example(objectives)
    found = dict(zip(ranking.frame["arch"], ranking.frame["pareto"].fillna(0), strict=True))
    assert found == {"arch-a": 1, "arch-a2": 1, "arch-b": 2, "arch-c": 0, "arch-d": 0}
    assert ranking.front().frame["arch"].to_list() == ["arch-a"]
    ranking.save(tmp_path / "ranking.csv")
    pd.testing.assert_frame_equal(Ranking.load(tmp_path / "ranking.csv").frame, ranking.frame)
    for candidates in ([], candidates_of("a")):
        assert len(make_ranking(candidates, [], RANK_SUM, 0, objectives=objectives).front()) == 0


def test_further_rules_rank_the_same_candidates_in_columns_of_their_own(tmp_path: Path) -> None:
    scores = noisy_scores(40, 2, 1.0)
    candidates = candidates_of([*sorted({score.key for score in scores}), "lost"])
    by_trace = RankRule("by-trace", (RANK_SUM.metrics[1],))
    ranking = make_ranking(candidates, scores, RANK_SUM, 0, also=[by_trace])
    alone = make_ranking(candidates, scores, by_trace, 0).frame.set_index("arch")["rank"]
    found = ranking.frame.set_index("arch")["rank_by-trace"]
    assert found["arch-lost"] is pd.NA
    assert found.drop("arch-lost").to_dict() == alone.drop("arch-lost").to_dict()
    without = make_ranking(candidates, scores, RANK_SUM, 0).frame
    pd.testing.assert_frame_equal(ranking.frame.drop(columns="rank_by-trace"), without)
    ranking.save(tmp_path / "ranking.csv")
    pd.testing.assert_frame_equal(Ranking.load(tmp_path / "ranking.csv").frame, ranking.frame)


def test_a_ranking_comes_back_from_its_file_bit_by_bit(tmp_path: Path) -> None:
    ranking = example()
    ranking.save(tmp_path / "run" / "ranking.csv")
    loaded = Ranking.load(tmp_path / "run" / "ranking.csv", {"seed": 5})
    pd.testing.assert_frame_equal(loaded.frame, ranking.frame, check_exact=True)
    assert loaded.manifest == {"seed": 5}
    loaded.save(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "run" / "ranking.csv").read_bytes()


def test_top_gives_different_functions_and_no_failure() -> None:
    ranking = example()
    assert ranking.top(2).frame["arch"].to_list() == ["arch-a", "arch-b"]
    assert len(ranking.top(99)) == 2
    assert [row["arch"] for row in ranking.top(1)] == ["arch-a"]
    with pytest.raises(UsageError, match=r"top\(0\) asks for no candidate"):
        ranking.top(0)


def test_build_uses_the_builder_it_was_given() -> None:
    ranking = Ranking(example().frame, builder=str.upper)
    assert [ranking.build(row) for row in ranking.top(1)] == ["ARCH-A"]
    with pytest.raises(UsageError, match="does not know its search space"):
        example().build({"arch": "arch-a"})


@pytest.mark.parametrize("content", ["", "rank,arch\n1,a\n", "\x00\x01", "rank,rank_low\n1,abc\n", 'a,"b\n'])
def test_a_file_that_is_no_ranking_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ranking.csv"
    path.write_text(content)
    with pytest.raises(RunError, match=r"ranking.csv"):
        Ranking.load(path)


def test_a_missing_ranking_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read the ranking .*ranking.csv"):
        Ranking.load(tmp_path / "ranking.csv")


def test_a_file_is_replaced_and_never_half_written(tmp_path: Path) -> None:
    path, reader = tmp_path / "ranking.csv", tmp_path / "reader.csv"
    write_text(path, "old")
    reader.hardlink_to(path)
    write_text(path, "new")
    assert (path.read_text(), reader.read_text()) == ("new", "old")
    assert sorted(tmp_path.iterdir()) == [path, reader]


def test_a_file_that_cannot_grow_keeps_its_old_text_and_leaves_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "ranking.csv"
    write_text(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    try:
        with pytest.raises(
            UsageError, match=r"cannot write .*ranking.csv \(File too large\).* run the same command again"
        ):
            write_text(path, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named_and_a_written_file_is_readable_like_any_other(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    with pytest.raises(UsageError, match="check the path and its permissions"):
        write_text(plain / "ranking.csv", "text")
    write_text(tmp_path / "ranking.csv", "text")
    assert (tmp_path / "ranking.csv").stat().st_mode == plain.stat().st_mode


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"\(No space left on device\); free some space and run the same command"):
        example().save(tmp_path / "ranking.csv")
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back_with_its_version_checked(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    content: dict[str, object] = {"seed": 3, "inner_time": math.inf, "versions": {"torch": "2.13"}, "seconds": 0.1}
    write_json(path, content)
    assert read_json(path) == {**content, "inner_time": "inf"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot read"),
        ("[]", "schema version None"),
        ("{}", "schema version None"),
        ('{"schema_version": 9}', "schema version 9, expected 1"),
    ],
)
def test_malformed_json_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(RunError, match=match):
        read_json(path)
