from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from metantk_nas.bench.choose import Cells, Form, Search, _Trial, choose, kendall_many, make_part
from metantk_nas.bench.validate import BEST_BASELINE, CHOSEN, HIGHEST, halves, lift, on_all_cells, summarize, validate
from metantk_nas.errors import UsageError
from metantk_nas.ordering import combine
from metantk_nas.types import Metric, RankRule

FORMS: tuple[Form, ...] = ("rank_sum", "dense_rank_sum", "log_rank_sum")


def metric(name: str, higher_is_better: bool = True) -> Metric:
    return Metric(name, higher_is_better, "", "")


def noise_metrics(n_metrics: int = 15) -> tuple[Metric, ...]:
    return tuple(metric(f"m{number:02}") for number in range(n_metrics))


def make_cells(truth: np.ndarray, columns: dict[str, np.ndarray], name: str = "truth", space: str = "s") -> Cells:
    keys = [f"{number:04}" for number in range(len(truth))]
    return Cells(name, space, pd.DataFrame(columns, index=keys), truth)


def noise_cells(seed: int, n_cells: int = 80, n_metrics: int = 15) -> Cells:
    """Metrics that know nothing of the truth."""
    rng = np.random.default_rng(seed)
    columns = {each.name: rng.normal(size=n_cells) for each in noise_metrics(n_metrics)}
    return make_cells(rng.normal(size=n_cells), columns)


def planted_cells(seed: int, noise: float = 0.3) -> Cells:
    """The truth is the sum of ranks of m03 (lower is better) and m07, and noise."""
    cells = noise_cells(seed, n_cells=120)
    ranks = cells.scores.rank()
    truth = ranks["m07"] - ranks["m03"]
    truth = truth / truth.std() + noise * np.random.default_rng(seed + 1000).normal(size=len(cells))
    return replace(cells, truth=truth.to_numpy())


def planted_search(**options) -> Search:
    parts = tuple(replace(each, higher_is_better=each.name != "m03") for each in noise_metrics())
    return Search(parts, **{"max_parts": 3, **options})


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_many_taus_at_once_are_what_scipy_finds_one_by_one(data: st.DataObject) -> None:
    n = data.draw(st.integers(3, 9))
    values = st.sampled_from([0.0, 1.0, 2.0, 2.5, np.inf])
    scores = np.array(data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=4)))
    truth = np.array(data.draw(st.lists(st.integers(0, 3).map(float), min_size=n, max_size=n)))
    found, without = kendall_many(scores, truth)
    for row, score in enumerate(np.nan_to_num(-scores, neginf=-1e9)):
        assert found[row] == pytest.approx(np.nan_to_num(kendalltau(score, truth).statistic), abs=1e-12)
        for cell in range(n):
            rest = kendalltau(np.delete(score, cell), np.delete(truth, cell)).statistic
            assert without[row, cell] == pytest.approx(np.nan_to_num(rest), abs=1e-12)


def test_every_combination_is_ordered_as_a_run_would_order_it() -> None:
    rng = np.random.default_rng(0)
    columns = {f"m{number}": rng.integers(0, 12, 40).astype(float) for number in range(5)}
    columns["m2"][7] = np.nan
    cells = make_cells(rng.integers(0, 30, 40).astype(float), columns)
    parts = tuple(metric(name, higher_is_better=name != "m1") for name in columns)
    tried, taus = _Trial([cells], Search(parts, forms=FORMS)).compare_all()
    every = [chosen for size in range(1, 6) for chosen in combinations(range(5), size)]
    expected = {(chosen, form) for chosen in every for form in (FORMS if len(chosen) > 1 else FORMS[:1])}
    assert len(tried) == len(expected)
    assert set(tried) == expected
    known = np.arange(40) != 7
    for (combination, form), tau in zip(tried, taus[:, 0], strict=True):
        rule = RankRule("", tuple(parts[part] for part in combination), form)
        values = np.stack([columns[each.name][known] for each in rule.metrics])[:, None]
        order = np.full(40, np.inf)
        order[known] = combine(values, rule)[0]
        np.testing.assert_array_equal(cells.order(rule), order)
        assert tau == pytest.approx(kendalltau(np.nan_to_num(-order, neginf=-1e9), cells.truth).statistic, abs=1e-12)


def test_logarithms_that_are_equal_on_paper_stay_tied_in_the_fast_sums() -> None:
    """Each of four cells has the ranks 1, 2, 3 and 4, in another order."""
    columns = {"a": [1.0, 2, 3, 4], "b": [2.0, 1, 4, 3], "c": [3.0, 4, 1, 2], "d": [4.0, 3, 2, 1]}
    cells = make_cells(np.array([1.0, 2, 3, 4]), {name: np.array(column) for name, column in columns.items()})
    search = Search(tuple(metric(name) for name in columns), forms=("log_rank_sum",), required=("a", "b", "c", "d"))
    _, taus = _Trial([cells], search).compare_all()
    assert taus[-1, 0] == 0  # all four are tied


def test_a_planted_truth_is_found_among_noise() -> None:
    for seed in range(5):
        assert choose([planted_cells(seed)], planted_search()).rule.name == "m03, m07"
    found = validate([planted_cells(0)], planted_search(), {"m00": rule_of("m00")}, {}, n_splits=8)
    assert (found.chosen["rule"] == "m03, m07").mean() > 0.7
    table = summarize(found.figures).set_index("rule")
    assert table.loc[CHOSEN, "kendall"] > 0.7
    assert table.loc[CHOSEN, "wins"] == 1


def test_what_noise_chose_is_worth_nothing_on_cells_that_did_not_choose() -> None:
    search = Search(noise_metrics(), max_parts=3)
    means = []
    for seed in range(6):
        table = summarize(validate([noise_cells(seed)], search, {}, {}, n_splits=6).figures).set_index("rule")
        means.append(table.loc[[CHOSEN, HIGHEST], ["kendall_choosing", "kendall"]].to_numpy())
    choosing, held_out = np.mean(means, axis=0).T
    assert (choosing > 0.2).all()  # the best of 1,135 random orders of 40 cells
    assert choosing[1] > choosing[0]
    assert (abs(held_out) < 0.05).all()


def test_the_same_seed_gives_the_same_answer_and_another_seed_other_halves() -> None:
    cells, search = noise_cells(0, n_metrics=6), Search(noise_metrics(6), max_parts=2)
    found = [validate([cells], search, {}, {}, n_splits=3, seed=seed) for seed in (5, 5, 6)]
    pd.testing.assert_frame_equal(found[0].figures, found[1].figures)
    pd.testing.assert_frame_equal(found[0].chosen, found[1].chosen)
    assert not found[0].figures.equals(found[2].figures)


@pytest.mark.parametrize("number", range(4))
def test_a_cell_that_two_truths_know_lies_in_the_same_half_of_both(number: int) -> None:
    one, other = noise_cells(0, 31), replace(noise_cells(1, 31), name="other")
    elsewhere = replace(noise_cells(2, 20), space="another space")
    first, second = halves([one, other, elsewhere], 0, number)
    for before, after, whole in zip(first, second, (one, other, elsewhere), strict=True):
        assert set(before.scores.index) | set(after.scores.index) == set(whole.scores.index)
        assert (len(before), len(after)) == (len(whole) // 2, len(whole) - len(whole) // 2)
        np.testing.assert_array_equal(whole.truth[whole.scores.index.isin(before.scores.index)], before.truth)
    assert list(first[0].scores.index) == list(first[1].scores.index)


def test_the_simplest_within_a_standard_error_is_chosen_and_no_simpler_one() -> None:
    cells, search = planted_cells(7, noise=1.5), planted_search()
    choice = choose([cells], search)
    tried, taus = _Trial([cells], search).compare_all()
    highest = int(np.argmax(taus[:, 0]))
    rules = [search.rule(*formed) for formed in tried]
    assert choice.top_objective[0] == pytest.approx(taus.max())
    assert choice.n_compared == len(tried)

    def error(place: int) -> float:
        """Jackknife of the difference to the highest, by leaving cells out one by one."""
        orders = [-np.nan_to_num(cells.order(rules[at]), posinf=1e9) for at in (highest, place)]
        difference = [
            np.subtract(
                *(kendalltau(np.delete(order, cell), np.delete(cells.truth, cell)).statistic for order in orders)
            )
            for cell in range(len(cells))
        ]
        return float(np.sqrt((len(cells) - 1) * np.var(difference)))

    place = rules.index(choice.rule)
    assert choice.standard_error == pytest.approx(error(place), abs=1e-9)
    assert taus[highest, 0] - choice.objective <= choice.standard_error
    size = len(choice.rule.metrics)
    better = [at for at, rule in enumerate(rules) if len(rule.metrics) < size]
    better += [at for at, rule in enumerate(rules) if len(rule.metrics) == size and taus[at, 0] > choice.objective]
    assert size > 1
    assert better
    assert choice.standard_error > 0.01
    assert all(taus[highest, 0] - taus[at, 0] > error(at) for at in better)


def test_with_several_truths_the_mean_or_the_lowest_counts() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 60))
    columns = {"one": one, "both": (one + other) / 2 + rng.normal(size=60) * 0.2, "other": other}
    cells = [make_cells(one, columns, "first"), make_cells(one * 0.9 + other * 0.2, columns, "second")]
    parts = tuple(metric(name) for name in columns)
    taus = np.array([[kendalltau(columns[name], each.truth).statistic for each in cells] for name in columns])
    for objective, expected in (("mean", taus.mean(axis=1)), ("min", taus.min(axis=1))):
        choice = choose(cells, Search(parts, max_parts=1, objective=objective))
        assert choice.top_objective == pytest.approx(sorted(expected, reverse=True))
    opposed = [make_cells(one, columns, "first"), make_cells(other, columns, "second")]
    assert choose(opposed, Search(parts, max_parts=1, objective="min")).rule.name == "both"


def test_truths_of_the_same_cells_do_not_count_as_independent() -> None:
    """The same truth twice is no more evidence than once; the same figures from other cells are."""
    cells, search = planted_cells(1, noise=2.0), planted_search(max_parts=2)
    trial = _Trial([cells], search)
    formed = trial.compare_all()[0][:40]
    once = np.square(trial._influence(formed, trial._taus(formed))).sum(axis=1)
    reversed_ = replace(cells, truth=-cells.truth, space="another space")
    lowest = _Trial([cells, reversed_], replace(search, objective="min"))
    found = np.square(lowest._influence(formed, lowest._taus(formed))).sum(axis=1)
    np.testing.assert_allclose(found, once)
    for space, variance in (("s", once), ("another space", once / 2)):
        twice = _Trial([cells, replace(cells, name="again", space=space)], search)
        found = np.square(twice._influence(formed, twice._taus(formed))).sum(axis=1)
        np.testing.assert_allclose(found, variance)


def test_a_metric_stands_once_whatever_its_direction_and_settings() -> None:
    names = ("anil/trace", "maml/trace", "~anil/trace", "anil/condition_number", "maml/condition_number", "params")
    search = Search(tuple(metric(name) for name in names), required=("condition_number", "trace"), max_parts=3)
    starts = {search.rule(each, "rank_sum").name for each in search.starts()}
    assert starts == {f"{trace}, {condition}" for trace in names[:3] for condition in names[3:5]}
    larger = search.extended(search.starts())
    assert {search.rule(each, "rank_sum").metrics[-1].name for each in larger} == {"params"}
    alike = replace(search, one_setting=True)
    assert {search.rule(each, "rank_sum").name for each in alike.starts()} == {
        "anil/trace, anil/condition_number",
        "maml/trace, maml/condition_number",
        "~anil/trace, anil/condition_number",
    }
    assert len(alike.extended(alike.starts())) == 3
    exactly = replace(search, required=("maml/trace",))
    assert [search.parts[part].name for part in exactly.starts()[0]] == ["maml/trace"]


def test_where_there_would_be_too_many_only_the_best_are_extended() -> None:
    cells = planted_cells(0)
    whole, beam = planted_search(), planted_search(limit=50, beam=3)
    n_extended = 3 * 14  # at most, in two forms, from pairs on
    assert choose([cells], beam).n_compared < 15 + 2 * 2 * n_extended < choose([cells], whole).n_compared
    assert choose([cells], beam).rule == choose([cells], whole).rule


def rule_of(*names: str, form: Form = "rank_sum") -> RankRule:
    return RankRule(", ".join(names), tuple(metric(name) for name in names), form)


def test_the_best_baseline_is_chosen_on_the_first_half_too() -> None:
    cells = planted_cells(0)
    baselines = {"m07": rule_of("m07"), "m03": RankRule("m03", (metric("m03", False),))}
    found = validate([cells], planted_search(max_parts=1), baselines, {"m07 again": rule_of("m07")}, n_splits=6)
    table = found.figures.pivot_table(index="split", columns="rule", values="kendall")
    leads = found.figures.pivot_table(index="split", columns="rule", values="over_baseline")
    choosing = found.figures.pivot_table(index="split", columns="rule", values="kendall_choosing")
    assert (choosing[BEST_BASELINE] == choosing[["m07", "m03"]].max(axis=1)).all()
    assert (table[BEST_BASELINE] < table[["m07", "m03"]].max(axis=1)).any()
    for name in ("m07 again", "m03", CHOSEN):
        np.testing.assert_allclose(leads[name], table[name] - table[BEST_BASELINE])
    assert (table["m07 again"] == table["m07"]).all()
    summary = summarize(found.figures).set_index("rule").loc["m03"]
    assert summary["kendall_sd"] == pytest.approx(table["m03"].std())
    assert summary["over_baseline_sd"] == pytest.approx(leads["m03"].std())
    assert summary["wins"] == pytest.approx((leads["m03"] > 0).mean())


def test_figures_of_all_cells_have_intervals_and_a_paired_difference() -> None:
    cells = [planted_cells(0), replace(planted_cells(1), name="other")]
    planted = RankRule("planted", (metric("m03", False), metric("m07")))
    found = on_all_cells(cells, {"planted": planted}, {"m00": rule_of("m00"), "m07": rule_of("m07")}, n_resamples=200)
    assert list(found["truth"]) == ["truth"] * 3 + ["other"] * 3
    row = found.iloc[0]
    assert row["baseline"] == "m07"
    assert row["over_baseline"] == pytest.approx(row["kendall"] - found.iloc[2]["kendall"])
    assert 0 < row["over_baseline_low"] < row["over_baseline"] < row["over_baseline_high"]
    assert row["kendall"] == pytest.approx(kendalltau(-cells[0].order(planted), cells[0].truth).statistic)
    assert found.iloc[1:3]["over_baseline"].isna().all()


def test_with_several_truths_the_summary_has_a_row_of_all() -> None:
    cells = [planted_cells(0), replace(planted_cells(1), name="other")]
    found = validate(cells, planted_search(max_parts=1), {"m00": rule_of("m00")}, {}, n_splits=3)
    for objective in ("mean", "min"):
        table = summarize(found.figures, objective).set_index(["truth", "rule"])["kendall"]
        each = found.figures[found.figures["rule"] == "m00"].pivot_table(
            index="split", columns="truth", values="kendall"
        )
        assert table[f"({objective})", "m00"] == pytest.approx(each.agg(objective, axis=1).mean())
        assert table["other", "m00"] == pytest.approx(each["other"].mean())


def test_lift_is_the_mean_of_the_best_and_a_tie_counts_by_its_chance() -> None:
    truth = np.array([10.0, 20, 30, 40, 50, 60])
    cells = make_cells(truth, {"score": np.array([9.0, 8, 7, 7, 7, 1])})
    gained, percentile = lift(cells, rule_of("score"), k=3)
    assert gained == pytest.approx((10 + 20 + 40) / 3 - 35)  # one of 30, 40 and 50, each as likely
    assert percentile == pytest.approx(100 * 2 / 6)
    assert lift(cells, rule_of("score"), k=6) == pytest.approx((0, 50))


def test_a_constant_score_orders_nothing_and_is_never_chosen() -> None:
    cells = planted_cells(0)
    scores = cells.scores.assign(m00=1.0)
    found = validate([replace(cells, scores=scores)], planted_search(max_parts=1), {"m00": rule_of("m00")}, {})
    constant = found.figures[found.figures["rule"] == "m00"]
    assert (constant["kendall"] == 0).all()
    assert "m00" not in set(found.chosen["rule"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ()}, "nothing to choose from"),
        ({"required": ("m77",)}, r"required part 'm77' not found.*Did you mean 'm07'"),
        ({"required": ("m00", "m01"), "max_parts": 1}, "no combination of at most 1 parts has m00, m01"),
    ],
)
def test_an_impossible_search_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Search(**{"parts": noise_metrics(), **options})


def test_a_part_is_named_by_column_or_metric_and_turned_round_by_a_tilde() -> None:
    directions = {"anil/trace": True, "maml/trace": True, "anil/condition_number": False}
    for name, column in (("condition_number", "anil/condition_number"), ("~maml/trace", "~maml/trace")):
        expected = replace(metric(column, False), averaging="geometric")
        assert make_part(name, directions) == expected
    with pytest.raises(UsageError, match="'trace' stands in several runs; name one of anil/trace, maml/trace"):
        make_part("trace", directions)
    with pytest.raises(UsageError, match="score 'tracy' not found"):
        make_part("tracy", directions)
