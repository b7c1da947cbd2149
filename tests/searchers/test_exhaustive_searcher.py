import pytest

from metantk_nas.errors import UsageError
from metantk_nas.searchers.exhaustive import ExhaustiveSearcher
from metantk_nas.searchers.registry import make_searcher
from tests.contracts.searcher import BudgetedSearcherContract, drive, make_problem


class TestExhaustiveSearcher(BudgetedSearcherContract):
    name = "exhaustive"


def test_without_a_budget_every_genotype_is_asked_all_members_of_a_key_included() -> None:
    problem = make_problem(budget=None)
    assert drive("exhaustive", problem, chunk=1_000) == list(problem.space.genotypes())


def test_a_space_that_is_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(UsageError, match=r"'darts' has [\d,]{20,} architectures.*at most 1,000,000.*--searcher random"):
        make_searcher("exhaustive", make_problem("darts"))


def test_the_limit_of_size_is_the_last_size_accepted() -> None:
    assert ExhaustiveSearcher(make_problem(), max_size=15_625).ask(1)
    with pytest.raises(UsageError, match="15,625 architectures"):
        ExhaustiveSearcher(make_problem(), max_size=15_624)
