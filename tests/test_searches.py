"""Searches that listen: evolution and pruning through the public function, on spaces of a minute's size."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import metantk_nas
from metantk_nas.errors import RunError, UsageError
from metantk_nas.experiment.scoring import read_spec
from metantk_nas.experiment.spec import PRESETS, SearchSpec
from metantk_nas.results import read_json
from metantk_nas.spaces.load import load_space
from tests.small_search import SMALL
from tests.test_experiment import rows, same, table

TWO_CELLS = """
name = "two_cells"
[cell]
types = ["normal", "reduce"]
n_inputs = 2
n_nodes = 2
edges_per_node = 1
output = "concat"
ops = ["none", "skip_connect", "conv_3x3"]
[skeleton]
init_channels = 4
n_cells = 2
reduce_at = ["1/2"]
"""
TINY = {name: value for name, value in SMALL.items() if name not in ("budget", "init_channels", "n_cells")}
EVOLUTION = {
    **SMALL,
    "searcher": "evolution",
    "searcher_settings": {"population": 6, "tournament": 3, "generation": 4},
    "budget": 20,
}


class InterruptionError(Exception):
    pass


def interrupt_at(n: int):
    def progress(label: str, done: int, total: int) -> None:
        if label == "scoring" and done == n:
            raise InterruptionError

    return progress


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "two_cells.toml"
    path.write_text(TWO_CELLS)
    return path


@pytest.fixture(scope="module")
def pruning(space_file: Path) -> dict[str, object]:
    return {**TINY, "space": str(space_file), "searcher": "pruning", "rank_by": "metantk-nas"}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, pruning: dict[str, object]) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pruned"
    metantk_nas.search(out=run, **pruning)
    return run


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "evolved"
    metantk_nas.search(out=run, pareto="params,score", **EVOLUTION)
    return run


def test_pruning_ranks_the_one_genotype_that_is_left_and_keeps_its_history(pruned, space_file):
    frame = table(pruned)
    assert len(frame) == 1
    genotype = load_space(str(space_file)).parse(frame["arch"].iloc[0])
    with closing(sqlite3.connect(pruned / "scores.sqlite")) as store:
        ((seconds,),) = store.execute("SELECT SUM(seconds) FROM score")
    assert read_json(pruned / "manifest.json")["seconds"] == pytest.approx(seconds, abs=0.01)
    assert seconds > 5 * pd.read_csv(pruned / "ranking.csv")["seconds"].sum()
    trials = pd.read_csv(pruned / "pruning.csv")
    assert list(trials.groupby("round").size()) == [20, 10]
    left = trials[(trials["round"] == 2) & ~trials["pruned"]]
    found = {(cell_type, *choice) for cell_type, _ in genotype.cells for choice in genotype.choices(cell_type)}
    assert found == set(left[["cell_type", "node", "input", "op"]].itertuples(index=False, name=None))
    assert np.isfinite(trials[["condition_number_change", "n_linear_regions_change"]]).all(axis=None)
    for (_, cell_type, node), edges in trials[trials["round"] == 2].groupby(["round", "cell_type", "node"]):
        assert edges.loc[edges["pruned"], "place"].max() <= edges.loc[~edges["pruned"], "place"].min(), (
            cell_type,
            node,
        )


def test_pruning_follows_the_default_rule_with_its_counted_part(space_file, tmp_path):
    settings = {**TINY, "space": str(space_file), "searcher": "pruning", "repeats": 1}
    ranking = metantk_nas.search(out=tmp_path / "run", **settings)
    assert len(ranking.frame) == 1
    changes = pd.read_csv(tmp_path / "run" / "pruning.csv").set_index("op")["params_change"]
    assert (changes[["conv_3x3"]] < 0).all()
    assert (changes[["skip_connect"]] <= 0).all()


def test_changes_are_those_of_the_scores_in_the_store(pruned):
    first = pd.read_csv(pruned / "pruning.csv").iloc[0]
    query = "SELECT metric_values FROM candidate JOIN score USING (key) WHERE position < 2 ORDER BY position, repeat"
    with closing(sqlite3.connect(pruned / "scores.sqlite")) as database:
        found = [json.loads(text) for (text,) in database.execute(query)]
    by_repeat = [values["condition_number"] for values in found if "condition_number" in values]
    base, removal = by_repeat[: SMALL["repeats"]], by_repeat[SMALL["repeats"] :]
    expected = np.mean([after / before for before, after in zip(base, removal, strict=True)]) - 1
    np.testing.assert_allclose(first["condition_number_change"], expected)


@pytest.mark.parametrize("n_done", [3, 25])
def test_a_pruning_search_that_was_interrupted_ends_the_same(pruned, pruning, tmp_path, n_done):
    run = tmp_path / "run"
    with pytest.raises(InterruptionError):
        metantk_nas.search(out=run, progress=interrupt_at(n_done), **pruning)
    before = set(rows(run / "scores.sqlite"))
    metantk_nas.search(out=run, **pruning)
    same(table(pruned), table(run))
    assert before <= set(rows(run / "scores.sqlite")), "nothing is scored again"
    pd.testing.assert_frame_equal(
        pd.read_csv(pruned / "pruning.csv"), pd.read_csv(run / "pruning.csv"), rtol=2e-3, atol=1e-4
    )


@pytest.mark.parametrize("n_done", [4, 13])
def test_an_evolution_that_was_interrupted_ends_the_same(evolved, tmp_path, n_done):
    run = tmp_path / "run"
    with pytest.raises(InterruptionError):
        metantk_nas.search(out=run, pareto="params,score", progress=interrupt_at(n_done), **EVOLUTION)
    before = set(rows(run / "scores.sqlite"))
    metantk_nas.search(out=run, pareto="params,score", **EVOLUTION)
    same(table(evolved), table(run))
    assert before <= set(rows(run / "scores.sqlite"))


def test_evolution_goes_on_with_a_larger_budget(evolved, tmp_path):
    shutil.copytree(evolved, tmp_path / "grown")
    ranking = metantk_nas.search(out=tmp_path / "grown", pareto="params,score", **{**EVOLUTION, "budget": 24})
    assert set(table(evolved)["arch"]) < set(ranking.frame["arch"])
    assert ranking.frame["key"].nunique() == 24


def test_the_pareto_column_numbers_fronts_and_front_keeps_the_first(evolved):
    frame = table(evolved)
    ok = frame[frame["status"] == "ok"]
    for _, row in ok.iterrows():
        better = (ok["params"] <= row["params"]) & (ok["score"] <= row["score"])
        better &= (ok["params"] < row["params"]) | (ok["score"] < row["score"])
        assert (row["pareto"] == 1) == (not better.any())
        assert (ok.loc[better, "pareto"] < row["pareto"]).all()
    assert frame.loc[frame["status"] != "ok", "pareto"].isna().all()
    ranking = metantk_nas.search(out=evolved, pareto="params,score", **EVOLUTION)
    assert set(ranking.front().frame["arch"]) == set(ok.loc[ok["pareto"] == 1, "arch"])
    assert "pareto" in (evolved / "report.html").read_text()


def test_objectives_that_do_not_rank_are_measured_too(tmp_path):
    settings = {**SMALL, "budget": 4, "rank_by": "condition_number", "pareto": "macs,naswot"}
    ranking = metantk_nas.search(out=tmp_path / "run", **settings)
    assert ranking.frame["naswot"].notna().any()
    assert (ranking.front().frame["pareto"] == 1).all()


def test_a_ranking_without_objectives_has_no_front(pruned, pruning):
    with pytest.raises(UsageError, match="--pareto params,score"):
        metantk_nas.search(out=pruned, **pruning).front()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"searcher_settings": {"population": 7, "tournament": 3, "generation": 4}}, "searcher_settings"),
        ({"rank_by": "condition_number"}, "rank_by"),
        ({"repeats": 3}, "repeats"),
        ({"pareto": ""}, "pareto"),
    ],
)
def test_what_an_evolution_hears_is_part_of_the_run(evolved, change, message):
    with pytest.raises(RunError, match=message):
        metantk_nas.search(out=evolved, **{**EVOLUTION, "pareto": "params,score", **change})


def test_settings_written_out_and_settings_left_at_their_defaults_are_the_same_run(tmp_path):
    settings = {**SMALL, "searcher": "evolution", "budget": 2}
    metantk_nas.search(out=tmp_path / "run", **settings)
    metantk_nas.search(out=tmp_path / "run", **{**settings, "searcher_settings": {"population": 32}})


def test_a_run_remembers_its_settings(evolved, pruned):
    assert read_spec(evolved).searcher_settings == EVOLUTION["searcher_settings"]
    assert read_spec(evolved).pareto == "params,score"
    assert read_json(pruned / "manifest.json")["counts"]["candidates"] == 1


@pytest.mark.parametrize("name", ["budget", "max_params", "max_macs"])
def test_pruning_refuses_what_it_cannot_keep(name):
    with pytest.raises(UsageError, match=rf"cannot keep --{name.replace('_', '-')}; leave it out, or use --searcher"):
        SearchSpec(searcher="pruning", **{name: 1_000})


@pytest.mark.parametrize(
    ("pareto", "message"),
    [
        ("params", "names 1 objectives; expected at least two"),
        ("params,params", "expected at least two, each once"),
        ("params,scor", "Did you mean 'score'"),
    ],
)
def test_objectives_that_are_none_are_refused(pareto, message):
    with pytest.raises(UsageError, match=message):
        SearchSpec(pareto=pareto)


def test_pruning_has_no_fronts():
    with pytest.raises(UsageError, match="cannot keep --pareto"):
        SearchSpec(searcher="pruning", pareto="params,score")


def test_a_preset_is_the_paper_and_what_is_given_wins(monkeypatch):
    seen = []
    monkeypatch.setattr("metantk_nas.experiment.scoring.search", lambda spec, out, **_: seen.append((spec, out)))
    metantk_nas.search(preset="metantk-nas-2022")
    metantk_nas.search(preset="metantk-nas-2022-anil", n_cells=5, data="omniglot", out="here")
    (first, first_out), (second, second_out) = seen
    assert (first.searcher, first.n_cells, first.adaptation, first.inner_reg) == ("pruning", 5, "maml", 1e-3)
    assert first_out == Path("results/metantk-nas-2022-glyphs-seed0")
    assert (second.n_cells, second.adaptation, second.inner_time, second.inner_reg) == (5, "anil", 1.0, 1e-5)
    assert second_out == Path("here")
    with pytest.raises(UsageError, match="Did you mean 'metantk-nas-2022'"):
        metantk_nas.search(preset="metantk-nas-202")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_searches(name):
    spec = SearchSpec(**PRESETS[name])
    assert spec.load_space().skeleton.n_cells == spec.n_cells
    assert spec.candidate_budget is None
