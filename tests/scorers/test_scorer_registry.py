import numpy as np
import pytest

from metantk_nas.errors import UsageError
from metantk_nas.ordering import combine
from metantk_nas.scorers.registry import METRICS, PRESETS, SCORERS, asked_for, make_scorers, rank_rule
from tests.contracts.scorer import make_setup


def test_no_two_scorers_share_a_metric_or_a_name() -> None:
    names = [metric.name for scorer in SCORERS for metric in scorer.metrics]
    assert len(set(names)) == len(names)
    assert len({scorer.name for scorer in SCORERS}) == len(SCORERS)
    assert METRICS.keys() == {*names, "params", "macs", "latency_ms"}


def test_every_metric_says_what_it_is_and_where_it_comes_from() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.description
        assert metric.source


@pytest.mark.parametrize(
    ("name", "higher_is_better"),
    [
        ("condition_number", False),
        ("trace", True),
        ("adaptation_loss", False),
        ("n_linear_regions", True),
        ("naswot", True),
        ("ntk_condition_number", False),
        ("kernel_alignment", True),
        ("prototype_accuracy", True),
        ("ridge_loss", False),
        ("zen_score", True),
        ("synflow", True),
        ("grad_norm", True),
        ("snip", True),
        ("params", True),
    ],
)
def test_a_metric_has_its_published_direction(name: str, higher_is_better: bool) -> None:
    assert METRICS[name].higher_is_better is higher_is_better


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("metantk", ["condition_number", "trace"]),
        ("metantk-nas", ["condition_number", "n_linear_regions"]),
        ("few-shot", ["condition_number", "synflow", "params", "trace"]),
        ("few-shot-nb201", ["condition_number", "naswot", "n_linear_regions", "params", "trace"]),
        ("naswot", ["naswot"]),
        ("params, trace,condition_number", ["params", "trace", "condition_number"]),
    ],
)
def test_a_rule_is_a_preset_or_a_list_of_metrics(text: str, names: list[str]) -> None:
    rule = rank_rule(text)
    assert rule.name == text
    assert [metric.name for metric in rule.metrics] == names
    assert set(PRESETS) == {"metantk", "metantk-nas", "few-shot", "few-shot-nb201"}


def test_presets_that_break_ties_say_so_apart_from_their_parts() -> None:
    rule = rank_rule("few-shot")
    assert rule.parts == "condition_number ↓ + synflow ↑ + params ↑, ties: trace ↑"
    assert rule.tie_breaker is METRICS["trace"]
    assert [metric.name for metric in rule.summed] == ["condition_number", "synflow", "params"]


def test_a_part_against_its_direction_ranks_the_other_way_round() -> None:
    rule = rank_rule("condition_number, ~trace")
    assert rule.parts == "condition_number ↓ + trace ↓"
    assert rank_rule("metantk").parts == "condition_number ↓ + trace ↑"
    values = np.array([[[3.0, 3.0, 3.0]], [[2.0, 1.0, 9.0]]])
    assert [asked_for(metric) for metric in rule.metrics] == ["condition_number", "~trace"]
    assert combine(values, rule).argsort().tolist() == [[1, 0, 2]]
    assert combine(values, rank_rule("metantk")).argsort().tolist() == [[2, 0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metank", r"metric or ranking preset 'metank' not found; .*Did you mean 'metantk'\?"),
        ("trace,condition_numbr", r"metric 'condition_numbr' not found; .*Did you mean 'condition_number'\?"),
        ("trace,metantk", r"metric 'metantk' not found; available: (?!.*metantk-nas)"),
        ("", "metric or ranking preset '' not found"),
        ("trace,", "metric '' not found"),
        ("trace,params,trace", "names a metric twice; expected each metric once"),
        ("trace,~trace", "names a metric twice; expected each metric once"),
        ("~trac", r"metric or ranking preset 'trac' not found; .*Did you mean 'trace'\?"),
    ],
)
def test_a_name_that_is_no_metric_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rank_rule(text)


@pytest.mark.parametrize(
    ("rule", "scorers"),
    [
        ("metantk", ["kernel"]),
        ("params", ["kernel"]),
        ("naswot,trace", ["kernel", "activation_overlap"]),
        ("metantk-nas", ["kernel", "linear_regions"]),
        ("prototype_accuracy,ridge_loss", ["kernel", "features"]),
        ("zen_score", ["kernel", "zen"]),
        ("snip,synflow,grad_norm", ["kernel", "synflow", "gradients"]),
        ("n_linear_regions,naswot", ["kernel", "activation_overlap", "linear_regions"]),
    ],
)
def test_only_the_scorers_that_are_needed_are_made(rule: str, scorers: list[str]) -> None:
    assert [scorer.name for scorer in make_scorers(make_setup(), rank_rule(rule).metrics)] == scorers
