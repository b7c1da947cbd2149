"""The package's functions, with the command line's names and defaults.

Each takes the fields of `metantk_nas.experiment.spec.SearchSpec` (and `TrainSpec`) as keywords.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from metantk_nas.episodes.request import Progress
from metantk_nas.errors import unknown_name
from metantk_nas.experiment import scoring, training
from metantk_nas.experiment.spec import SearchSpec, TrainSpec, preset_fields
from metantk_nas.experiment.workers import Note
from metantk_nas.results import Ranking


def search(
    *,
    preset: str = "",
    out: str | Path | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
    **settings: Any,
) -> Ranking:
    """Score what a searcher proposes and rank it.

    Args:
        preset: a search of a paper, such as ``"metantk-nas-2022"``; settings that are given win over it.
        out: directory of the run; ``results/<space>-<data>-seed<k>`` where None, with the preset in the place of the
            space if there is one. The same call continues an interrupted run.
        command: words of the command line, for the manifest.
        progress: called as ``progress(label, done, total)`` while work goes on.
        note: called with a sentence when memory ran out or a worker died.
        settings: fields of `SearchSpec`, such as ``space="darts"``, ``data="omniglot"``, ``budget=200``.

    Returns:
        The ranking, best first: ``.frame`` (pandas), ``.top(k)``, and ``.build(row)`` for the trainable
        network of a row.

    Raises:
        UsageError: a preset or setting is unknown, or the search cannot be carried out.
    """
    spec = _spec(SearchSpec, {**preset_fields(preset), **settings})
    run = Path(out) if out is not None else spec.default_out(preset=preset)
    return scoring.search(spec, run, command=command, progress=progress, note=note)


def score(
    archs: Sequence[str],
    *,
    out: str | Path | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
    **settings: Any,
) -> Ranking:
    """Score given architectures: the same rows as a search would write for them.

    Args:
        archs: architecture texts of the space.
        out: directory that keeps the scores; nothing is kept where None.
        command: as in `search`.
        progress: as in `search`.
        note: as in `search`.
        settings: fields of `SearchSpec`.

    Raises:
        GenotypeError: a text is not an architecture of the space.
    """
    spec = _spec(SearchSpec, settings)
    if out is not None:
        return scoring.score(archs, spec, Path(out), command=command, progress=progress, note=note)
    with TemporaryDirectory() as folder:
        return scoring.score(archs, spec, Path(folder) / "scores", command=command, progress=progress, note=note)


def train(run: str | Path, *, top: int = 1, **settings: Any) -> pd.DataFrame:
    """Train the best architectures of a search and judge them on novel classes.

    Args:
        run: directory of the search.
        top: how many of the best.
        settings: fields of `TrainSpec`, such as ``learner="anil"``.

    Returns:
        One row per training: ``accuracy`` and the half-width ``ci95`` of its 95 % confidence interval, as
        fractions.
    """
    return training.train_run(Path(run), top, _spec(TrainSpec, settings))


def _spec(kind: Any, settings: dict[str, Any]) -> Any:
    for name in settings:
        if name not in kind.__dataclass_fields__:
            raise unknown_name("setting", name, kind.__dataclass_fields__)
    return kind(**settings)
