import pytest

from metantk_nas.errors import UsageError
from metantk_nas.searchers.registry import SEARCHERS, make_searcher, make_settings
from tests.contracts.searcher import make_problem


def test_an_unknown_searcher_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match=r"searcher 'randm' not found; available: .*Did you mean 'random'"):
        make_searcher("randm", make_problem())


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_has_a_description_of_one_line(name: str) -> None:
    assert SEARCHERS[name].description
    assert "\n" not in SEARCHERS[name].description


def test_settings_that_are_given_win_over_the_defaults() -> None:
    settings = make_settings("evolution", {"population": 40})
    assert settings is not None
    assert (settings.population, settings.tournament) == (40, SEARCHERS["evolution"].defaults["tournament"])


def test_an_unknown_setting_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match=r"setting of searcher 'evolution': 'populaton'.*Did you mean 'population'"):
        make_searcher("evolution", make_problem(), {"populaton": 3})


def test_a_searcher_without_settings_says_so() -> None:
    with pytest.raises(UsageError, match=r"searcher 'random' has no settings, it got 'population'"):
        make_searcher("random", make_problem(), {"population": 3})
