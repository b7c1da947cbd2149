"""Search and score: from a spec to a ranking on disk, one committed chunk at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metantk_nas.episodes.check import RANKING, left_out_note
from metantk_nas.episodes.request import Progress
from metantk_nas.errors import RunError, brief_text
from metantk_nas.experiment.engine import Engine
from metantk_nas.experiment.fidelity import Look
from metantk_nas.experiment.latency import SCORER as LATENCY_SCORER
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.tasks import OUT_OF_MEMORY
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.experiment.workers import Note
from metantk_nas.networks.build import build_network
from metantk_nas.report.html import write_report
from metantk_nas.results import Ranking, make_ranking, rank_column, read_json, write_json, write_text
from metantk_nas.scorers.registry import COST_METRICS, LATENCY, METRICS
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem, Told
from metantk_nas.searchers.given import GivenSearcher
from metantk_nas.searchers.pruning import PruningSearcher
from metantk_nas.searchers.registry import make_searcher, searcher_entry
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture, EdgeSlot
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Metric

ASK = 64
"""Architectures asked of a searcher at a time."""


def search(
    spec: SearchSpec,
    out: Path,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> Ranking:
    """Score what a searcher proposes and rank it; what an interrupted run has scored is not scored again.

    Args:
        spec: the search.
        out: directory of the run; ``scores.sqlite``, ``ranking.csv``, ``manifest.json`` and ``report.html`` are
            written there, and ``pruning.csv`` by the pruning search.
        command: words of the command line, for the manifest.
        progress: told how far the work is.
        note: told when memory ran out, when a worker died, and which classes have too few images.

    Raises:
        UsageError: the spec cannot be carried out.
        RunError: ``out`` holds another run.
    """
    refuse_foreign(out)
    bench = Workbench.of(spec, progress)
    n_needed = spec.n_shot + spec.n_query
    if note is not None and (left_out := bench.dataset.base.smaller_than(n_needed)):
        note(left_out_note("base", left_out, n_needed, RANKING))
    return carry_out(bench, searcher_of(bench), out, command=command, progress=progress, note=note)


def score(
    archs: Sequence[str],
    spec: SearchSpec,
    out: Path,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
) -> Ranking:
    """Score given architectures: the same rows as a search would write for them.

    Args:
        archs: architecture texts.
        spec: how to score; its searcher and budget do not matter.
        out: as in `search`.
        command: as in `search`.
        progress: as in `search`.
        note: as in `search`.

    Raises:
        GenotypeError: a text is not an architecture of the space.
    """
    refuse_foreign(out)
    bench = Workbench.of(spec, progress)
    given = GivenSearcher([bench.space.parse(arch) for arch in archs])
    return carry_out(bench, given, out, command=command, progress=progress, note=note)


def load_ranking(run: Path, space: Space) -> Ranking:
    """Read the ranking of a run; its rows can be built."""
    ranking = Ranking.load(run / "ranking.csv", read_json(run / "manifest.json"))
    return _buildable(ranking, space, ranking.manifest)


def read_spec(run: Path) -> SearchSpec:
    """Read what a run searched for.

    Raises:
        RunError: the directory holds no search, or one that has not ended.
    """
    if not (run / "manifest.json").exists():
        if (run / "scores.sqlite").exists():
            raise RunError(
                f"{run} holds a search that has not ended; the command that began it goes on where it stopped, and "
                "writes the ranking when all is scored."
            )
        raise RunError(f"{run} holds no search; expected the --out directory of metantk-nas search.")
    record = read_json(run / "manifest.json").get("spec")
    if not isinstance(record, dict):
        raise RunError(f"{run / 'manifest.json'} is not the manifest of a search: it has no spec.")
    try:
        root = record.get("data_root")
        return SearchSpec(**{**record, "data_root": root and Path(root), "inner_time": float(record["inner_time"])})
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{run / 'manifest.json'} is not the manifest of a search: {brief_text(error)}.") from error


def redraw(run: Path) -> Path:
    """Write a run's report anew from what it left behind, and return its path.

    Raises:
        RunError: the directory holds no search.
    """
    return write_report(run, read_spec(run).load_space())


def refuse_foreign(out: Path) -> None:
    """Refuse a directory that holds files, but no run.

    Raises:
        RunError: names what was found.
    """
    if out.is_file():
        raise RunError(f"--out {out} is a file; expected a directory, new or of the same run.")
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if found and not {"scores.sqlite", "manifest.json"}.intersection(found):
        raise RunError(f"--out {out} is not empty and holds no run (it has {found[0]!r}); choose another directory.")


def searcher_of(bench: Workbench) -> AbstractSearcher:
    """Make the searcher that a workbench's spec names."""
    spec = bench.spec
    problem = SearchProblem(bench.space, spec.candidate_budget, spec.seed, bench.allowed, bench.order)
    return make_searcher(spec.searcher, problem, spec.searcher_settings)


def rank_proposals(
    bench: Workbench,
    searcher: AbstractSearcher,
    scores: Path,
    *,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Ranking:
    """Score what a searcher proposes and rank it; no file is written but the store.

    The ranking's manifest has ``seconds`` alone: what all scores took, over all sittings.

    A lack of memory says nothing of an architecture: what did not fit in an earlier sitting is tried again.

    Args:
        bench: space, data and scorers.
        searcher: proposes.
        scores: file of the store; scores that it holds are not computed again.
        progress: as in `search`.
        note: as in `search`.

    Raises:
        RunError: ``scores`` belongs to another run.
    """
    spec = bench.spec
    with ScoreStore(scores, bench.fingerprint, note) as store:
        n_retried = store.forget(OUT_OF_MEMORY, and_order=searcher_entry(spec.searcher).listens)
        if n_retried and note is not None:
            note(f"Trying again what memory did not suffice for before: {n_retried:,} scores.")
        if spec.wants_latency:
            bench.latencies.keep_in(store)
        with Engine(bench.first_look, store, note) as engine:
            _converse(bench, searcher, store, engine, progress)
        candidates = [candidate for candidate in store.candidates() if candidate.is_genotype]
        screened_out = _look_again(bench, store, candidates, progress, note)
        ranking = make_ranking(
            candidates,
            store.scores({candidate.key for candidate in candidates}),
            spec.rule,
            spec.seed,
            objectives=spec.objectives,
            also=spec.further_rules,
            metrics=bench.metrics,
            screened_out=screened_out,
        )
        return replace(ranking, manifest={"seconds": round(store.seconds, 2)})


def carry_out(
    bench: Workbench,
    searcher: AbstractSearcher,
    out: Path,
    *,
    command: Sequence[str],
    progress: Progress | None,
    note: Note | None,
) -> Ranking:
    """Score architectures as they are asked for, then write what the run leaves behind.

    Args:
        bench: space, data and scorers.
        searcher: proposes.
        out: as in `search`.
        command: as in `search`.
        progress: as in `search`.
        note: as in `search`.
    """
    ranking = rank_proposals(bench, searcher, out / "scores.sqlite", progress=progress, note=note)
    given = {"given": True} if isinstance(searcher, GivenSearcher) else {}
    manifest = {**_earlier_training(out), **manifest_of(bench, ranking, command), **given}
    ranking.save(out / "ranking.csv")
    if isinstance(searcher, PruningSearcher):
        write_text(out / "pruning.csv", _pruning_table(searcher, bench.spec))
    write_json(out / "manifest.json", manifest)
    write_report(out, bench.space)
    return _buildable(ranking, bench.space, manifest)


def _converse(
    bench: Workbench, searcher: AbstractSearcher, store: ScoreStore, engine: Engine, progress: Progress | None
) -> None:
    """Let the searcher ask and the engine answer until there is nothing more to ask."""
    n_asked = n_done = 0
    while True:
        while engine.hungry and (architectures := searcher.ask(ASK)):
            batch = [_candidate(bench, each, at) for at, each in enumerate(architectures, n_asked)]
            n_asked += len(batch)
            _time(bench, architectures)
            store.add_candidates(batch)
            engine.submit(batch)
        if engine.idle:
            return
        for candidate in engine.collect():
            searcher.tell(bench.space.read(candidate.arch), _told(bench, store, candidate))
            n_done += 1
            if progress is not None:
                progress("scoring", n_done, searcher.total)


def _time(bench: Workbench, architectures: Sequence[Architecture]) -> None:
    """Measure the latencies of finished architectures, where they are wanted and not known yet."""
    if bench.spec.wants_latency:
        for architecture in architectures:
            if isinstance(architecture, Genotype):
                bench.latencies(architecture)


def _look_again(
    bench: Workbench,
    store: ScoreStore,
    candidates: Sequence[Candidate],
    progress: Progress | None,
    note: Note | None,
) -> dict[str, str]:
    """Take all looks but the first, and the full score, each of what the one before kept.

    Returns:
        The keys that did not get to the full score, best first, with the reason.
    """
    screened_out: dict[str, str] = {}
    stages = [*(seen for _, seen in bench.looks), bench]
    for (look, seen), after in zip(bench.looks, stages[1:], strict=True):
        here = [candidate for candidate in candidates if candidate.key not in screened_out]
        screened_out = {**_screen(seen, look, store, here), **screened_out}
        best = [candidate for candidate in here if candidate.key not in screened_out]
        with Engine(after, store, note) as engine:
            _score_all(engine, best, progress)
    return screened_out


def _screen(bench: Workbench, look: Look, store: ScoreStore, candidates: Sequence[Candidate]) -> dict[str, str]:
    """Rank candidates by a look; the keys that do not go on, best first, with the reason."""
    scores = bench.own(store.scores({candidate.key for candidate in candidates}))
    order = make_ranking(candidates, scores, bench.spec.rule, bench.spec.seed).frame
    keys = order.drop_duplicates("key")
    rest = keys.iloc[look.n_kept(len(keys)) :]
    places = zip(rest["key"], rest["rank"], strict=True)
    return {key: f"place {place} of {len(order)} by {look}" for key, place in places}


def _score_all(engine: Engine, candidates: Sequence[Candidate], progress: Progress | None) -> None:
    """Score candidates that were asked for before."""
    engine.submit(candidates)
    n_done = 0
    while not engine.idle:
        n_done += len(engine.collect())
        if progress is not None:
            progress(f"scoring the best {len(candidates)}", n_done, len(candidates))


def _told(bench: Workbench, store: ScoreStore, candidate: Candidate) -> Told | None:
    """Gather what a searcher is told of a candidate, ``[metric, repeat]``; None unless all of it is in order.

    A latency is measured once and holds for all repeats.
    """
    look = bench.first_look
    n_repeats = look.spec.repeats
    values = {name: np.full(n_repeats, np.nan) for name in (metric.name for metric in bench.spec.told)}
    values |= {name: np.full(n_repeats, float(getattr(candidate, name))) for name in values.keys() & {"params", "macs"}}
    for found in look.own(store.scores([candidate.key])):
        if found.status != "ok":
            return None
        for name, value in found.values.items():  # noqa: PD011, a Score is no data frame
            if name in values and name not in {"params", "macs"}:
                values[name][slice(None) if found.scorer == LATENCY_SCORER else found.repeat] = value
    table = np.stack(list(values.values()))
    return table if np.isfinite(table).all() else None


def _pruning_table(searcher: PruningSearcher, spec: SearchSpec) -> str:
    """Write as CSV every removal that was tried, with the relative change of each metric."""
    names = [f"{metric.name}_change" for metric in spec.told]
    rows = [
        {
            "round": trial.round,
            **trial.edge._asdict(),
            "op": trial.op,
            **dict(zip_longest(names, trial.changes)),
            "place": trial.place,
            "pruned": trial.pruned,
        }
        for trial in searcher.history
    ]
    columns = ["round", *EdgeSlot._fields, "op", *names, "place", "pruned"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")


def _earlier_training(out: Path) -> dict[str, Any]:
    """What the manifest of an earlier sitting says of trainings; they are still there."""
    path = out / "manifest.json"
    record = read_json(path) if path.exists() else {}
    return {"training": record["training"]} if "training" in record else {}


def _candidate(bench: Workbench, architecture: Architecture, position: int) -> Candidate:
    space = bench.space
    scored = space.representative(architecture) if isinstance(architecture, Genotype) else architecture
    cost = bench.cost(scored)
    return Candidate(
        position,
        space.format(architecture),
        space.key(architecture),
        space.format(scored),
        cost.params,
        cost.macs,
        is_genotype=isinstance(architecture, Genotype),
    )


def manifest_of(bench: Workbench, ranking: Ranking, command: Sequence[str]) -> dict[str, Any]:
    """Say how a ranking was made; ``seconds`` is what its rows took, unless the ranking knows what all scores took."""
    spec, rule = bench.spec, bench.spec.rule
    status = ranking.frame["status"].value_counts()
    return {
        "command": list(command),
        "spec": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(spec).items()},
        "rank_rule": {
            "name": rule.name,
            "combine": rule.combine,
            "metrics": [asdict(metric) for metric in rule.metrics],
            "ties_by": rule.tie_breaker.name if rule.tie_breaker else None,
        },
        "metrics": _descriptions(bench, ranking),
        "seed": spec.seed,
        "counts": {"candidates": len(ranking), "keys": int(ranking.frame["key"].nunique()), **status.to_dict()},
        "seconds": round(float(ranking.frame.drop_duplicates("key")["seconds"].sum()), 2),
        **bench.facts(),
        **ranking.manifest,
    }


def _descriptions(bench: Workbench, ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Say of each column of a ranking that is a metric, or the ranks by one more rule, what it is.

    What a network costs has a direction only where the run was asked to look for less or for more of it.
    """
    measured = {metric.name: metric for metric in (METRICS[LATENCY], *bench.metrics.values(), *bench.spec.told)}
    said = {
        **{metric.name: _description(metric, None) for metric in COST_METRICS},
        **{name: _description(metric, metric.higher_is_better) for name, metric in measured.items()},
    }
    for rule in bench.spec.further_rules:
        said[rank_column(rule)] = {"description": f"rank by {rule.parts}", "higher_is_better": False, "unit": ""}
    return {name: said[name] for name in ranking.frame.columns if name in said}


def _description(metric: Metric, higher_is_better: bool | None) -> dict[str, Any]:
    return {"description": metric.description, "higher_is_better": higher_is_better, "unit": metric.unit}


def _buildable(ranking: Ranking, space: Space, manifest: Mapping[str, Any]) -> Ranking:
    """Give a ranking the means to build the trainable network of a row."""
    spec = manifest["spec"]
    classes, channels = spec["n_way"], manifest["dataset"]["n_channels"]

    def builder(arch: str) -> Any:
        return build_network(arch, space, n_outputs=classes, in_channels=channels, image_size=spec["image_size"])

    return Ranking(ranking.frame, manifest, builder)
