"""Amounts of memory: read, measured and shared; chunks that fit; and the promise of --memory."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from metantk_nas.errors import UsageError
from metantk_nas.experiment.engine import chunk_limit, weight_bytes
from metantk_nas.experiment.memory import (
    LIBRARY_BYTES,
    Limit,
    chunk_activations,
    parse_memory,
    peak_bytes,
    resident_bytes,
)
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from tests.experiment.stubs import genotypes, stub_bench
from tests.small_search import SMALL

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MiB", 512 * 2**20), ("4GiB", 4 * 2**30), ("1.5G", 3 * 2**29), ("2048k", 2**21), ("1 GB", 2**30)],
)
def test_amounts_of_memory_are_read(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "4GiBs", "0GiB", "4", "inf"])
def test_what_is_no_amount_of_memory_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"for example.*4GiB"):
        SearchSpec(memory=text)


def test_resident_memory_grows_with_what_is_held():
    before = resident_bytes()
    held = bytearray(os.urandom(1) * 2**26)
    assert 0.9 * len(held) < resident_bytes() - before < 1.5 * len(held)
    assert peak_bytes() >= resident_bytes() - 2**20


@given(st.lists(st.floats(1, 100), min_size=1), st.floats(0, 300), st.integers(1, 10))
def test_a_chunk_is_the_longest_that_fits_and_never_empty(sizes, capacity, most):
    n_fitting = Limit(capacity, most).n_fitting(sizes)
    assert n_fitting >= 1
    assert n_fitting == 1 or (sum(sizes[:n_fitting]) <= capacity + 1e-9 and n_fitting <= most)
    assert n_fitting == len(sizes) or sum(sizes[: n_fitting + 1]) > capacity - 1e-9 or n_fitting == most


def test_a_limit_is_halved_once_for_chunks_of_the_same_size():
    limit = Limit(100, 9)
    assert limit.halve(80)
    assert limit.capacity == 40
    assert not limit.halve(80), "another chunk that was cut before the first failed"
    assert limit.halve(40)
    assert limit.capacity == 20


def test_memory_less_what_is_there_already_is_shared_by_the_workers():
    resident, asked, weights = resident_bytes() + LIBRARY_BYTES, 8 * 2**30, 2**30
    one, most = chunk_activations([CPU], asked, weights, n_rows=1, spawned=False)
    two, _ = chunk_activations([CPU, CPU], asked, weights, n_rows=1, spawned=True)
    assert most > 10**9
    assert one == pytest.approx((asked - resident - weights) / 5, rel=0.01)
    assert two == pytest.approx(((asked - resident + LIBRARY_BYTES) / 2 - resident - weights) / 5, rel=0.01)
    assert chunk_activations([CPU], None, weights, n_rows=30, spawned=False) == (pytest.approx(2 * 2**30 / 150), 1)


def test_the_networks_that_scorers_keep_are_reckoned_with():
    def held():
        gc.collect()  # what other tests left
        return sum(each.nbytes for each in gc.get_objects() if type(each) is nn.Parameter)

    settings = {**SMALL, "device": "cpu", "metrics": "zen_score,synflow,n_linear_regions,ridge_loss"}
    bench = Workbench.of(SearchSpec(**settings))
    architecture = bench.space.representative(genotypes(bench, 1)[0])
    before = held()
    for scorer in bench.scorers:
        for repeat in range(settings["repeats"]):
            scorer.score([architecture], repeat)
    assert held() - before == pytest.approx(weight_bytes(bench), rel=0.05)
    shared = Workbench.of(SearchSpec(**{**settings, "metrics": "", "rank_by": "metantk"}))
    assert weight_bytes(bench) == 4 * weight_bytes(shared), "4 bytes more for zen_score, 8 for synflow"
    cheap = Workbench.of(SearchSpec(**{**settings, "fidelity": "image_size=8,repeats=1,keep=0.5"})).first_look
    assert weight_bytes(cheap) == weight_bytes(bench) / 2, "one repeat of the same networks"


def test_chunk_wins_over_memory_and_too_little_memory_is_said():
    notes = []
    assert chunk_limit(stub_bench(chunk=3, memory="1MiB")[0], notes.append) == Limit(3, 3)
    assert not notes
    assert chunk_limit(stub_bench(memory="2MiB")[0], notes.append).n_fitting([1, 1]) == 1
    assert "--memory 2MiB is less than" in notes[0]


def test_one_device_or_workers_but_not_both():
    with pytest.raises(UsageError, match=r"--device cpu and --devices cpu,cpu.*expected"):
        SearchSpec(device="cpu", devices="cpu,cpu")
    with pytest.raises(UsageError, match="leaves a device out"):
        SearchSpec(devices="cpu,,cpu")


@pytest.mark.slow
def test_a_search_takes_the_memory_that_it_was_given():
    """The benchmark itself, on its fastest setting: at most a quarter more or less than was asked for."""
    words = [sys.executable, "benchmarks/memory.py", "--one", "nas_bench_201", "16", "3", "1GiB"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True)
    row = json.loads(done.stdout)
    assert row["first_chunk"] > 1
    assert 0.75 < row["measured_mib"] / row["asked_mib"] < 1.25
