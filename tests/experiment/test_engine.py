"""The engine's promises: order, one score a key, chunks that fit, and nothing lost when memory runs out."""

import gc
import math
import random
import sys
from itertools import pairwise

import pytest
import torch

import metantk_nas
from metantk_nas.experiment.engine import Engine
from metantk_nas.experiment.scoring import _converse
from metantk_nas.experiment.tasks import is_out_of_memory
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.store import ScoreStore
from tests.experiment.stubs import candidates, genotypes, stub_bench
from tests.small_search import SMALL


def work(bench, asked, store, notes=None):
    """Submit all and collect all; the candidates as they came back, chunk by chunk."""
    with Engine(bench, store, None if notes is None else notes.append) as engine:
        engine.submit(asked)
        chunks = []
        while not engine.idle:
            chunks.append(engine.collect())
        return chunks


@pytest.fixture
def store(tmp_path):
    with ScoreStore(tmp_path / "scores.sqlite", {}) as opened:
        yield opened


def test_candidates_come_back_in_order_and_each_key_is_scored_once(store):
    bench, scorer = stub_bench(chunk=4, repeats=2)
    drawn = genotypes(bench, 9)
    asked = candidates(bench, [*drawn[:3], drawn[0], drawn[1], *drawn[2:], drawn[8], drawn[0]])
    chunks = work(bench, asked, store)
    assert [candidate for chunk in chunks for candidate in chunk] == asked
    assert sorted(len(chunk) for chunk in scorer.chunks) == [1, 1, 4, 4, 4, 4], "who needs no work takes no room"
    assert len(list(store.scores())) == 9 * 2


def test_what_the_store_has_is_not_scored_again_and_what_it_lacks_is(store):
    bench, _ = stub_bench(chunk=4)
    asked = candidates(bench, genotypes(bench, 6))
    work(bench, asked[:3], store)
    more, scorer = stub_bench(chunk=4, repeats=3)
    assert [each for chunk in work(more, asked, store) for each in chunk] == asked
    assert len(list(store.scores())) == 6 * 3
    assert sum(len(chunk) for chunk in scorer.chunks) == 6 * 3 - 3 * SMALL["repeats"]


def test_chunks_hold_as_many_as_fit_into_memory_together(store):
    bench, scorer = stub_bench(memory="4GiB", repeats=1)
    asked = candidates(bench, genotypes(bench, 40))
    with Engine(bench, store) as engine:
        engine._limit.capacity = capacity = 4 * max(activations(bench, each) for each in genotypes(bench, 40))
        engine.submit(asked)
        while not engine.idle:
            engine.collect()
    sizes = [[activations(bench, each) for each in chunk] for chunk in scorer.chunks]
    assert max(map(len, sizes)) > 4, "it goes by what each one costs, not by the costliest"
    for chunk, following in pairwise(sizes):
        assert sum(chunk) <= capacity < sum(chunk) + following[0]


def activations(bench, genotype):
    return bench.cost(bench.space.representative(genotype)).activations


def test_when_memory_runs_out_the_chunk_is_halved_for_good_and_nothing_is_lost(store):
    bench, scorer = stub_bench(lambda chunk: torch.OutOfMemoryError("no") if len(chunk) > 2 else None, chunk=8)
    notes = []
    asked = candidates(bench, genotypes(bench, 20))
    assert [each for chunk in work(bench, asked, store, notes) for each in chunk] == asked
    assert len(list(store.scores())) == 20 * SMALL["repeats"]
    assert all(score.status == "ok" for score in store.scores())
    assert [len(chunk) for chunk in scorer.chunks][:4] == [8, 4, 2, 2]
    assert max(len(chunk) for chunk in scorer.chunks[2:]) == 2
    assert [note.split(" architectures")[0] for note in notes] == ["Memory ran out with 8", "Memory ran out with 4"]


def test_an_architecture_that_does_not_fit_alone_is_named_and_the_others_go_on(store):
    bench, scorer = stub_bench(chunk=4, repeats=1)
    asked = candidates(bench, genotypes(bench, 8))
    large = asked[3]
    scorer.fails = lambda chunk: MemoryError() if large.representative in map(bench.space.format, chunk) else None
    work(bench, asked, store)
    found = {score.key: score for score in store.scores()}
    assert len(found) == 8
    assert found[large.key].status == "out_of_memory"
    assert "alone" in found[large.key].reason
    assert all(math.isnan(value) for value in found[large.key].values.values())
    assert all(score.status == "ok" for key, score in found.items() if key != large.key)


def test_other_errors_are_not_taken_for_a_lack_of_memory(store):
    bench, _ = stub_bench(lambda chunk: RuntimeError("size mismatch"), chunk=4)
    with pytest.raises(RuntimeError, match="size mismatch"):
        work(bench, candidates(bench, genotypes(bench, 8)), store)
    assert not list(store.scores())


def test_the_errors_of_allocators_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value), "PyTorch's own, on this machine"
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(KeyError("DefaultCPUAllocator"))


def test_running_out_of_memory_does_not_change_the_ranking(tmp_path, monkeypatch):
    settings = {**SMALL, "chunk": 2}
    expected = metantk_nas.search(out=tmp_path / "calm", **settings).frame
    score = KernelScorer.score

    def starved(self, architectures, repeat):
        if len(architectures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, architectures, repeat)

    monkeypatch.setattr(KernelScorer, "score", starved)
    notes = []
    found = metantk_nas.search(out=tmp_path / "starved", note=notes.append, **{**settings, "chunk": 8}).frame
    assert len(notes) == 2
    assert found.drop(columns="seconds").to_csv() == expected.drop(columns="seconds").to_csv()


EVOLUTION = {"searcher": "evolution", "searcher_settings": {"population": 4, "tournament": 2, "generation": 2}}


@pytest.mark.parametrize("searcher", [{}, EVOLUTION], ids=["random", "evolution"])
def test_what_did_not_fit_is_tried_again_by_the_same_command(tmp_path, monkeypatch, searcher):
    settings = {**SMALL, "chunk": 1, "repeats": 1, **searcher}
    expected = metantk_nas.search(out=tmp_path / "calm", **settings).frame
    score, n_asked, notes = KernelScorer.score, [0], []

    def starved(self, architectures, repeat):
        n_asked[0] += 1
        if n_asked[0] % 3 == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, architectures, repeat)

    with monkeypatch.context() as patch:
        patch.setattr(KernelScorer, "score", starved)
        first = metantk_nas.search(out=tmp_path / "run", **settings).frame
    n_failed = int((first["status"] == "out_of_memory").sum())
    assert n_failed == 4
    again = metantk_nas.search(out=tmp_path / "run", note=notes.append, **settings).frame
    assert again.drop(columns="seconds").to_csv() == expected.drop(columns="seconds").to_csv()
    assert notes == ["Trying again what memory did not suffice for before: 4 scores."]
    monkeypatch.setattr(KernelScorer, "score", lambda *_: pytest.fail("scored again"))
    metantk_nas.search(out=tmp_path / "run", note=notes.append, **settings)
    assert len(notes) == 1


class Stream:
    """Asks for random architectures and remembers none; looks at memory on the way."""

    def __init__(self, bench, total):
        self.bench, self.total, self.rng = bench, total, random.Random(0)
        self.n_asked = self.n_told = 0
        self.held = {}

    def ask(self, n):
        n = min(n, self.total - self.n_asked)
        self.n_asked += n
        return [self.bench.space.sample(self.rng) for _ in range(n)]

    def tell(self, architecture, found):
        self.n_told += 1
        if self.n_told % 5000 == 0:
            gc.collect()
            self.held[self.n_told] = sys.getallocatedblocks()


def test_candidates_stream_through_without_staying(store):
    bench, scorer = stub_bench(repeats=1)
    scorer.chunks = Forgetful()
    searcher = Stream(bench, 20_000)
    with Engine(bench, store) as engine:
        _converse(bench, searcher, store, engine, None)
    assert searcher.n_told == 20_000
    assert searcher.held[20_000] - searcher.held[5000] < 5000, "blocks of memory: one for each would be 15,000"


class Forgetful(list):
    """Keeps nothing."""

    def append(self, _):
        pass
