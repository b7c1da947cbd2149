"""Search and score: from a spec to a ranking on disk, one committed chunk at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from metantk_nas.episodes.request import Progress
from metantk_nas.errors import RunError
from metantk_nas.experiment.engine import Engine
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.networks.build import build_network
from metantk_nas.report.html import write_report
from metantk_nas.results import Ranking, make_ranking, read_json, write_json
from metantk_nas.searchers.base import AbstractSearcher, SearchProblem, Told
from metantk_nas.searchers.given import GivenSearcher
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.store import Candidate, ScoreStore

ASK = 64
"""Architectures asked of a searcher at a time."""


def search(spec: SearchSpec, out: Path, *, command: Sequence[str] = (), progress: Progress | None = None) -> Ranking:
    """Score what a searcher proposes and rank it; what an interrupted run has scored is not scored again.

    Args:
        spec: the search.
        out: directory of the run; ``scores.sqlite``, ``ranking.csv``, ``manifest.json`` and
            ``report.html`` are written there.
        command: words of the command line, for the manifest.
        progress: told how far the work is.

    Raises:
        UsageError: the spec cannot be carried out.
        RunError: ``out`` holds another run.
    """
    refuse_foreign(out)
    bench = Workbench.of(spec, progress)
    searcher = make_searcher(
        spec.searcher, SearchProblem(bench.space, spec.candidate_budget, spec.seed, bench.allowed, bench.order)
    )
    return _run(bench, searcher, out, command=command, progress=progress)


def score(
    archs: Sequence[str], spec: SearchSpec, out: Path, *, command: Sequence[str] = (), progress: Progress | None = None
) -> Ranking:
    """Score given architectures: the same rows as a search would write for them.

    Args:
        archs: architecture texts.
        spec: how to score; its searcher and budget do not matter.
        out: as in `search`.
        command: as in `search`.
        progress: as in `search`.

    Raises:
        GenotypeError: a text is not an architecture of the space.
    """
    refuse_foreign(out)
    bench = Workbench.of(spec, progress)
    given = GivenSearcher([bench.space.parse(arch) for arch in archs])
    return _run(bench, given, out, command=command, progress=progress)


def load_ranking(run: Path, space: Space) -> Ranking:
    """Read the ranking of a run; its rows can be built."""
    ranking = Ranking.load(run / "ranking.csv", read_json(run / "manifest.json"))
    return _buildable(ranking, space, ranking.manifest)


def read_spec(run: Path) -> SearchSpec:
    """Read what a run searched for.

    Raises:
        RunError: the directory holds no search.
    """
    if not (run / "manifest.json").exists():
        raise RunError(f"{run} holds no search; expected the --out directory of metantk-nas search.")
    record = read_json(run / "manifest.json").get("spec", {})
    try:
        root = record.get("data_root")
        return SearchSpec(**{**record, "data_root": root and Path(root), "inner_time": float(record["inner_time"])})
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(f"{run / 'manifest.json'} is not the manifest of a search: {error}.") from error


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


def _run(
    bench: Workbench, searcher: AbstractSearcher, out: Path, *, command: Sequence[str], progress: Progress | None
) -> Ranking:
    """Score architectures as they are asked for, then write what the run leaves behind."""
    spec = bench.spec
    with ScoreStore(out / "scores.sqlite", bench.fingerprint) as store:
        _converse(bench, searcher, store, progress)
        candidates = [candidate for candidate in store.candidates() if candidate.is_genotype]
        ranking = make_ranking(
            candidates, store.scores({candidate.key for candidate in candidates}), spec.rule, spec.seed
        )
    manifest = {**_earlier_training(out), **_manifest(bench, ranking, command)}
    ranking.save(out / "ranking.csv")
    write_json(out / "manifest.json", manifest)
    write_report(out, bench.space)
    return _buildable(ranking, bench.space, manifest)


def _converse(bench: Workbench, searcher: AbstractSearcher, store: ScoreStore, progress: Progress | None) -> None:
    """Let the searcher ask and the engine answer until there is nothing more to ask."""
    engine = Engine(bench, store)
    n_asked = n_done = 0
    while True:
        while engine.hungry and (architectures := searcher.ask(ASK)):
            batch = [_candidate(bench, each, at) for at, each in enumerate(architectures, n_asked)]
            n_asked += len(batch)
            store.add_candidates(batch)
            engine.submit(batch)
        if engine.idle:
            return
        for candidate in engine.collect():
            searcher.tell(bench.space.read(candidate.arch), _told(bench, store, candidate))
            n_done += 1
            if progress is not None:
                progress("scoring", n_done, searcher.total)


def _told(bench: Workbench, store: ScoreStore, candidate: Candidate) -> Told | None:
    """Gather what was found of a candidate, ``[metric, repeat]``; None unless all of it is in order."""
    names = [metric.name for metric in bench.spec.rule.metrics]
    known = {"params": float(candidate.params), "macs": float(candidate.macs)}
    values = np.full((len(names), bench.spec.repeats), np.nan)
    for found in store.scores([candidate.key]):
        if found.status != "ok":
            return None
        if found.repeat < bench.spec.repeats:
            row = {**found.values, **known}
            for place, name in enumerate(names):
                if name in row:
                    values[place, found.repeat] = row[name]
    return values if np.isfinite(values).all() else None


def _earlier_training(out: Path) -> dict[str, Any]:
    """What the manifest of an earlier sitting says of trainings; they are still there."""
    path = out / "manifest.json"
    record = read_json(path) if path.exists() else {}
    return {"training": record["training"]} if "training" in record else {}


def _candidate(bench: Workbench, architecture: Architecture, position: int) -> Candidate:
    space, cost = bench.space, bench.cost(architecture)
    scored = space.representative(architecture) if isinstance(architecture, Genotype) else architecture
    return Candidate(
        position,
        space.format(architecture),
        space.key(architecture),
        space.format(scored),
        cost.params,
        cost.macs,
        is_genotype=isinstance(architecture, Genotype),
    )


def _manifest(bench: Workbench, ranking: Ranking, command: Sequence[str]) -> dict[str, Any]:
    """Say how a ranking was made; ``seconds`` is what scoring took, over all sittings."""
    spec, rule = bench.spec, bench.spec.rule
    status = ranking.frame["status"].value_counts()
    return {
        "command": list(command),
        "spec": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(spec).items()},
        "rank_rule": {
            "name": rule.name,
            "combine": rule.combine,
            "metrics": [asdict(metric) for metric in rule.metrics],
        },
        "seed": spec.seed,
        "counts": {"candidates": len(ranking), "keys": int(ranking.frame["key"].nunique()), **status.to_dict()},
        "seconds": round(float(ranking.frame.drop_duplicates("key")["seconds"].sum()), 2),
        **bench.facts(),
    }


def _buildable(ranking: Ranking, space: Space, manifest: Mapping[str, Any]) -> Ranking:
    """Give a ranking the means to build the trainable network of a row."""
    spec = manifest["spec"]
    classes, channels = spec["n_way"], manifest["dataset"]["n_channels"]

    def builder(arch: str) -> Any:
        return build_network(arch, space, n_outputs=classes, in_channels=channels, image_size=spec["image_size"])

    return Ranking(ranking.frame, manifest, builder)
