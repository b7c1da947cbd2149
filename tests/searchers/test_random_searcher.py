import pytest

from metantk_nas.errors import UsageError
from metantk_nas.searchers import random as random_search
from metantk_nas.searchers.registry import make_searcher
from tests.contracts.searcher import BudgetedSearcherContract, drive, make_problem, n_convolutions


class TestRandomSearcher(BudgetedSearcherContract):
    name = "random"


@pytest.mark.parametrize("space", ["nas_bench_201", "darts"])
def test_every_canonical_key_is_asked_once(space: str) -> None:
    problem = make_problem(space, budget=2_000)
    keys = [problem.space.key(genotype) for genotype in drive("random", problem)]
    assert len(set(keys)) == len(keys) == 2_000


@pytest.mark.parametrize("space", ["nas_bench_201", "darts"])
def test_another_seed_asks_others(space: str) -> None:
    assert drive("random", make_problem(space, seed=0)) != drive("random", make_problem(space, seed=1))


def test_a_space_too_large_to_list_asks_the_same_however_it_is_cut() -> None:
    assert drive("random", make_problem("darts"), chunk=1) == drive("random", make_problem("darts"), chunk=64)


def test_a_listed_space_is_visited_out_of_order() -> None:
    stream = drive("random", make_problem(budget=500))
    share = sum(n_convolutions(genotype) for genotype in stream) / (6 * len(stream))
    assert 0.35 < share < 0.50  # 2 of 5 operations; in the space's own order the first 500 have 0.28


def test_an_unlistable_space_that_is_used_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_search, "MAX_ENUMERATED", 0)
    problem = make_problem(budget=1_000, allowed=lambda genotype: n_convolutions(genotype) == 0)
    expected = {problem.space.key(genotype) for genotype in problem.space.genotypes() if problem.allowed(genotype)}
    stream = drive("random", problem, chunk=100)
    assert {problem.space.key(genotype) for genotype in stream} <= expected
    assert len(stream) > 0.9 * len(expected)


def test_an_unlistable_space_in_which_nothing_is_allowed_says_so() -> None:
    searcher = make_searcher("random", make_problem("darts", allowed=lambda genotype: False))
    with pytest.raises(UsageError, match=r"no architecture of 10,000 sampled satisfies .*--max-params"):
        searcher.ask(1)


def test_a_budget_is_needed() -> None:
    with pytest.raises(UsageError, match="expected --budget N, or --searcher exhaustive"):
        make_searcher("random", make_problem(budget=None))
