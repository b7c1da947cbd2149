"""All metrics, the scorers that compute them, and the presets that rank by them."""

from collections.abc import Sequence
from dataclasses import replace

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.scorers.activations import ActivationOverlapScorer, LinearRegionScorer
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.scorers.expressivity import ZenScorer
from metantk_nas.scorers.features import FeatureScorer
from metantk_nas.scorers.gradients import GradientScorer, SynFlowScorer
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.types import Metric, RankRule

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
    Metric(
        "params", True, "trainable parameters of the network that is built", "counted; larger is the usual baseline"
    ),
    Metric("macs", True, "multiply–accumulate operations for one image", "counted; larger is the usual baseline"),
)
"""Facts of an architecture that need no scorer."""

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*(m for scorer in SCORERS for m in scorer.metrics), *COST_METRICS)
}

OBJECTIVES: dict[str, Metric] = {
    **METRICS,
    **{metric.name: replace(metric, higher_is_better=False) for metric in COST_METRICS},
    "score": Metric("score", False, "the combined ranks of --rank-by", "the ranking rule"),
}
"""What candidates may be compared by on a Pareto front."""

PRESETS: dict[str, RankRule] = {
    "metantk": RankRule("metantk", (METRICS["condition_number"], METRICS["trace"])),
    "metantk-nas": RankRule(
        "metantk-nas", (METRICS["condition_number"], METRICS["n_linear_regions"]), "dense_rank_sum"
    ),
}
"""Ranking presets: ``metantk`` is the MetaNTK alone; ``metantk-nas`` is the rule of arXiv 2203.09137."""


def rank_rule(text: str) -> RankRule:
    """Read a preset's name, or a comma-separated list of metrics.

    Raises:
        UsageError: a name is neither a preset nor a metric, or stands twice.
    """
    if text in PRESETS:
        return PRESETS[text]
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in METRICS:
            in_list = len(names) > 1
            kind = "metric" if in_list else "metric or ranking preset"
            raise unknown_name(kind, name, METRICS if in_list else {*METRICS, *PRESETS})
    if len(set(names)) < len(names):
        raise UsageError(f"--rank-by {text!r} names a metric twice; expected each metric once.")
    return RankRule(text, tuple(METRICS[name] for name in names))


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
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--pareto {text!r} names {len(set(names))} objectives; expected at least two, each once.")
    return tuple(OBJECTIVES[name] for name in names)


def make_scorers(setup: ScoringSetup, metrics: Sequence[Metric]) -> list[AbstractScorer]:
    """Build the scorers that ``metrics`` need; the kernel scorer always."""
    wanted = {metric.name for metric in metrics}
    return [
        scorer(setup)
        for scorer in SCORERS
        if scorer is KernelScorer or wanted.intersection(metric.name for metric in scorer.metrics)
    ]
