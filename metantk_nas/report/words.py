"""Numbers, metric names and manifests in words a person reads."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MISSING = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DIRECTIONS = {True: ("↑", "higher is better"), False: ("↓", "lower is better"), None: ("", "")}
METRIC_NAMES = {
    "macs": "MACs",
    "latency_ms": "latency [ms]",
    "naswot": "NASWOT",
    "n_linear_regions": "linear regions",
    "synflow": "SynFlow",
    "snip": "SNIP",
}
COLUMN_NOTES: dict[str, tuple[bool | None, str]] = {
    "rank": (False, "place among all candidates, 1 is best"),
    "score": (False, "what the ranking sorts by: the combined ranks over its metrics"),
    "pareto": (False, "number of the Pareto front: nobody beats front 1 in one objective and is as good in the rest"),
    "seconds": (None, "wall-clock time spent on the candidate"),
    "accuracy": (True, "mean accuracy on episodes of novel classes, with its 95 % confidence interval"),
}
"""Whether higher is better, and what it is, of columns that are no metrics; those the manifest describes."""


class Note(NamedTuple):
    """What there is to know about a column.

    Args:
        arrow: the better direction, ``"↑"`` or ``"↓"``; empty where there is none.
        text: meaning, unit and direction, as far as they are known.
    """

    arrow: str
    text: str


def number(value: float | None, digits: int = 4) -> str:
    """Value at a few significant digits; a dash for NaN, ∞ for infinity, powers of ten beyond a million."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        whole = float(value).is_integer()
        decimals = 0 if whole else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}".replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", "−")


def count(value: float | None) -> str:
    """Large count with three significant digits and a unit: ``1.23 M``."""
    if value is None or not math.isfinite(value):
        return number(value)
    for power, unit in ((9, "G"), (6, "M"), (3, "K")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{f'{value / 10**power:#.3g}'.rstrip('.')} {unit}"
    return number(value)


def duration(seconds: float | None) -> str:
    """Time in the unit that fits: ``12.3 s``, ``4 min 12 s``, ``1 h 5 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{number(1000 * seconds, 3)} ms"
    if seconds < 99.5:
        return f"{f'{seconds:#.3g}'.rstrip('.')} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """Fraction as a percentage without its sign."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    return f"{100 * fraction:.{decimals}f}"


def fixed(value: float) -> str:
    """Statistic with three decimals; a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:.3f}".replace("-", "−")


def metric_name(column: str) -> str:
    """Column name as words."""
    return METRIC_NAMES.get(column, column.replace("ntk_", "NTK ").replace("_", " "))


def listing(names: Sequence[str]) -> str:
    """Names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def metric_note(column: str, manifest: Mapping[str, Any]) -> Note:
    """Say what a column is: as the manifest describes it, for it was there when the column was measured, or as here."""
    own_higher, own_description = COLUMN_NOTES.get(column, (None, ""))
    metric = _described(column, manifest)
    higher = metric.get("higher_is_better", own_higher)
    meaning = with_unit(str(metric.get("description", own_description)), str(metric.get("unit", "")))
    arrow, direction = DIRECTIONS[higher if isinstance(higher, bool) else None]
    return Note(arrow, "; ".join(part for part in (meaning, direction) if part))


def with_unit(description: str, unit: str) -> str:
    """Describe a metric with its unit, if it has one."""
    return f"{description}, in {unit}" if unit else description


def _described(column: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a manifest says of a metric; one that lists no metrics describes those of its rule."""
    listed = manifest.get("metrics")
    entry = listed.get(column) if isinstance(listed, Mapping) else None
    if isinstance(entry, Mapping):
        return entry
    parts = rank_rule(manifest).get("metrics", [])
    return next((part for part in parts if isinstance(part, Mapping) and part.get("name") == column), {})


def rank_rule(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ranking rule that a manifest records, empty if none."""
    for place in (manifest, manifest.get("spec")):
        if isinstance(place, Mapping):
            for name in ("rank_rule", "rule", "rank", "rank_by"):
                if isinstance(place.get(name), Mapping):
                    return place[name]  # type: ignore[no-any-return]  # narrowed by the line above
    return {}


def entries(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a manifest; of metrics only the names of those that rank, for `metric_note` tells the rest."""
    rule = manifest.get("rank_rule")
    if isinstance(rule, Mapping) and isinstance(rule.get("metrics"), list):
        names = [part.get("name") if isinstance(part, Mapping) else part for part in rule["metrics"]]
        manifest = {**manifest, "rank_rule": {**rule, "metrics": names}}
    yield from flatten({name: entry for name, entry in manifest.items() if name != "metrics"})


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a nested manifest as rows of dotted names and texts; entries of a list of mappings count from 0."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            yield from flatten({str(index): entry for index, entry in enumerate(value)}, f"{name}.")
        elif isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
