"""Optuna (extra ``optuna``): scores as an objective, and a ranking as the start of a study of accuracies.

An *accuracy* study is told accuracies alone, by an objective of yours that trains what `suggest` proposes. A ranking
may say where it begins (`enqueue_top`), but scores at initialisation are never told as if they were accuracies.

Studies are resumed as Optuna does it: keep them in a storage (``JournalStorage`` needs nothing but a file), and open
them again with ``load_if_exists=True``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.extra import library
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.results import Ranking, read_json
from metantk_nas.scorers.registry import COST_METRICS, LATENCY, METRICS, rank_rule
from metantk_nas.spaces.flat import decode, encode, parameters
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.types import Metric

if TYPE_CHECKING:
    from optuna import Study, Trial

_optuna: Any = library("optuna", extra="optuna")


@dataclass(frozen=True)
class Objective:
    """What Optuna minimises and maximises: metrics of an architecture, at initialisation.

    Args:
        scorer: scores; ``max_params``, ``max_macs`` and ``max_latency`` of its spec are the budgets.
        metrics: names of metrics and their directions, in the order of the values.
    """

    scorer: ArchitectureScorer
    metrics: tuple[Metric, ...]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """What ``optuna.create_study`` takes."""
        return ["maximize" if metric.higher_is_better else "minimize" for metric in self.metrics]

    def __call__(self, trial: "Trial") -> tuple[float, ...]:
        """Score what a trial suggests.

        The user attributes are ``arch``, ``key``, ``params``, ``macs``, and then ``status`` and ``reason``.

        Raises:
            optuna.TrialPruned: over budget, which the sampler learns as a constraint and which costs no kernel; or the
                ``status`` is not ``"ok"``.
        """
        space, spec = self.scorer.space, self.scorer.spec
        genotype = suggest(trial, space)
        cost = self.scorer.cost(genotype)
        for name, fact in {"arch": space.format(genotype), "key": space.key(genotype), **cost}.items():
            trial.set_user_attr(name, fact)
        limits = {"params": spec.max_params, "macs": spec.max_macs, LATENCY: spec.max_latency}
        over = {name: cost[name] - limit for name, limit in limits.items() if limit is not None}
        for name, excess in over.items():
            trial.set_constraint(f"max_{name}", excess)
        if any(excess > 0 for excess in over.values()):
            raise _optuna.TrialPruned(f"over budget by {over}")
        row = self.scorer(genotype)
        for name in ("status", "reason"):
            trial.set_user_attr(name, row[name])
        if row["status"] != "ok":
            raise _optuna.TrialPruned(f"{row['status']}: {row['reason']}")
        return tuple(float(row[metric.name]) for metric in self.metrics)


def objective(scored_by: SearchSpec | ArchitectureScorer, metrics: Sequence[str] = ()) -> Objective:
    """Make an objective; give its ``directions`` to ``optuna.create_study``.

    Args:
        scored_by: how to score, and the budgets, ``max_params`` for example; searcher and ``budget`` do not matter.
        metrics: names of metrics in their own direction, but that fewer ``params`` and ``macs`` are better; those
            that ``rank_by`` sums where empty.

    Raises:
        UsageError: a name is no metric, or stands twice.
    """
    spec = scored_by if isinstance(scored_by, SearchSpec) else scored_by.spec
    names = [metric.name for metric in (rank_rule(",".join(metrics)) if metrics else spec.rule).summed]
    costs = {metric.name: replace(metric, higher_is_better=False) for metric in COST_METRICS}
    further = ",".join(dict.fromkeys(filter(None, [*names, *map(str.strip, spec.metrics.split(","))])))
    return Objective(
        ArchitectureScorer(replace(spec, metrics=further)), tuple(costs.get(name) or METRICS[name] for name in names)
    )


def suggest(trial: "Trial", space: Space) -> Genotype:
    """Let a trial suggest an architecture of a space, whatever the study is about."""
    every = parameters(space).items()
    return decode(space, {name: trial.suggest_categorical(name, choices) for name, choices in every})


def enqueue_top(
    study: "Study", ranking: Ranking | pd.DataFrame | str | Path, k: int, *, space: Space | str | None = None
) -> list[str]:
    """Let a study begin with the best architectures of a ranking; what they are worth, its objective must find out.

    Nothing is told but the parameters, so no score is taken for an accuracy; of each canonical key there is one. What
    the study knows already is not enqueued again, so a resumed study may be given the same ranking.

    Args:
        study: its objective takes architectures from `suggest`.
        ranking: what a search returned, its frame, or the path of its directory or ``ranking.csv``.
        k: how many.
        space: the search space; may be left out where the ranking has the manifest of its run.

    Returns:
        The architectures, best first; user attributes of their trials are ``arch``, ``key`` and ``rank``.

    Raises:
        UsageError: the space cannot be known, or ``k`` is not positive.
        GenotypeError: the ranking is of another space.
    """
    found, named = _read(ranking)
    space = space or named
    if space is None:
        raise UsageError("this ranking does not say which search space it is of; expected space='nas_bench_201', say.")
    chosen = load_space(space) if isinstance(space, str) else space
    best = found.top(k).frame
    for rank, arch, key in zip(best["rank"], best["arch"], best["key"], strict=True):
        attributes = {"arch": arch, "key": key, "rank": int(rank)}
        study.enqueue_trial(encode(chosen, chosen.parse(arch)), user_attrs=attributes, skip_if_exists=True)
    return list(best["arch"])


def _read(ranking: Ranking | pd.DataFrame | str | Path) -> tuple[Ranking, str | None]:
    """Read a ranking, and the name of its space where its manifest has one."""
    if isinstance(ranking, pd.DataFrame):
        return Ranking(ranking), None
    if not isinstance(ranking, Ranking):
        path = Path(ranking) / "ranking.csv" if Path(ranking).is_dir() else Path(ranking)
        manifest = path.parent / "manifest.json"
        ranking = Ranking.load(path, read_json(manifest) if manifest.exists() else None)
    spec: Any = ranking.manifest.get("spec", {})
    return ranking, spec.get("space")
