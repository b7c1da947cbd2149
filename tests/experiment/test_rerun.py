"""A run is made again from its manifest, and what differs is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from metantk_nas import api
from metantk_nas.cli.app import app
from metantk_nas.errors import RunError
from metantk_nas.experiment.rerun import Difference, deviations, environment_differences, rerun
from metantk_nas.results import Ranking
from tests.small_search import SMALL


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search by evolution, which listens to what it is told."""
    out = tmp_path_factory.mktemp("runs") / "first"
    settings = {"population": 4, "generation": 2, "tournament": 2}
    small = {**SMALL, "budget": 8, "max_params": 2_000_000}
    api.search(**small, searcher="evolution", searcher_settings=settings, out=out)
    return out


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(done, tmp_path / "run")


def change_manifest(run: Path, **changes: object) -> None:
    content = json.loads((run / "manifest.json").read_text())
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (run / "manifest.json").write_text(json.dumps(content))


def test_a_run_comes_out_the_same_from_its_manifest_alone(run: Path, tmp_path: Path) -> None:
    again = rerun(run, tmp_path / "again")
    assert again.deviations == []
    assert again.differences == []
    first, second = (Ranking.load(folder / "ranking.csv").frame for folder in (run, tmp_path / "again"))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"), rtol=1e-6)
    assert (tmp_path / "again" / "report.html").exists()


def test_given_architectures_are_scored_again_as_they_were_given(run: Path, tmp_path: Path) -> None:
    archs = list(Ranking.load(run / "ranking.csv").frame["arch"])[:3]
    api.score(archs, **{name: value for name, value in SMALL.items() if name != "budget"}, out=tmp_path / "given")
    again = rerun(tmp_path / "given", tmp_path / "again")
    assert again.deviations == []
    assert set(again.ranking.frame["arch"]) == set(archs)


def test_what_differs_in_the_environment_is_said(run: Path, tmp_path: Path) -> None:
    change_manifest(run, versions={"torch": "1.0"}, device={"threads": 999})
    again = rerun(run, tmp_path / "again")
    told = {each.name: each.recorded for each in again.differences}
    assert told == {"versions.torch": "1.0", "device.threads": "999"}
    assert again.deviations == []
    assert environment_differences({"versions": {"a": "1", "b": "2"}}, {"versions": {"a": "1", "c": "3"}}) == []
    found = environment_differences({"git_commit": "abc"}, {"git_commit": None})
    assert found == [Difference("git_commit", "abc", "null")]


@pytest.mark.parametrize(("what", "advice"), [("dataset", "--data or --data-root"), ("space", "TOML file")])
def test_other_data_or_another_space_is_refused(run: Path, tmp_path: Path, what: str, advice: str) -> None:
    change_manifest(run, **{what: {"fingerprint": "something else"}})
    with pytest.raises(RunError, match=rf"fingerprint was something else .*{advice}"):
        rerun(run, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_run_itself_and_foreign_directories_are_no_place_for_a_rerun(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is the run itself"):
        rerun(run, run)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        rerun(run, tmp_path / "notes")
    with pytest.raises(RunError, match="holds no search"):
        rerun(tmp_path / "nowhere", tmp_path / "again")


def test_another_machine_takes_the_place_of_workers_on_a_cluster(run: Path, tmp_path: Path) -> None:
    change_manifest(run, spec={"engine": "ray", "address": "far.example:6379", "ray_workers": 64})
    again = rerun(run, tmp_path / "again", device="cpu")
    assert again.ranking.manifest["spec"]["engine"] == "local"  # type: ignore[index]
    assert again.deviations == []


def test_rankings_are_compared_to_six_digits() -> None:
    old = pd.DataFrame({"arch": ["a", "b", "c"], "rank": [1, 2, 3], "trace": [1.0, np.nan, 3.0], "seconds": 1.0})
    assert deviations(old, old.assign(trace=old["trace"] * (1 + 4e-7), seconds=9.0)) == []
    assert deviations(old, old.iloc[::-1]) == []
    moved = old.assign(rank=[2, 1, 3], trace=[1.0, 2.0, 3.003])
    assert deviations(old, moved) == [
        "rank differs in 2 architectures, by up to 5.0e-01 of its size",
        "trace differs in 2 architectures, by up to 1.0e-03 of its size",
    ]
    other = old.assign(arch=["a", "b", "d"])
    assert deviations(old, other) == ["1 architecture is missing", "1 architecture is new"]
    assert deviations(old.assign(status="ok"), old.assign(status=["ok", "ok", "singular"])) == [
        "status differs in 1 architecture"
    ]


def test_the_command_says_what_came_of_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    change_manifest(run, versions={"numpy": "0.1"})
    told = CliRunner().invoke(app, ["rerun", str(run)])
    assert told.exit_code == 0, told.output
    assert "versions.numpy" in told.stdout
    assert "to six digits" in told.stdout
    assert str(run.with_name("run-rerun") / "ranking.csv") in told.stdout
    ranking = pd.read_csv(run / "ranking.csv", keep_default_na=False)
    ranking.assign(condition_number=7).to_csv(run / "ranking.csv", index=False)
    told = CliRunner().invoke(app, ["rerun", str(run), "--json"])
    assert told.exit_code == 1
    assert "condition_number differs in" in told.stderr
    found = json.loads(told.stdout)
    assert not found["same"]
    assert found["differences"][0]["recorded"] == "0.1"
