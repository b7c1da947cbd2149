"""Make a run again from its manifest, and say whether it came out the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metantk_nas.episodes.request import Progress
from metantk_nas.errors import RunError
from metantk_nas.experiment.scoring import carry_out, read_spec, refuse_foreign, searcher_of
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.experiment.workers import Note
from metantk_nas.report.words import MISSING, flatten
from metantk_nas.results import Ranking, read_json
from metantk_nas.searchers.given import GivenSearcher

SAME = 1e-6
"""Relative difference up to which two numbers are the same: six digits."""
MEASURED_TIMES = ("seconds", "latency_ms")
"""Columns that are never the same twice."""
_MACHINE = ("device", "devices", "engine", "address", "ray_workers", "gpus_per_worker")
_FRESH = {field.name: field.default for field in fields(SearchSpec) if field.name in _MACHINE}
ENVIRONMENT = ("dataset", "space", "device", "versions", "git_commit")


@dataclass(frozen=True)
class Difference:
    """An entry of the manifest that is not what it was."""

    name: str
    recorded: str
    here: str


@dataclass(frozen=True, eq=False)
class Rerun:
    """What came of making a run again.

    Args:
        ranking: the new ranking.
        differences: what differs in data, space, device, threads, versions and commit; it may explain the next.
        deviations: where the new ranking departs from the recorded one, in words; empty if they are the same.
    """

    ranking: Ranking
    differences: Sequence[Difference]
    deviations: Sequence[str]


def rerun(
    run: Path,
    out: Path,
    *,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
    **here: Any,
) -> Rerun:
    """Score and rank again what a run did, by what its manifest says, and compare.

    Few-shot trainings of the run are not repeated.

    Args:
        run: directory of a search, or of given architectures that were scored.
        out: directory of the new run; one that a rerun was interrupted in is continued.
        command: words of the command line, for the manifest.
        progress: told how far the work is.
        note: told when memory ran out and when a worker died.
        here: fields of `SearchSpec` that may differ from machine to machine and change no result: ``data`` and
            ``data_root`` (where the same images are now), ``device`` or ``devices`` (which take the place of workers
            on a cluster too), ``memory``, ``chunk``.

    Raises:
        RunError: ``run`` holds no search, ``out`` is ``run`` or holds something else, or the data or the search space
            are no longer those of the run.
    """
    if out.resolve() == run.resolve():
        raise RunError(f"--out {out} is the run itself; choose another directory.")
    refuse_foreign(out)
    spec = _spec_here(read_spec(run), here)
    manifest, recorded = read_json(run / "manifest.json"), Ranking.load(run / "ranking.csv")
    bench = Workbench.of(spec, progress)
    facts = bench.facts()
    _refuse_changed(run, manifest, facts)
    searcher = searcher_of(bench)
    if manifest.get("given"):
        searcher = GivenSearcher([bench.space.parse(arch) for arch in recorded.frame["arch"]])
    ranking = carry_out(bench, searcher, out, command=command, progress=progress, note=note)
    return Rerun(ranking, environment_differences(manifest, facts), deviations(recorded.frame, ranking.frame))


def environment_differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """List what differs between two manifests in data, space, machine and versions; what one lacks is not compared."""
    old, new = (dict(flatten({name: each[name] for name in ENVIRONMENT if name in each})) for each in (recorded, here))
    both = [name for name in old if name in new and old[name] != new[name]]
    return [Difference(name, old[name], new[name]) for name in both]


def deviations(recorded: pd.DataFrame, anew: pd.DataFrame) -> list[str]:
    """Say in words where two rankings differ; numbers are compared to six digits, times not at all.

    Args:
        recorded: rows of a ``ranking.csv``.
        anew: rows of another.
    """
    old, new = (frame.set_index("arch") for frame in (recorded, anew))
    shared = old.index.intersection(new.index)
    counts = ((len(old) - len(shared), "missing"), (len(new) - len(shared), "new"))
    found = [f"{_architectures(n)} {'is' if n == 1 else 'are'} {word}" for n, word in counts if n]
    for name in [name for name in old.columns if name in new.columns and not name.startswith(MEASURED_TIMES)]:
        found += _column_deviation(name, old.loc[shared, name], new.loc[shared, name])
    return found


def _spec_here(spec: SearchSpec, here: Mapping[str, Any]) -> SearchSpec:
    """Put this machine's places and devices into a recorded spec."""
    given = {name: value for name, value in here.items() if value is not None}
    if {"device", "devices"} & given.keys():
        given = {**_FRESH, **given}
    return replace(spec, **given)


def _refuse_changed(run: Path, manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Refuse data or a space of which the run could not come out the same."""
    advice = {"dataset": "Say where the same images are with --data or --data-root", "space": "Restore its TOML file"}
    for what, step in advice.items():
        old, new = manifest.get(what, {}).get("fingerprint"), facts[what]["fingerprint"]
        if old is not None and old != new:
            raise RunError(
                f"the {what} {facts[what]['name']!r} is not the one of {run}: its fingerprint was {old} and is {new} "
                f"now. {step}, or run a new search."
            )


def _column_deviation(name: str, old: "pd.Series[Any]", new: "pd.Series[Any]") -> list[str]:
    """Say how a column differs, if it does."""
    if not (pd.api.types.is_numeric_dtype(old) and pd.api.types.is_numeric_dtype(new)):
        n = int((old.astype(str) != new.astype(str)).sum())
        return [f"{name} differs in {_architectures(n)}"] if n else []
    x, y = (np.array([math.nan if pd.isna(each) else float(each) for each in column]) for column in (old, new))
    same = np.isclose(x, y, rtol=SAME, atol=0, equal_nan=True)
    if same.all():
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(x - y)[~same] / np.maximum(np.abs(x), np.abs(y))[~same]
    largest = f"{np.nanmax(gap):.1e}" if np.isfinite(gap).any() else MISSING
    return [f"{name} differs in {_architectures(int((~same).sum()))}, by up to {largest} of its size"]


def _architectures(n: int) -> str:
    return "1 architecture" if n == 1 else f"{n:,} architectures"
