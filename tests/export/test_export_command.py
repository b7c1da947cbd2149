"""The command: from a text, a trained learner or a JSON export to files, with errors that teach."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from metantk_nas.cli.app import app
from metantk_nas.export.subject import identifier
from tests.export.networks import saved_learner
from tests.networks.chunks import NOTHING

SMALL = ["--space", "nas_bench_201", "--init-channels", "4", "--n-cells", "3", "--image-size", "16"]
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


def run(*words: object):
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_an_architecture_goes_where_it_is_told_and_comes_back_through_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(CELL, *SMALL, "--format", "json", "--n-way", 7, "--json")
    (path,) = json.loads(done.stdout)["files"]
    assert path.startswith("exports/nas_bench_201_")
    first = run(CELL, *SMALL, "--format", "py", "--n-way", 7, "--out", "one.py")
    second = run(path, "--format", "py", "--out", "folder/two.py")
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert Path("one.py").read_text() == Path("folder/two.py").read_text()
    assert "n_outputs: int = 7" in Path("one.py").read_text()


def test_texts_are_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(CELL, *SMALL, "--format", "text")
    assert done.stdout.splitlines()[1] == f"nas_bench_201: {CELL}"
    assert not list(tmp_path.iterdir())
    run(CELL, *SMALL, "--format", "text", "--out", "cells.txt")
    assert Path("cells.txt").read_text() == done.stdout


def test_a_trained_learner_is_exported_and_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved_learner(tmp_path, "rfs")
    (model,) = tmp_path.glob("*.pt")
    before = model.read_bytes()
    done = run(model, "--format", "py")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("exports").iterdir()) == [
        "rank1_rfs_3way_1shot.py",
        "rank1_rfs_3way_1shot_weights.pt",
    ]
    done = run(model, "--format", "pt", "--out", model)
    assert done.exit_code == 2
    assert "is the file that is exported" in done.output
    done = run(model, "--format", "pt", "--json")
    said = json.loads(done.stdout)
    assert [Path(name).name for name in said["files"]] == ["rank1_rfs_3way_1shot.pt2"]
    assert "learner 'rfs' is no fixed computation" in said["notes"][0]
    assert model.read_bytes() == before
    assert torch.load("exports/rank1_rfs_3way_1shot_weights.pt", weights_only=True)["head.bias"].shape == (3,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.pt", "--format", "py"], "neither an architecture nor a file"),
        (["conv4", "--format", "svg"], "not made of cells"),
        (["conv4", "--format", "pickle"], "'onnx'"),
        (["conv4"], "Missing option '--format'"),
        ([NOTHING, "--format", "py"], "has no place in a DARTS genotype"),
        (["conv4", "--format", "py", "--image-size", "8"], "at least 16 pixels"),
        (["model.pt", "--format", "py", "--n-cells", "3"], "leave out --n-cells"),
        (["model.pt", "--format", "py"], "model.pt is not a trained learner"),
        (["network.json", "--format", "py"], "network.json is not a network"),
        (["conv4", "--format", "py", "--out", "model.pt/network.py"], "cannot write"),
    ],
)
def test_bad_input_teaches(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("model.pt", "network.json"):
        (tmp_path / name).write_text("text")
    done = run(*words)
    assert done.exit_code in (1, 2)
    assert message in done.output.replace("\n", " ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "network.json"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("rank1-anil-5way", "rank1_anil_5way"), ("1st", "network_1st"), ("class", "network_class"), ("Ö!", "network")],
)
def test_files_are_called_so_that_python_can_import_them(text, expected):
    assert identifier(text) == expected
    assert expected.isidentifier()
