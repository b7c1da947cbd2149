"""What every searcher promises; a searcher's own test file inherits a contract and names the searcher."""

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
from metantk_nas.spaces.subspace import Architecture


def n_convolutions(architecture: Architecture) -> int:
    return sum("conv" in op for op in operations(architecture))


def operations(architecture: Architecture) -> list[str]:
    cells = (
        architecture.cells if isinstance(architecture, Genotype) else [(slot[0], ()) for slot, _ in architecture.slots]
    )
    types = dict(cells)
    return [op for cell_type in types for _, _, op in architecture.choices(cell_type)]


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


def toy_score(architecture: Architecture) -> Told | None:
    """The more convolutions among its operations the better; nothing without any."""
    n_found = n_convolutions(architecture)
    return np.full((1, 2), -n_found / len(operations(architecture))) if n_found else None


def drive(name: str, problem: SearchProblem, chunk: int = 16, n_waiting: int = 0) -> list[Architecture]:
    """Search to the end with a toy score, telling nothing before more than ``n_waiting`` wait, unless nothing comes."""
    searcher = make_searcher(name, problem)
    stream: list[Architecture] = []
    n_told = 0
    while (asked := searcher.ask(chunk)) or n_told < len(stream):
        assert len(asked) <= chunk
        stream += asked
        while n_told < len(stream) - (n_waiting if asked else 0):
            searcher.tell(stream[n_told], toy_score(stream[n_told]))
            n_told += 1
    assert searcher.ask(chunk) == []
    assert len(stream) <= searcher.total
    return stream


def fingerprint(name: str, problem: SearchProblem) -> str:
    texts = map(problem.space.format, drive(name, problem))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


class SearcherContract:
    """For every searcher.

    ``budget`` is what its problems have.
    """

    name: ClassVar[str]
    budget: ClassVar[int | None] = 64

    def test_it_asks_architectures_of_the_space_none_twice(self) -> None:
        problem = make_problem(budget=self.budget)
        stream = drive(self.name, problem)
        assert [problem.space.read(problem.space.format(architecture)) for architecture in stream] == stream
        assert len(set(stream)) == len(stream)

    @pytest.mark.parametrize("chunk", [1, 7, 64, 1_000])
    def test_the_stream_does_not_depend_on_how_it_is_asked(self, chunk: int) -> None:
        expected = drive(self.name, make_problem(budget=self.budget), 16)
        assert drive(self.name, make_problem(budget=self.budget), chunk) == expected

    @pytest.mark.parametrize("n_waiting", [1, 13, 1_000])
    def test_the_stream_does_not_depend_on_how_far_ahead_it_is_asked(self, n_waiting: int) -> None:
        expected = drive(self.name, make_problem(budget=self.budget))
        assert drive(self.name, make_problem(budget=self.budget), 5, n_waiting) == expected

    def test_a_new_searcher_replays_the_stream_of_an_interrupted_one(self) -> None:
        whole = drive(self.name, make_problem(budget=self.budget))
        interrupted = make_searcher(self.name, make_problem(budget=self.budget))
        head = interrupted.ask(20)
        for architecture in head[:11]:
            interrupted.tell(architecture, toy_score(architecture))
        assert head == whole[:20]
        assert drive(self.name, make_problem(budget=self.budget)) == whole

    def test_another_process_asks_the_same(self) -> None:
        code = (
            "from tests.contracts.searcher import fingerprint, make_problem;"
            f"print(fingerprint({self.name!r}, make_problem(budget={self.budget}, seed=3)))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        assert process.stdout.strip() == fingerprint(self.name, make_problem(budget=self.budget, seed=3))

    @pytest.mark.parametrize("budget", [0, -5])
    def test_a_budget_that_is_not_positive_is_refused(self, budget: int) -> None:
        with pytest.raises(UsageError, match=rf"budget is {budget}; expected at least 1"):
            make_searcher(self.name, make_problem(budget=budget))


class BudgetedSearcherContract(SearcherContract):
    """For searchers that ask genotypes, as many as a budget says, and keep to limits."""

    def test_it_asks_only_genotypes_that_are_allowed(self) -> None:
        problem = make_problem(allowed=lambda genotype: n_convolutions(genotype) <= 2)
        stream = drive(self.name, problem)
        assert len(stream) == 64
        assert all(isinstance(genotype, Genotype) for genotype in stream)
        assert max(map(n_convolutions, stream)) == 2

    def test_it_goes_on_for_as_long_as_there_is_budget(self) -> None:
        stream = drive(self.name, make_problem(budget=1_000))
        assert len(set(stream)) == len(stream) == 1_000

    @pytest.mark.parametrize("budget", [1, 33])
    def test_it_stops_at_the_budget(self, budget: int) -> None:
        problem = make_problem(budget=budget)
        assert len(drive(self.name, problem)) == budget == make_searcher(self.name, problem).total

    def test_a_smaller_budget_gives_the_head_of_the_same_stream(self) -> None:
        whole = drive(self.name, make_problem(budget=64))
        for budget in (10, 50):
            assert drive(self.name, make_problem(budget=budget)) == whole[:budget]

    def test_it_goes_on_where_nothing_can_be_scored(self) -> None:
        problem = make_problem(allowed=lambda genotype: n_convolutions(genotype) == 0)
        assert len(drive(self.name, problem)) == 64

    def test_it_ends_when_the_space_is_used_up(self) -> None:
        few = make_problem(budget=1_000_000, allowed=lambda genotype: n_convolutions(genotype) <= 1)
        stream = drive(self.name, few, chunk=100)
        keys = {few.space.key(genotype) for genotype in few.space.genotypes() if few.allowed(genotype)}
        assert {few.space.key(genotype) for genotype in stream} == keys

    def test_limits_that_nothing_satisfies_are_named(self) -> None:
        searcher = make_searcher(self.name, make_problem(allowed=lambda genotype: False))
        with pytest.raises(UsageError, match=r"no architecture of 15,625 .*--max-params.*loosen the limit"):
            searcher.ask(1)
