"""Tables of few-shot accuracy: every row once, whatever interrupts it."""

import pandas as pd
import pytest
import torch

from metantk_nas.bench import build
from metantk_nas.bench.build import BenchSpec, TableBench, build_table, read_table
from metantk_nas.bench.protocols import PROTOCOLS
from metantk_nas.errors import RunError, UsageError
from metantk_nas.learners.precision import pick_precision
from metantk_nas.spaces.load import load_space

SMALL = {
    "data": "glyphs",
    "init_channels": 4,
    "n_cells": 3,
    "image_size": 16,
    "sample": 2,
    "train_budget": 3,
    "eval_episodes": 4,
    "eval_query": 5,
    "device": "cpu",
}


class StoppedError(Exception):
    """Somebody pulled the plug."""


def stop_after(n_rows):
    def progress(label, done, total):
        if done == n_rows:
            raise StoppedError

    return progress


def results(table):
    return table.drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_table(BenchSpec(**SMALL), tmp_path_factory.mktemp("bench") / "whole")


def test_a_row_for_conv4_and_each_architecture_of_the_sample(whole):
    assert list(whole["position"]) == [-1, 0, 1]
    assert whole["key"].is_unique
    assert whole["arch"].iloc[0] == "conv4"
    space = load_space("nas_bench_201")
    for row in whole.iloc[1:].itertuples():
        genotype = space.parse(row.arch)
        assert space.key(genotype) == row.key
        assert space.is_connected(genotype)
    for column in ("accuracy_1shot", "centroid_1shot", "accuracy_5shot", "centroid_5shot", "train_accuracy"):
        assert whole[column].between(0, 1).all()
    assert (whole["accuracy_5shot_ci"] > 0).all()
    assert whole["macs"].isna().tolist() == [True, False, False]
    assert set(whole["precision"]) == {pick_precision("auto", torch.device("cpu"))}


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_an_interrupted_table_goes_on_without_repeating_a_row(n_rows, whole, tmp_path, monkeypatch):
    out = tmp_path / "table"
    with pytest.raises(StoppedError):
        build_table(BenchSpec(**SMALL), out, progress=stop_after(n_rows))
    assert len(read_table(out)) == n_rows
    trained = []
    train = TableBench.train
    monkeypatch.setattr(TableBench, "train", lambda self, device, job: trained.append(job) or train(self, device, job))
    table = build_table(BenchSpec(**SMALL), out)
    assert len(trained) == 3 - n_rows
    pd.testing.assert_frame_equal(results(table), results(whole), rtol=1e-5)
    again = build_table(BenchSpec(**SMALL), out)
    assert len(trained) == 3 - n_rows
    pd.testing.assert_frame_equal(again, table, check_dtype=False, rtol=1e-5)
    assert not (out / "training").exists()


def test_a_training_that_is_cut_short_goes_on_from_its_checkpoint(whole, tmp_path, monkeypatch):
    out = tmp_path / "table"

    def cut(*arguments, **settings):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(build, "evaluate", cut)
        with pytest.raises(StoppedError):
            build_table(BenchSpec(**SMALL), out)
    assert [path.name for path in (out / "training").glob("*/checkpoint.pt")] == ["checkpoint.pt"]
    pd.testing.assert_frame_equal(results(build_table(BenchSpec(**SMALL), out)), results(whole), rtol=1e-5)


def test_a_larger_sample_and_another_training_seed_join_the_table(whole, tmp_path):
    out = tmp_path / "table"
    build_table(BenchSpec(**{**SMALL, "sample": 1}), out)
    grown = build_table(BenchSpec(**SMALL), out)
    pd.testing.assert_frame_equal(results(grown), results(whole), check_dtype=False, rtol=1e-5)
    more = build_table(BenchSpec(**SMALL, train_seed=1), out)
    assert list(more["seed"]) == [0, 0, 0, 1, 1, 1]
    assert list(more["key"]) == 2 * list(whole["key"])
    assert (more["train_loss"].iloc[3:].to_numpy() != more["train_loss"].iloc[:3].to_numpy()).all()


def test_two_workers_make_the_same_table(whole, tmp_path):
    both = build_table(BenchSpec(**{**SMALL, "device": "auto", "devices": "cpu,cpu"}), tmp_path / "table")
    pd.testing.assert_frame_equal(results(both), results(whole), rtol=1e-4)


@pytest.mark.parametrize("other", [{"train_budget": 2}, {"protocol": "protonet"}, {"image_size": 20}, {"seed": 1}])
def test_rows_of_another_making_are_refused(other, tmp_path):
    out = tmp_path / "table"
    build_table(BenchSpec(**{**SMALL, "sample": 1}), out)
    before = (out / "table.csv").read_text()
    with pytest.raises(RunError, match="holds another table"):
        build_table(BenchSpec(**{**SMALL, **other}), out)
    assert (out / "table.csv").read_text() == before


def test_a_directory_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"holds no table \(thesis.txt\)"):
        build_table(BenchSpec(**SMALL), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="it is a file"):
        build_table(BenchSpec(**SMALL), tmp_path / "file")


def test_protonet_is_judged_by_itself(tmp_path):
    table = build_table(BenchSpec(**{**SMALL, "sample": 1, "protocol": "protonet", "eval_query": 2}), tmp_path / "t")
    assert "centroid_1shot" not in table
    assert table["accuracy_5shot"].between(0, 1).all()


@pytest.mark.parametrize(("wrong", "message"), [({"protocol": "rsf"}, "rfs"), ({"sample": 0}, "--sample is 0")])
def test_a_table_that_means_nothing_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        BenchSpec(**{**SMALL, **wrong})


def test_every_protocol_says_what_it_does():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.description
        assert "accuracy" in protocol.judges
