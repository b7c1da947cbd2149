"""MLflow (extra ``mlflow``): a run for a search, runs nested in it for its best, ranking and report as artifacts.

Nothing is global: no active run is begun or ended, and no tracking URI is set.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from metantk_nas.errors import UsageError
from metantk_nas.extra import library
from metantk_nas.results import Ranking, read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

_mlflow: Any = library("mlflow", extra="mlflow")

ARTIFACTS = ("ranking.csv", "report.html", "manifest.json", "evaluation.csv", "pruning.csv")
"""Files of a run that are kept, those that there are."""

MAX_PARAM = 6000
"""Characters that MLflow keeps of a parameter; a longer one is cut, and whole in ``manifest.json``."""


def log_run(
    run: str | Path,
    *,
    top: int = 5,
    experiment: str = "metantk-nas",
    name: str | None = None,
    tracking_uri: str | None = None,
) -> str:
    """Log a finished search.

    Its run has the settings as parameters, counts, seconds and the metrics of the best as metrics, versions and device
    as tags, and the files of `ARTIFACTS`. Each of the ``top`` best has a run nested in it with its metrics and, where
    it was trained, its accuracies. A search that is logged again gets another run.

    Args:
        run: directory of the search.
        top: how many of the best get a run of their own, one of each canonical key.
        experiment: name of the experiment; made where there is none.
        name: name of the run; that of the directory where None.
        tracking_uri: where MLflow keeps its runs, such as ``"sqlite:///mlflow.db"`` or a server; as MLflow is set up
            where None.

    Returns:
        MLflow's id of the search's run.

    Raises:
        RunError: the directory holds no search.
        UsageError: ``top`` is negative, or MLflow refuses; tells what it says.
    """
    folder = Path(run)
    if top < 0:
        raise UsageError(f"top is {top}; expected how many of the best get a run of their own, at least 0.")
    manifest = read_json(folder / "manifest.json")
    ranking = Ranking.load(folder / "ranking.csv", manifest)
    try:
        client: MlflowClient = _mlflow.MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        home = found.experiment_id if found is not None else client.create_experiment(experiment)
        parent = _begin(client, home, name or folder.resolve().name, tags=_tags(manifest))
        _log(client, parent, params=_params(manifest), metrics={**_counts(manifest), **_best(ranking)})
        for path in (folder / file for file in ARTIFACTS):
            if path.exists():
                client.log_artifact(parent, str(path))
        for place, row in enumerate(ranking.top(top) if top else (), start=1):
            nested = _begin(client, home, f"best {place}", tags={"mlflow.parentRunId": parent})
            _log(client, nested, params=_facts(row), metrics={**_metrics(row), **_accuracies(folder, row["key"])})
            client.set_terminated(nested)
        client.set_terminated(parent)
    except _mlflow.exceptions.MlflowException as error:
        raise UsageError(f"MLflow could not log {folder}: {error}") from error
    return parent


def _begin(client: "MlflowClient", experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a run and return its id."""
    return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)


def _log(client: "MlflowClient", run: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Log parameters, and those metrics that are finite numbers."""
    now = int(1000 * time.time())
    entities = _mlflow.entities
    client.log_batch(
        run,
        metrics=[entities.Metric(name, value, now, 0) for name, value in metrics.items() if math.isfinite(value)],
        params=[entities.Param(name, str(value)[:MAX_PARAM]) for name, value in params.items()],
    )


def _params(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were set, and what was searched."""
    settings = {name: value for name, value in manifest["spec"].items() if value not in (None, "")}
    rule = manifest["rank_rule"]
    ties, names = rule.get("ties_by"), [metric["name"] for metric in rule["metrics"]]
    summed = " + ".join(name for name in names if name != ties)
    return {**settings, "ranked_by": f"{summed}, ties: {ties}" if ties else summed}


def _tags(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What it ran on."""
    versions = {f"version.{name}": str(version) for name, version in manifest["versions"].items()}
    device = manifest["device"]
    facts = {"device": device["gpu"] or device["name"], "threads": device["threads"], "commit": manifest["git_commit"]}
    return {**versions, **{name: str(value) for name, value in facts.items()}, "command": " ".join(manifest["command"])}


def _counts(manifest: Mapping[str, Any]) -> dict[str, float]:
    return {"seconds": manifest["seconds"], **{f"n_{name}": float(n) for name, n in manifest["counts"].items()}}


def _best(ranking: Ranking) -> dict[str, float]:
    """Metrics of the best; none where nobody could be scored."""
    best = ranking.top(1).frame
    return {f"best_{name}": value for name, value in _metrics(best.iloc[0]).items()} if len(best) else {}


def _facts(row: "pd.Series[Any]") -> dict[str, Any]:
    """Parameters of an architecture."""
    return {name: row[name] for name in ("rank", "arch", "key", "params", "macs", "seed")}


def _metrics(row: "pd.Series[Any]") -> dict[str, float]:
    """Numbers of a row but for its facts; ``params`` and ``macs`` are metrics too, so that they can be plotted."""
    numbers = row.drop(labels=["arch", "key", "status", "reason", "seed"])
    return {str(name): float(value) for name, value in numbers.items() if not pd.isna(value)}


def _accuracies(folder: Path, key: str) -> dict[str, float]:
    """What learners reached on an architecture, as ``<learner>_<n>way_<k>shot``, in [0, 1], and its ``_ci95``."""
    if not (folder / "evaluation.csv").exists():
        return {}
    table = pd.read_csv(folder / "evaluation.csv")
    reached: dict[str, float] = {}
    for row in table[table["key"] == key].to_dict("records"):
        name = f"{row['learner']}_{row['n_way']}way_{row['n_shot']}shot"
        reached |= {name: float(row["accuracy"]), f"{name}_ci95": float(row["ci95"])}
    return reached
