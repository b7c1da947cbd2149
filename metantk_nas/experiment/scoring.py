"""Search and score: from a spec to a ranking on disk, one committed chunk at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from metantk_nas.episodes.request import Progress
from metantk_nas.errors import RunError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.networks.build import build_network
from metantk_nas.report.html import write_report
from metantk_nas.results import Ranking, make_ranking, read_json, write_json
from metantk_nas.scorers.base import AbstractScorer
from metantk_nas.searchers.base import SearchProblem
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Score

BYTES_PER_ACTIVATION = 8
"""Measured peak memory of the kernel scorer over the activations of its chunk, in float32, rounded up."""

ASK = 64
"""Architectures asked of a searcher at a time."""

CHUNK_BYTES = 2 * 2**30
"""Memory that a chunk of candidates may take where ``--chunk`` is not given."""

MAX_CHUNK = 16
"""Candidates of a chunk at most: beyond this a larger chunk gains nothing."""


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
    searcher = make_searcher(spec.searcher, SearchProblem(bench.space, spec.candidate_budget, spec.seed, bench.allowed))
    asked = iter(partial(searcher.ask, ASK), [])
    total = spec.candidate_budget or bench.space.size
    return _run(bench, asked, out, total=total, command=command, progress=progress)


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
    genotypes = [bench.space.parse(arch) for arch in archs]
    return _run(bench, iter([genotypes]), out, total=len(genotypes), command=command, progress=progress)


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
    bench: Workbench,
    asked: Iterator[list[Genotype]],
    out: Path,
    *,
    total: int,
    command: Sequence[str],
    progress: Progress | None,
) -> Ranking:
    """Score batches as they come, then write what the run leaves behind."""
    spec = bench.spec
    candidates: list[Candidate] = []
    with ScoreStore(out / "scores.sqlite", bench.fingerprint) as store:
        for genotypes in asked:
            batch = [_candidate(bench, genotype, at) for at, genotype in enumerate(genotypes, len(candidates))]
            store.add_candidates(batch)
            for chunk in _chunks(bench, batch):
                _score_chunk(bench, store, chunk)
                candidates += chunk
                if progress is not None:
                    progress("scoring", len(candidates), total)
        ranking = make_ranking(
            candidates, store.scores({candidate.key for candidate in candidates}), spec.rule, spec.seed
        )
    manifest = {**_earlier_training(out), **_manifest(bench, ranking, command)}
    ranking.save(out / "ranking.csv")
    write_json(out / "manifest.json", manifest)
    write_report(out, bench.space)
    return _buildable(ranking, bench.space, manifest)


def _earlier_training(out: Path) -> dict[str, Any]:
    """What the manifest of an earlier sitting says of trainings; they are still there."""
    path = out / "manifest.json"
    record = read_json(path) if path.exists() else {}
    return {"training": record["training"]} if "training" in record else {}


def _candidate(bench: Workbench, genotype: Genotype, position: int) -> Candidate:
    space, cost = bench.space, bench.cost(genotype)
    representative = space.format(space.representative(genotype))
    return Candidate(position, space.format(genotype), space.key(genotype), representative, cost.params, cost.macs)


def _chunks(bench: Workbench, batch: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Cut a batch into chunks that fit into memory."""
    size = bench.spec.chunk or _chunk_size(bench, batch)
    for start in range(0, len(batch), size):
        yield list(batch[start : start + size])


def _chunk_size(bench: Workbench, batch: Sequence[Candidate]) -> int:
    """Candidates whose activations fit into `CHUNK_BYTES`, by the largest of a batch."""
    spec = bench.spec
    n_rows = spec.n_episodes * spec.n_way * (spec.n_shot + spec.n_query)
    largest = max(bench.cost(bench.space.parse(candidate.representative)).activations for candidate in batch)
    return max(1, min(MAX_CHUNK, CHUNK_BYTES // (n_rows * largest * BYTES_PER_ACTIVATION)))


def _score_chunk(bench: Workbench, store: ScoreStore, chunk: Sequence[Candidate]) -> None:
    """Compute and commit what the store lacks of a chunk: one transaction per repeat and scorer."""
    representatives = {candidate.key: candidate.representative for candidate in chunk}
    for repeat in range(bench.spec.repeats):
        for scorer in bench.scorers:
            keys = store.missing(representatives, repeat, scorer.name)
            if keys:
                genotypes = [bench.space.parse(representatives[key]) for key in keys]
                store.put(_scores(scorer, keys, genotypes, repeat))


def _scores(scorer: AbstractScorer, keys: Sequence[str], genotypes: Sequence[Genotype], repeat: int) -> list[Score]:
    start = time.perf_counter()
    findings = scorer.score(genotypes, repeat)
    seconds = (time.perf_counter() - start) / len(keys)
    return [
        Score(key, repeat, scorer.name, finding.values, finding.status, finding.reason, seconds)
        for key, finding in zip(keys, findings, strict=True)
    ]


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
