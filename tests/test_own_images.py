"""The tour of somebody with images of their own: check, search, train, predict, as README tells it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from metantk_nas.cli.app import app
from tests.newcomer import BROKEN, N_NEW, TINY, Belongings, write_belongings

N_IMAGES = 150
SMALL = [
    *("--space", "nas_bench_201", "--init-channels", "8", "--n-cells", "3", "--budget", "3", "--repeats", "1"),
    *("--image-size", "24", "--train-top", "1", "--train-budget", "150", "--eval-episodes", "10"),
    *("--train-query", "2", "--eval-query", "4"),
]


def say(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})
    assert done.exit_code == code, f"{words}\n{done.output}"
    return done


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Belongings:
    return write_belongings(tmp_path_factory.mktemp("mine"), N_IMAGES)


@pytest.fixture(autouse=True)
def _at_home(mine: Belongings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.photos.parent)


def test_a_folder_and_its_zip_are_seen_alike():
    folder, archive = (json.loads(say("datasets", "check", name, "--json").stdout) for name in ("photos", "photos.zip"))
    assert sum(split["n_images"] for split in folder["splits"]) == pytest.approx(N_IMAGES, abs=15)
    names = {Path(each["path"]).name for each in folder["skipped"]}
    assert names == {*(Path(name).name for name in BROKEN), "torn.jpg"}
    doubled = folder["duplicates"]
    assert (doubled["within_class"], doubled["between_classes"] + doubled["between_splits"]) == (1, 1)
    small = {name for split in folder["splits"] for use in split["uses"] for name in use["left_out"]}
    assert {*TINY} <= small
    for each in folder["skipped"]:
        each["path"] = f"photos/{each['path']}"
    for same in ("splits", "files", "skipped", "passed_over", "usable"):
        assert folder[same] == archive[same], same


@pytest.mark.slow
def test_the_whole_path_ends_in_labels_far_above_chance(mine):
    told = say("datasets", "check", "photos", "--train-query", 2, "--eval-query", 4).stdout
    assert "can be drawn to rank, train, choose weights, judge." in told
    done = say("search", "--data", "photos", *SMALL, "--out", "results/mine")
    assert "base class lacks the 2 images needed to rank, so never drawn for it: 'one only'." in done.stderr
    assert Path("results/mine/report.html").exists()
    told = json.loads(Path("results/mine/manifest.json").read_text())["training"]["left_out"]
    assert any("lacks the 3 images needed to train, so never drawn for it: 'one only'" in sentence for sentence in told)
    (model,) = Path("results/mine/models").glob("*.pt")
    say("predict", model, "--support", "labelled", "--query", "unlabelled", "--out", "labels.csv")
    labels = pd.read_csv("labels.csv", index_col="file")
    assert labels.loc["torn.jpg", "reason"].startswith("OSError: ")
    right = labels["label"].reindex(mine.truth) == pd.Series(mine.truth)
    assert len(right) == len(labels) - 1
    assert right.mean() > 3 / N_NEW, f"{right.mean():.2f} of the images, by chance {1 / N_NEW:.2f}"


def test_a_training_that_the_images_do_not_allow_is_refused_before_the_search():
    done = say("search", "--data", "photos", *SMALL, "--eval-query", 999, "--out", "results/none", code=2)
    assert "query images need 1000, and 5-way episodes 5 such classes" in done.stderr
    assert not Path("results/none").exists()
