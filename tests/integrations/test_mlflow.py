"""A search in MLflow: read back from its own store, with the library itself."""

import math
from pathlib import Path

import pandas as pd
import pytest

import metantk_nas
from metantk_nas.errors import RunError, UsageError
from metantk_nas.results import read_json
from tests.small_search import SMALL

mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is in the extra 'mlflow'")
pytest.importorskip("sqlalchemy", reason="a local database needs SQLAlchemy, in the extra 'mlflow'")

from metantk_nas.integrations.mlflow import log_run  # noqa: E402 - it needs the library

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow 3.17 on SQLAlchemy 2.1
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose best was trained."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    ranking = metantk_nas.search(out=folder, **{**SMALL, "budget": 5, "repeats": 1}, device="cpu")
    best = ranking.top(1).frame.iloc[0]
    row = {"rank": 1, "arch": best["arch"], "key": best["key"], "learner": "protonet", "n_way": 5, "n_shot": 1}
    pd.DataFrame([{**row, "accuracy": 0.5, "ci95": 0.01}]).to_csv(folder / "evaluation.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of its own, with artifacts beside it."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.MlflowClient(tracking_uri=uri).create_experiment("mine", artifact_location=(folder / "kept").as_uri())
    return uri


def test_a_search_is_a_run_with_runs_of_its_best_nested_in_it(run, store):
    before = mlflow.get_tracking_uri()
    logged = log_run(run, top=2, experiment="mine", tracking_uri=store)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(tracking_uri=store)
    parent, manifest = client.get_run(logged), read_json(run / "manifest.json")
    assert (parent.info.run_name, parent.info.status) == ("small", "FINISHED")
    assert parent.data.params["space"] == "nas_bench_201"
    assert parent.data.params["ranked_by"] == "condition_number + synflow + params, ties: trace"
    assert parent.data.metrics["n_candidates"] == 5
    assert parent.data.tags["version.torch"] == manifest["versions"]["torch"]
    assert {"ranking.csv", "report.html", "manifest.json"} <= {file.path for file in client.list_artifacts(logged)}
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{logged}'", order_by=["tags.mlflow.runName"]
    )
    ranking = pd.read_csv(run / "ranking.csv")
    assert [each.data.params["arch"] for each in nested] == list(ranking["arch"][:2])
    best = nested[0].data
    for name in ("condition_number", "trace", "params", "macs"):
        assert best.metrics[name] == pytest.approx(ranking[name][0])
        assert parent.data.metrics[f"best_{name}"] == best.metrics[name]
    assert best.metrics["protonet_5way_1shot"] == 0.5
    assert all(math.isfinite(value) for value in best.metrics.values())
    assert "protonet_5way_1shot" not in nested[1].data.metrics


def test_a_folder_without_a_search_is_refused(tmp_path, store):
    with pytest.raises(RunError, match=r"manifest\.json"):
        log_run(tmp_path, tracking_uri=store)
    with pytest.raises(UsageError, match="top is -1"):
        log_run(tmp_path, top=-1, tracking_uri=store)


def test_what_mlflow_refuses_is_told(run, store):
    client = mlflow.MlflowClient(tracking_uri=store)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(UsageError, match=r"MLflow could not log .*small"):
        log_run(run, experiment="gone", tracking_uri=store)
