"""What every searcher promises; a searcher's own test file inherits this and names the searcher."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest

from metantk_nas.errors import UsageError
from metantk_nas.searchers.base import SearchProblem, Told
from metantk_nas.searchers.registry import make_searcher
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import load_space


def n_convolutions(genotype: Genotype) -> int:
    return sum("conv" in op for _, cell in genotype.cells for node in cell for op, _ in node)


def anything(genotype: Genotype) -> bool:
    return True


def make_problem(
    space: str = "nas_bench_201",
    budget: int | None = 64,
    seed: int = 0,
    allowed: Callable[[Genotype], bool] = anything,
) -> SearchProblem:
    return SearchProblem(load_space(space), budget, seed, allowed, by_mean)


def by_mean(group: Sequence[Told]) -> list[float]:
    return [float(found.mean()) for found in group]


def drive(name: str, problem: SearchProblem, chunk: int = 16) -> list[Genotype]:
    """Search to the end with a toy score: the more convolutions the better, nothing without any."""
    searcher = make_searcher(name, problem)
    stream: list[Genotype] = []
    while asked := searcher.ask(chunk):
        assert len(asked) <= chunk
        stream += asked
        for genotype in asked:
            found = np.full((1, 2), -float(n_convolutions(genotype)))
            searcher.tell(genotype, found if found.any() else None)
    assert searcher.ask(chunk) == []
    return stream


def fingerprint(name: str, problem: SearchProblem) -> str:
    texts = map(problem.space.format, drive(name, problem))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


class SearcherContract:
    name: ClassVar[str]

    def test_it_asks_only_what_is_allowed(self) -> None:
        problem = make_problem(allowed=lambda genotype: n_convolutions(genotype) <= 2)
        stream = drive(self.name, problem)
        assert len(stream) == 64
        assert max(map(n_convolutions, stream)) == 2

    def test_it_asks_no_genotype_twice(self) -> None:
        stream = drive(self.name, make_problem(budget=1_000))
        assert len(set(stream)) == len(stream) == 1_000

    @pytest.mark.parametrize("chunk", [1, 7, 64, 1_000])
    def test_the_stream_does_not_depend_on_how_it_is_asked(self, chunk: int) -> None:
        assert drive(self.name, make_problem(), chunk) == drive(self.name, make_problem(), 16)

    @pytest.mark.parametrize("budget", [1, 33])
    def test_it_stops_at_the_budget(self, budget: int) -> None:
        assert len(drive(self.name, make_problem(budget=budget))) == budget

    def test_a_smaller_budget_gives_the_head_of_the_same_stream(self) -> None:
        assert drive(self.name, make_problem(budget=10)) == drive(self.name, make_problem(budget=64))[:10]

    def test_a_new_searcher_replays_the_stream_of_an_interrupted_one(self) -> None:
        interrupted = make_searcher(self.name, make_problem())
        head = interrupted.ask(20)
        again = make_searcher(self.name, make_problem())
        assert again.ask(20) == head
        assert again.ask(44) == interrupted.ask(44)

    def test_another_process_asks_the_same(self) -> None:
        code = (
            "from tests.contracts.searcher import fingerprint, make_problem;"
            f"print(fingerprint({self.name!r}, make_problem(seed=3)))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        assert process.stdout.strip() == fingerprint(self.name, make_problem(seed=3))

    def test_it_ends_when_the_space_is_used_up(self) -> None:
        few = make_problem(budget=1_000_000, allowed=lambda genotype: n_convolutions(genotype) == 0)
        stream = drive(self.name, few, chunk=100)
        keys = {few.space.key(genotype) for genotype in few.space.genotypes() if few.allowed(genotype)}
        assert {few.space.key(genotype) for genotype in stream} == keys

    def test_limits_that_nothing_satisfies_are_named(self) -> None:
        searcher = make_searcher(self.name, make_problem(allowed=lambda genotype: False))
        with pytest.raises(UsageError, match=r"no architecture of 15,625 .*--max-params.*loosen the limit"):
            searcher.ask(1)

    @pytest.mark.parametrize("budget", [0, -5])
    def test_a_budget_that_is_not_positive_is_refused(self, budget: int) -> None:
        with pytest.raises(UsageError, match=rf"budget is {budget}; expected at least 1"):
            make_searcher(self.name, make_problem(budget=budget))
