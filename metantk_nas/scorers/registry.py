"""All metrics, the scorers that compute them, and the presets that rank by them.

A plug-in's entry point in the group ``metantk_nas.metrics`` is the class of a scorer: an `AbstractScorer` that is built
from a `ScoringSetup`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from metantk_nas import plugins
from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.scorers.activations import ActivationOverlapScorer, LinearRegionScorer
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.scorers.expressivity import ZenScorer
from metantk_nas.scorers.features import FeatureScorer
from metantk_nas.scorers.gradients import GradientScorer, SynFlowScorer
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.types import Combine, Metric, RankRule

Scorer = (
    KernelScorer
    | FeatureScorer
    | ActivationOverlapScorer
    | LinearRegionScorer
    | ZenScorer
    | SynFlowScorer
    | GradientScorer
)

SCORERS: tuple[type[Scorer], ...] = (
    KernelScorer,
    FeatureScorer,
    ActivationOverlapScorer,
    LinearRegionScorer,
    ZenScorer,
    SynFlowScorer,
    GradientScorer,
)

COST_METRICS = (
    Metric("params", True, "trainable parameters that reach the output", "counted; larger is the usual baseline"),
    Metric(
        "macs",
        True,
        "multiply–accumulate operations for one image, of what reaches the output",
        "counted; larger is the usual baseline",
    ),
)
"""Facts of an architecture that need no scorer."""

LATENCY = "latency_ms"
_LATENCY = Metric(
    LATENCY,
    False,
    "median time of a forward pass on this machine",
    "measured, so it differs between machines and runs; ranks only where it is asked for",
    unit="ms",
)

_OF_SCORERS = (metric for scorer in SCORERS for metric in scorer.metrics)
_BUILT_IN = {metric.name: metric for metric in (*_OF_SCORERS, *COST_METRICS, _LATENCY)}

PLUGGED_IN: dict[str, type[AbstractScorer]] = {}
"""Scorers of plug-ins by metric; filled when `METRICS` reads them."""


def _read_plugin(_: str, offered: Any) -> Mapping[str, Metric]:
    """Check what a plug-in offers, and remember its scorer."""
    if not (isinstance(offered, type) and issubclass(offered, AbstractScorer)):
        raise UsageError(f"it is {offered!r}; expected the class of an AbstractScorer")
    metrics = {metric.name: metric for metric in offered.metrics}
    known = {*_BUILT_IN, *PLUGGED_IN, *(scorer.name for scorer in (*SCORERS, *PLUGGED_IN.values()))}
    if taken := known.intersection([offered.name, *metrics]):
        raise UsageError(f"{', '.join(sorted(taken))} is there already; expected names of its own")
    PLUGGED_IN.update(dict.fromkeys(metrics, offered))
    return metrics


METRICS = plugins.Registry(plugins.METRICS, _BUILT_IN, _read_plugin)
"""All metrics by name."""

_AS_OBJECTIVES = {metric.name: replace(metric, higher_is_better=False) for metric in COST_METRICS}
_AS_OBJECTIVES["score"] = Metric("score", False, "the combined ranks of --rank-by", "the ranking rule")

OPPOSITE = "~"
"""Before a metric: against its direction."""


def _directed(part: str) -> Metric:
    metric = METRICS[part.removeprefix(OPPOSITE)]
    return replace(metric, higher_is_better=not metric.higher_is_better) if part.startswith(OPPOSITE) else metric


def asked_for(metric: Metric) -> str:
    """Return how a part of a rule is asked for: its name, after ``~`` where it counts against its direction."""
    return metric.name if metric.higher_is_better == METRICS[metric.name].higher_is_better else OPPOSITE + metric.name


def _rule(name: str, *parts: str, combine: Combine = "rank_sum", ties: str = "") -> RankRule:
    metrics = [_directed(part) for part in (*parts, ties) if part]
    return RankRule(name, tuple(metrics), combine, breaks_ties=bool(ties))


_PRESETS = (
    _rule("few-shot", "condition_number", "synflow", "params", ties="trace"),
    _rule("few-shot-nb201", "condition_number", "naswot", "n_linear_regions", "params", ties="trace"),
    _rule("metantk", "condition_number", "trace"),
    _rule("metantk-nas", "condition_number", "n_linear_regions", combine="dense_rank_sum"),
)
PRESETS: dict[str, RankRule] = {rule.name: rule for rule in _PRESETS}
"""Ranking presets.

``few-shot``, the default, was chosen by trained few-shot accuracies of two spaces (``results/README.md``): how evenly
the MetaNTK trains, how much flows through the network (SynFlow), and its size. How fast the MetaNTK trains, the trace,
breaks ties: whether more of it is better beside the others depends on the data. ``few-shot-nb201`` counts how many
functions the network tells apart (NASWOT, linear regions), not its flow: the best on NAS-Bench-201, but not on DARTS.
``metantk`` is the MetaNTK alone, and ``metantk-nas`` the rule of arXiv 2203.09137.
"""


def rank_rule(text: str) -> RankRule:
    """Read a preset's name, or a comma-separated list of metrics; ``~trace`` is the trace against its direction.

    Raises:
        UsageError: a name is neither a preset nor a metric, or stands twice.
    """
    if text in PRESETS:
        return PRESETS[text]
    parts = tuple(part.strip() for part in text.split(","))
    names = tuple(part.removeprefix(OPPOSITE) for part in parts)
    for name in names:
        if name not in METRICS:
            in_list = len(names) > 1
            kind = "metric" if in_list else "metric or ranking preset"
            raise METRICS.not_found(kind, name, also=() if in_list else PRESETS)
    if len(set(names)) < len(names):
        raise UsageError(f"--rank-by {text!r} names a metric twice; expected each metric once.")
    return _rule(text, *parts)


def preset_rule(name: str) -> RankRule:
    """Return a ranking preset.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in PRESETS:
        raise unknown_name("ranking preset", name, PRESETS)
    return PRESETS[name]


def pareto_objectives(text: str) -> tuple[Metric, ...]:
    """Read comma-separated objectives: metrics in their own direction, and ``score``, the ranking rule's.

    Of ``params`` and ``macs`` fewer are better here: as an objective they are a cost, not a score.

    Raises:
        UsageError: a name is no objective or stands twice, or there is only one.
    """
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in _AS_OBJECTIVES and name not in METRICS:
            raise METRICS.not_found("objective", name, also=_AS_OBJECTIVES)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--pareto {text!r} names {len(set(names))} objectives; expected at least two, each once.")
    return tuple(_AS_OBJECTIVES.get(name) or METRICS[name] for name in names)


def make_scorers(setup: ScoringSetup, metrics: Sequence[Metric]) -> list[AbstractScorer]:
    """Build the scorers that ``metrics`` need; the kernel scorer always."""
    wanted = {metric.name for metric in metrics}
    own = [
        scorer(setup)
        for scorer in SCORERS
        if scorer is KernelScorer or wanted.intersection(metric.name for metric in scorer.metrics)
    ]
    plugged_in: dict[Any, None] = dict.fromkeys(PLUGGED_IN[name] for name in wanted if name in PLUGGED_IN)
    return [*own, *(scorer(setup) for scorer in sorted(plugged_in, key=attrgetter("name")))]
