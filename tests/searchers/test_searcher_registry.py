import pytest

from metantk_nas.errors import UsageError
from metantk_nas.searchers.registry import SEARCHERS, make_searcher
from tests.contracts.searcher import make_problem


def test_an_unknown_searcher_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match=r"searcher 'randm' not found; available: .*Did you mean 'random'"):
        make_searcher("randm", make_problem())


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_has_a_description_of_one_line(name: str) -> None:
    assert SEARCHERS[name].description
    assert "\n" not in SEARCHERS[name].description
