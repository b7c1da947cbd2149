"""The package's functions, with the command line's names and defaults.

Each takes the fields of `metantk_nas.experiment.spec.SearchSpec` (and `TrainSpec`) as keywords.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from torch import nn

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.request import Progress
from metantk_nas.experiment import scoring, training
from metantk_nas.experiment.modules import Modules, load_factory, rank_modules
from metantk_nas.experiment.spec import SearchSpec, TrainSpec, preset_fields
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.experiment.workers import Note
from metantk_nas.networks.own import Factory
from metantk_nas.results import Ranking, write_json
from metantk_nas.settings import check_settings


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
    archs: Sequence[str] = (),
    *,
    modules: Modules | None = None,
    out: str | Path | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note | None = None,
    **settings: Any,
) -> Ranking:
    """Score given architectures: the same rows as a search would write for them.

    Args:
        archs: architecture texts of the space.
        modules: modules of one's own to rank beside them, by name: factories or modules. What is done to them first
            stands in `metantk_nas.networks.own.OwnModule`; their scores are not kept.
        out: directory that keeps the scores; nothing is kept where None.
        command: as in `search`.
        progress: as in `search`.
        note: as in `search`.
        settings: fields of `SearchSpec`.

    Raises:
        GenotypeError: a text is not an architecture of the space.
        UsageError: a module cannot be scored; names the layer, or the metric.
    """
    spec = _spec(SearchSpec, settings)
    with TemporaryDirectory() as folder:
        run = Path(out) if out is not None else Path(folder) / "scores"
        if not modules:
            return scoring.score(archs, spec, run, command=command, progress=progress, note=note)
        bench = Workbench.of(spec, progress)
        ranking = rank_modules(bench, modules, archs, run, progress=progress, note=note)
        ranking = Ranking(ranking.frame, scoring.manifest_of(bench, ranking, command))
        if out is not None:
            ranking.save(run / "ranking.csv")
            write_json(run / "manifest.json", ranking.manifest)
        return ranking


def score_module(
    module: nn.Module | Factory | str, dataset: FewShotDataset | None = None, **settings: Any
) -> dict[str, Any]:
    """Score any network: the row that an architecture gets from the same settings, but for its rank.

    The module is made comparable first: batch normalisation becomes group normalisation, weights are drawn anew, and
    it gets a linear head of ``n_way`` outputs if it has none (`metantk_nas.networks.own.OwnModule` says it all).

    Args:
        module: a module, what builds one, or ``"package.module:factory"``.
        dataset: images to draw episodes from; those of the setting ``data`` where None.
        settings: fields of `SearchSpec`, such as ``data="omniglot"``, ``n_way=5`` or ``metrics="naswot,zen_score"``.

    Returns:
        ``arch`` and ``key`` (the module's name), ``status``, ``reason``, the mean over repeats and ``_sd`` of every
        metric, ``params``, ``macs`` and ``seconds``.

    Raises:
        UsageError: the module cannot be scored; names the layer, or the metric.
    """
    spec = _spec(SearchSpec, settings)
    bench = Workbench.of(spec)
    if dataset is not None:
        bench = replace(bench, dataset=dataset)
    name = module if isinstance(module, str) else getattr(module, "__name__", type(module).__name__)
    factory = load_factory(module) if isinstance(module, str) else module
    with TemporaryDirectory() as folder:
        frame = rank_modules(bench, {name: factory}, (), Path(folder)).frame
    row = frame.iloc[0].drop(["rank", "score", "rank_low", "rank_high", "seed"])
    return {str(column): value for column, value in row.items()}


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
    check_settings("setting", settings, kind)
    return kind(**settings)
