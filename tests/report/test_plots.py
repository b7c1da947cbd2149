from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metantk_nas.report.plots import (
    DARK,
    LIGHT,
    PLOTS,
    Tables,
    draw_accuracies,
    draw_condition_number_and_trace,
    draw_learning_curves,
    draw_pareto,
    draw_plots,
    draw_rank_intervals,
)

PNG = b"\x89PNG\r\n\x1a\n"
RANKING_PLOTS = {"condition_number_trace", "pareto", "rank_intervals"}


@pytest.fixture
def tables() -> Tables:
    n = 30
    steps = np.arange(1, n + 1)
    ranking = pd.DataFrame({"rank": steps, "key": [f"k{step}" for step in steps], "status": "ok", "score": 2.0 * steps})
    ranking["condition_number"], ranking["trace"] = 2.0**steps, 1.0 + 0.1 * steps
    ranking["params"] = 1000 * steps
    ranking["rank_low"], ranking["rank_high"] = steps - 1, pd.array(steps + 1, dtype="Int64")
    evaluation = pd.DataFrame({"rank": [1, 2], "arch": ["a", "b"], "learner": "anil", "n_way": 5, "n_shot": 1})
    evaluation["accuracy"], evaluation["ci95"] = [0.91, 0.88], [0.004, 0.005]
    curve = pd.DataFrame({"episode": [100, 200, 300], "train_loss": [1.6, 0.9, 0.5]})
    curve["validation_accuracy"], curve["validation_ci"] = [0.3, np.nan, 0.8], 0.01
    return Tables(ranking, evaluation, {"rank1-anil": curve, "rank2-anil": curve + 0.1})


def names_of(tables: Tables) -> set[str]:
    return {plot.name for plot in draw_plots(tables)}


def test_every_plot_is_drawn_for_light_and_dark_pages(tables: Tables) -> None:
    plots = draw_plots(tables)
    assert {plot.name for plot in plots} == set(PLOTS)
    for plot in plots:
        assert plot.light.startswith(PNG)
        assert plot.dark.startswith(PNG)
        assert plot.light != plot.dark


def test_only_what_was_measured_is_drawn(tables: Tables) -> None:
    assert names_of(Tables(tables.ranking)) == RANKING_PLOTS
    lean = tables.ranking.drop(columns=["trace", "rank_low"])
    assert names_of(Tables(lean)) == {"pareto"}


def test_no_plot_of_a_ranking_in_which_all_failed(tables: Tables) -> None:
    assert names_of(Tables(tables.ranking.assign(status="singular"))) == set()


def test_two_candidates_are_enough_and_one_has_nothing_to_be_compared_with(tables: Tables) -> None:
    assert names_of(Tables(tables.ranking.head(2))) == RANKING_PLOTS
    assert names_of(Tables(tables.ranking.head(1))) == set()


def test_equal_values_are_drawn(tables: Tables) -> None:
    same = tables.ranking.assign(condition_number=7.0, trace=3.0, params=1000, score=1.0)
    assert names_of(Tables(same)) == RANKING_PLOTS


def test_infinite_and_missing_values_are_left_out(tables: Tables) -> None:
    ranking = tables.ranking.astype({"trace": float, "rank_high": "Int64"})
    ranking.loc[0, "condition_number"], ranking.loc[1, "trace"] = np.inf, np.nan
    ranking.loc[2, "rank_high"] = pd.NA
    figure = draw_condition_number_and_trace(Tables(ranking), LIGHT)
    assert figure is not None
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == 28
    intervals = draw_rank_intervals(Tables(ranking), LIGHT)
    assert intervals is not None
    assert [label.get_text() for label in intervals.axes[0].get_yticklabels()][:3] == ["#1", "#2", "#4"]


def test_members_of_one_key_are_one_dot(tables: Tables) -> None:
    keys = ["same"] * 29 + ["other"]
    figure = draw_condition_number_and_trace(Tables(tables.ranking.assign(key=keys)), LIGHT)
    assert figure is not None
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == 2


def test_axes_are_logarithmic_only_where_positive_values_span_magnitudes(tables: Tables) -> None:
    figure = draw_condition_number_and_trace(tables, LIGHT)
    assert figure is not None
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "linear")
    for lowest in (-900.0, 0.0):
        figure = draw_pareto(Tables(tables.ranking.assign(score=np.linspace(lowest, 900, 30))), LIGHT)
        assert figure is not None
        assert figure.axes[0].get_yscale() == "linear"


def test_the_pareto_front_is_what_nothing_beats_in_cost_and_score(tables: Tables) -> None:
    ranking = tables.ranking.head(5).assign(
        params=[100, 200, 300, 400, 50], score=[5.0, 3.0, 4.0, 1.0, 5.0], latency_ms=[1.0, 2.0, 3.0, 4.0, np.nan]
    )
    figure = draw_pareto(Tables(ranking.assign(macs=7)), LIGHT)
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["parameters", "latency [ms]"]
    fronts = [list(zip(*axes.lines[0].get_data(), strict=True)) for axes in figure.axes]
    assert fronts == [[(50, 5), (200, 3), (400, 1)], [(1, 5), (2, 3), (4, 1)]]
    dots = [sum(len(each.get_offsets()) for each in axes.collections) for axes in figure.axes]
    assert dots == [5, 4]


def test_costs_that_were_not_measured_have_no_panel(tables: Tables) -> None:
    figure = draw_pareto(Tables(tables.ranking), LIGHT)
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["parameters"]


def test_learning_curves_connect_the_episodes_that_were_validated(tables: Tables) -> None:
    figure = draw_learning_curves(tables, DARK)
    assert figure is not None
    loss, accuracy = figure.axes
    assert list(loss.lines[0].get_xdata()) == [100, 200, 300]
    assert list(accuracy.lines[0].get_xdata()) == [100, 300]
    assert list(accuracy.lines[0].get_ydata()) == [30, 80]


def test_learning_curves_without_validation_have_one_panel(tables: Tables) -> None:
    curves = {name: curve.drop(columns="validation_accuracy") for name, curve in tables.curves.items()}
    figure = draw_learning_curves(replace(tables, curves=curves), LIGHT)
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss"]


def test_a_curve_of_one_point_is_visible(tables: Tables) -> None:
    short = replace(tables, curves={"rank1-anil": tables.curves["rank1-anil"].head(1)})
    figure = draw_learning_curves(short, LIGHT)
    assert figure is not None
    assert figure.axes[0].lines[0].get_marker() == "o"


def test_empty_curves_are_left_out(tables: Tables) -> None:
    empty = {"rank1-anil": tables.curves["rank1-anil"].head(0)}
    assert draw_learning_curves(replace(tables, curves=empty), LIGHT) is None


def test_accuracies_are_percentages_named_by_rank_learner_and_shots(tables: Tables) -> None:
    evaluation = pd.concat([tables.evaluation, tables.evaluation.assign(n_shot=5, rank=np.nan, ci95=np.nan)])
    figure = draw_accuracies(replace(tables, evaluation=evaluation), LIGHT)
    assert figure is not None
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["#1  anil  1-shot", "#2  anil  1-shot", "a  anil  5-shot", "b  anil  5-shot"]
    assert [text.get_text() for text in axes.texts] == ["91.0", "88.0", "91.0", "88.0"]
    assert "chance: 20" in axes.get_xlabel()


def test_names_are_never_taken_for_formulae(tables: Tables) -> None:
    hostile = r"$\frac{" * 9
    strange = Tables(
        tables.ranking,
        tables.evaluation.assign(learner=hostile),
        {hostile: tables.curves["rank1-anil"], "_x": tables.curves["rank1-anil"]},
    )
    assert names_of(strange) == set(PLOTS)
