import math

import pytest

from metantk_nas.report.words import count, duration, flatten, listing, metric_note, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (1.0, "1"),
        (15625.0, "15,625"),
        (3.14159, "3.142"),
        (-27.1828, "−27.18"),
        (9.99996, "10.000"),
        (12345.678, "12,346"),
        (0.00123456, "0.001235"),
        (1234567.0, "1.23 × 10⁶"),
        (4.2e-12, "4.20 × 10⁻¹²"),
    ],
)
def test_numbers_have_four_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (512, "512"),
        (29_700_000, "29.7 M"),
        (1_234_567, "1.23 M"),
        (999_600, "1.00 M"),
        (540_000, "540 K"),
        (3.1e9, "3.10 G"),
    ],
)
def test_counts_have_three_significant_digits_and_a_unit(value: float, text: str) -> None:
    assert count(value) == text
    assert count(math.nan) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0701, "70.1 ms"),
        (12.34, "12.3 s"),
        (59.96, "60.0 s"),
        (252, "4 min 12 s"),
        (3900, "1 h 5 min"),
        (math.nan, "–"),
    ],
)
def test_durations_use_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_percentages_have_no_sign_and_survive_nan() -> None:
    assert percent(0.97125) == "97.12"
    assert percent(math.nan) == "–"


def test_a_metric_is_what_the_manifest_says() -> None:
    metrics = {"wait": {"description": "how long", "higher_is_better": False, "unit": "ms"}}
    metrics["size"] = {"description": "how large", "higher_is_better": None, "unit": ""}
    assert metric_note("wait", {"metrics": metrics}) == ("↓", "how long, in ms; lower is better")
    assert metric_note("size", {"metrics": metrics}) == ("", "how large")
    assert metric_note("unheard_of", {"metrics": metrics}) == ("", "")


def test_an_old_manifest_explains_the_metrics_of_its_rule_alone() -> None:
    rule = {"metrics": [{"name": "trace", "higher_is_better": True, "description": "a sum"}, "odd"]}
    for manifest in ({"rank_rule": rule}, {"spec": {"rank_rule": rule}}, {"rank_rule": rule, "metrics": {"trace": 1}}):
        assert metric_note("trace", manifest) == ("↑", "a sum; higher is better")
    assert metric_note("trace", {}) == ("", "")
    assert metric_note("trace", {"rank_rule": {"metrics": [{"name": "trace", "higher_is_better": []}]}}) == ("", "")
    assert metric_note("score", {})[0] == "↓", "no metric: the report knows it"


def test_a_manifest_becomes_rows_of_dotted_names() -> None:
    content = {"spec": {"n_way": 5, "list": [{"name": "x"}, 2]}, "none": {}, "text": "a b"}
    rows = [("spec.n_way", "5"), ("spec.list.0.name", "x"), ("spec.list.1", "2"), ("none", "{}"), ("text", "a b")]
    assert list(flatten(content)) == rows


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_are_listed_as_in_a_sentence(names: list[str], text: str) -> None:
    assert listing(names) == text
