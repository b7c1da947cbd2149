"""Numbers, metric names and manifests in words a person reads."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ARROWS = {True: "↑ higher is better", False: "↓ lower is better", None: "no direction"}

METRIC_NAMES = {"macs": "MACs", "latency_ms": "latency [ms]"}
METRIC_NOTES: dict[str, tuple[bool | None, str]] = {  # name: (higher is better, meaning and unit)
    "rank": (False, "Place among all candidates, 1 is best."),
    "score": (False, "What the ranking sorts by: the combined ranks over its metrics."),
    "pareto": (False, "Number of the Pareto front: nobody beats front 1 in one objective and is as good in the rest."),
    "condition_number": (False, "λmax/λmin of the Meta Neural Tangent Kernel, at least 1, no unit."),
    "trace": (True, "Sum of the eigenvalues of the Meta Neural Tangent Kernel, no unit."),
    "adaptation_loss": (False, "Query loss of the closed-form inner loop at initialisation."),
    "n_linear_regions": (True, "Distinct activation patterns among random inputs."),
    "naswot": (True, "Log-determinant of the overlap of ReLU activation patterns."),
    "params": (None, "Trainable parameters."),
    "macs": (None, "Multiply-accumulate operations for one image."),
    "latency_ms": (False, "Measured time of a forward pass in milliseconds; the manifest says of what, and where."),
    "seconds": (None, "Wall-clock time spent on the candidate."),
    "accuracy": (True, "Mean accuracy on episodes of novel classes, with its 95 % confidence interval."),
}


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
    return METRIC_NAMES.get(column, column.replace("_", " "))


def metric_note(column: str, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Direction and meaning of a column: what the manifest's rule says, otherwise what is known here."""
    higher, note = METRIC_NOTES.get(column, (None, ""))
    for metric in rank_rule(manifest).get("metrics", []):
        if isinstance(metric, Mapping) and metric.get("name") == column:
            higher = metric.get("higher_is_better", higher)
            note = str(metric.get("description") or note)
    return ARROWS[higher], note


def rank_rule(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ranking rule that a manifest records, empty if none."""
    for place in (manifest, manifest.get("spec")):
        if isinstance(place, Mapping):
            for name in ("rank_rule", "rule", "rank", "rank_by"):
                if isinstance(place.get(name), Mapping):
                    return place[name]  # type: ignore[no-any-return]  # narrowed by the line above
    return {}


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
