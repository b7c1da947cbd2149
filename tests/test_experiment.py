"""A whole search: what it leaves behind, how it resumes, and that nothing but the seed decides the ranking."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import metantk_nas
from metantk_nas.errors import DataError, GenotypeError, RunError, UsageError
from metantk_nas.experiment.scoring import load_ranking, manifest_of, read_spec, redraw
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.results import Ranking, read_json
from metantk_nas.scorers.registry import METRICS
from tests.small_search import SMALL, command

TIMES = ["seconds"]
INTERVAL = ("rank_low", "rank_high")


def table(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "ranking.csv", keep_default_na=False, na_values=[""]).drop(columns=TIMES)


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Equal rankings: the same rows in the same order, numbers to what float32 kernels allow."""
    pd.testing.assert_frame_equal(first, second, rtol=2e-3)
    assert list(first["arch"]) == list(second["arch"])
    assert list(first["rank"]) == list(second["rank"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search that ran undisturbed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    metantk_nas.search(out=run, **SMALL)
    return run


def test_a_search_leaves_ranking_manifest_report_and_store_behind(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"ranking.csv", "manifest.json", "report.html", "scores.sqlite", "plots"} <= names
    frame = table(finished)
    assert len(frame) == SMALL["budget"]
    assert frame["key"].is_unique
    ok = frame[frame["status"] == "ok"]
    assert (ok["condition_number"] >= 1).all()
    assert list(ok["rank"]) == sorted(ok["rank"])
    manifest = read_json(finished / "manifest.json")
    assert manifest["spec"]["space"] == "nas_bench_201"
    assert manifest["counts"]["candidates"] == SMALL["budget"]
    described = {f"{name}{end}" for name in manifest["metrics"] for end in ("", "_sd")}
    assert set(frame.columns) - described == {"rank", "arch", "key", "status", "reason", "score", *INTERVAL, "seed"}


def test_a_manifest_says_what_every_measured_column_is():
    words = {"metrics": ",".join(METRICS), "ranks": "metantk-nas", "pareto": "macs,score", "max_params": 10**9}
    bench = Workbench.of(SearchSpec(**{**SMALL, **words, "fidelity": "image_size=8,repeats=1,keep=0.5"}))
    columns = [*METRICS, "cheap_trace", "rank_metantk-nas", "score", "trace_sd"]
    row = {**dict.fromkeys(columns, 1.0), "status": "ok", "key": "k", "seconds": 2.0}
    said = manifest_of(bench, Ranking(pd.DataFrame([row])), [])["metrics"]
    assert said.keys() == {*METRICS, "cheap_trace", "rank_metantk-nas"}
    assert all(entry["description"] for entry in said.values())
    directions = {name: said[name]["higher_is_better"] for name in ("trace", "latency_ms", "params", "macs")}
    assert directions == {"trace": True, "latency_ms": False, "params": True, "macs": False}, "fewer macs are better"
    assert (said["latency_ms"]["unit"], said["trace"]["unit"]) == ("ms", "")


def test_the_default_ranking_sums_the_ranks_of_its_parts_and_breaks_ties_by_the_trace(finished):
    ok = table(finished).query("status == 'ok'")
    parts = sum(ok[name].rank(ascending=False) for name in ("synflow", "params"))
    trace = ok["trace"].rank(ascending=False)
    np.testing.assert_allclose(ok["score"], ok["condition_number"].rank() + parts + (trace - 1) / (2 * len(ok)))


def test_chunk_size_does_not_change_the_ranking(finished, tmp_path):
    for chunk in (1, 64):
        metantk_nas.search(out=tmp_path / str(chunk), **{**SMALL, "chunk": chunk})
        same(table(finished), table(tmp_path / str(chunk)))


def test_a_search_that_was_killed_goes_on_and_ends_the_same(finished, tmp_path):
    run = tmp_path / "killed"
    process = subprocess.Popen(command(run, chunk=1), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    scored = wait_for_scores(run / "scores.sqlite", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "ranking.csv").exists()
    with pytest.raises(RunError, match="has not ended; the command that began it goes on"):
        read_spec(run)
    before = rows(run / "scores.sqlite")
    subprocess.run(command(run, chunk=1), check=True, capture_output=True)
    same(table(finished), table(run))
    after = rows(run / "scores.sqlite")
    assert scored <= len(before) < len(after)
    assert set(before) <= set(after), "a row that was there is there still, with the very same time: not scored again"


def wait_for_scores(store: Path, process: subprocess.Popen) -> int:
    """Wait until at least three scores are committed; the log beside the store grows with every commit."""
    log = store.with_name(store.name + "-wal")
    for _ in range(600):
        assert process.poll() is None, "the search ended before it could be killed"
        if log.exists() and log.stat().st_size > 40_000:
            return 3
        time.sleep(0.05)
    pytest.fail("no score was committed within 30 seconds")


def rows(store: Path) -> list[tuple]:
    with closing(sqlite3.connect(store)) as database:
        return database.execute("SELECT key, repeat, scorer, metric_values, seconds FROM score").fetchall()


def test_a_larger_budget_goes_on_from_a_smaller_one(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "grown")
    ranking = metantk_nas.search(out=tmp_path / "grown", **{**SMALL, "budget": SMALL["budget"] + 4})
    assert len(ranking) == SMALL["budget"] + 4
    assert set(rows(finished / "scores.sqlite")) <= set(rows(tmp_path / "grown" / "scores.sqlite"))


def test_another_ranking_rule_scores_only_what_is_new(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "reranked")
    ranking = metantk_nas.search(out=tmp_path / "reranked", **{**SMALL, "rank_by": "metantk-nas"})
    ok = ranking.frame.query("status == 'ok'")
    by_condition = ok["condition_number"].rank(method="dense")
    expected = by_condition + ok["n_linear_regions"].rank(method="dense", ascending=False)
    np.testing.assert_allclose(ok["score"].astype(float), expected)
    assert set(rows(finished / "scores.sqlite")) <= set(rows(tmp_path / "reranked" / "scores.sqlite"))


def test_a_directory_of_another_run_is_refused_with_both_values(finished):
    with pytest.raises(RunError, match=r"seed.*0.*1|seed.*1.*0"):
        metantk_nas.search(out=finished, **{**SMALL, "seed": 1})


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "letters.txt").write_text("dear reader")
    with pytest.raises(RunError, match=r"not empty and holds no run.*letters\.txt"):
        metantk_nas.search(out=tmp_path, **SMALL)


def test_scoring_an_architecture_gives_the_row_of_the_search(finished):
    found = table(finished).query("status == 'ok'").iloc[:3]
    settings = {name: value for name, value in SMALL.items() if name != "budget"}
    scored = metantk_nas.score(list(found["arch"]), **settings).frame.set_index("arch").loc[found["arch"]]
    for name in ("condition_number", "trace", "adaptation_loss", "params"):
        np.testing.assert_allclose(scored[name].to_numpy(float), found[name].to_numpy(float), rtol=2e-3)


def test_members_of_one_key_share_their_scores():
    members = [
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
    ]
    settings = {name: value for name, value in SMALL.items() if name != "budget"}
    frame = metantk_nas.score(members, **settings).frame
    assert len(set(frame["key"])) == 1
    assert len(set(frame["condition_number"])) == 1


def test_an_architecture_without_a_path_ranks_last_with_a_reason():
    dead = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    alive = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    settings = {name: value for name, value in SMALL.items() if name != "budget"}
    frame = metantk_nas.score([dead, alive], **settings).frame
    assert list(frame["arch"]) == [alive, dead]
    assert frame["status"].iloc[1] == "no_signal"
    assert "no path from input to output" in frame["reason"].iloc[1]


def test_limits_act_before_scoring(tmp_path):
    free = metantk_nas.search(out=tmp_path / "free", **SMALL).frame
    limit = int(free["params"].median())
    bound = metantk_nas.search(out=tmp_path / "bound", **{**SMALL, "max_params": limit}).frame
    assert len(bound) == SMALL["budget"]
    assert (bound["params"] <= limit).all()
    with pytest.raises(UsageError, match="loosen the limit"):
        metantk_nas.search(out=tmp_path / "none", **{**SMALL, "max_params": 10})


def test_training_the_best_reports_accuracy_and_can_be_repeated_for_free(finished, tmp_path):
    run = tmp_path / "trained"
    shutil.copytree(finished, run)
    settings = {"learner": "protonet", "train_budget": 60, "eval_episodes": 20, "eval_query": 5}
    first = metantk_nas.train(run, top=2, **settings)
    assert len(first) == 2
    assert (first["accuracy"] > 0.3).all()
    assert (first["ci95"] > 0).all()
    written = pd.read_csv(run / "evaluation.csv")
    np.testing.assert_allclose(written["accuracy"], first["accuracy"])
    assert len(list((run / "curves").glob("rank*.csv"))) == 2
    assert len(list((run / "models").glob("rank*.pt"))) == 2
    start = time.perf_counter()
    again = metantk_nas.train(run, top=2, **settings)
    assert time.perf_counter() - start < 20
    np.testing.assert_allclose(again["accuracy"], first["accuracy"])
    assert "protonet" in redraw(run).read_text()


def test_the_best_can_be_built_and_run(finished):
    ranking = load_ranking(finished, read_spec(finished).load_space())
    network = ranking.build(ranking.top(1).frame.iloc[0])
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 5)


def test_wrong_names_are_found_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'darts'"):
        metantk_nas.search(out=tmp_path / "a", **{**SMALL, "space": "dart"})
    with pytest.raises(UsageError, match="condition_number"):
        metantk_nas.search(out=tmp_path / "b", **{**SMALL, "rank_by": "condition_nunber"})
    with pytest.raises(UsageError, match="Did you mean 'random'"):
        metantk_nas.search(out=tmp_path / "c", **{**SMALL, "searcher": "randm"})
    with pytest.raises(UsageError, match="budget"):
        metantk_nas.search(out=tmp_path / "d", **{**SMALL, "bugdet": 3})
    with pytest.raises(DataError, match=r"60 classes.*61-way|61.*60"):
        metantk_nas.search(out=tmp_path / "e", **{**SMALL, "n_way": 61})
    with pytest.raises(GenotypeError, match="nor_conv_3x3"):
        metantk_nas.score(["|nor_conv_3x~0|+|none~0|none~1|+|none~0|none~1|none~2|"], space="nas_bench_201")
    with pytest.raises(UsageError, match="does not see"):
        metantk_nas.search(out=tmp_path / "f", **{**SMALL, "device": "cuda:7"})
    assert sys.version_info >= (3, 11)
