import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from metantk_nas.bench.stability import _divisions, read_repeats, stability
from metantk_nas.errors import RunError, UsageError
from metantk_nas.store import ScoreStore
from metantk_nas.types import Metric, RankRule, Score

A, B = Metric("a", True, "", ""), Metric("b", False, "", "")


def repeats(n_keys: int, n_repeats: int, noise: float) -> pd.DataFrame:
    """What each key is worth, told with noise in every repeat."""
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(n_keys, 1, 1)) * [1, -1]
    values = worth + noise * rng.normal(size=(n_keys, n_repeats, 2))
    index = pd.MultiIndex.from_product(
        [[f"k{key}" for key in range(n_keys)], range(n_repeats)], names=["key", "repeat"]
    )
    return pd.DataFrame(values.reshape(-1, 2), index=index, columns=["a", "b"])


def test_two_repeats_are_held_against_each_other() -> None:
    table = repeats(50, 2, noise=0.5)
    found = stability(table, RankRule("", (A,)))
    expected = spearmanr(table["a"].xs(0, level="repeat"), table["a"].xs(1, level="repeat")).statistic
    assert found.to_dict("records") == [
        {
            "repeats": 1,
            "spearman": pytest.approx(expected),
            "spearman_sd": pytest.approx(np.nan, nan_ok=True),
            "spearman_min": pytest.approx(expected),
            "divisions": 1,
            "keys": 50,
        }
    ]


def test_more_repeats_agree_better_and_without_noise_they_agree_fully() -> None:
    rule = RankRule("", (A, B))
    found = stability(repeats(80, 8, noise=1.0), rule)
    assert list(found["repeats"]) == [1, 2, 3, 4]
    assert found["spearman"].is_monotonic_increasing
    assert list(found["divisions"]) == [28, 50, 50, 35]  # 8·7/2, …, 8!/(4!·4!)/2
    # Spearman-Brown for two parts of equal noise: a set of n repeats has reliability 2n / (2n + 1) at best
    assert found["spearman"].iloc[0] == pytest.approx(2 / 3, abs=0.1)
    assert found["spearman"].iloc[3] == pytest.approx(8 / 9, abs=0.06)
    np.testing.assert_allclose(stability(repeats(80, 8, noise=0.0), rule)["spearman"], 1)


def test_the_sets_of_a_division_are_disjoint_and_no_division_comes_twice() -> None:
    found = _divisions(7, 3, 30, seed=0)
    assert len({frozenset(division) for division in found}) == len(found) == 30
    assert all(len(set(one) | set(other)) == 6 for one, other in found)
    assert found == _divisions(7, 3, 30, seed=0) != _divisions(7, 3, 30, seed=1)
    assert len(_divisions(4, 2, 30, seed=0)) == 3


def test_keys_that_lack_a_value_are_left_out() -> None:
    table = repeats(20, 4, noise=1.0)
    table.loc[("k3", 2), "a"] = np.nan
    table = table.drop(("k5", 1))
    assert set(stability(table, RankRule("", (A, B)))["keys"]) == {18}
    assert set(stability(table, RankRule("", (B,)))["keys"]) == {19}


@pytest.mark.parametrize(("n_keys", "n_repeats"), [(2, 4), (20, 1)])
def test_what_cannot_be_compared_is_refused(n_keys: int, n_repeats: int) -> None:
    with pytest.raises(UsageError, match=rf"{n_keys} keys .* in {n_repeats} repeats; expected at least 3 keys and 2"):
        stability(repeats(n_keys, n_repeats, 1.0), RankRule("a", (A,)))


def test_repeats_are_read_from_a_run_and_what_went_wrong_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with ScoreStore(path, {"seed": 0}) as store:
        store.put([Score("x", 0, "one", {"a": 1.5}, seconds=1.0), Score("x", 0, "two", {"b": 2.0}, seconds=2.0)])
        store.put([Score("x", 1, "one", {"a": 1.0}, "singular", "λmin is 0"), Score("x", 1, "two", {"b": 2.0})])
        store.put([Score("y", 0, "one", {"a": np.inf})])
    before = path.read_bytes()
    table = read_repeats(path)
    assert table.loc[("x", 0)].to_dict() == {"seconds": 3.0, "a": 1.5, "b": 2.0}
    assert table.loc[[("x", 1), ("y", 0)], ["a", "b"]].isna().all(axis=None)
    assert path.read_bytes() == before


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, only a longer text " * 9)
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE thing (name TEXT)")
    database.close()
    for name in ("absent", "text", "other"):
        with pytest.raises(RunError, match=rf"cannot read the scores in .*{name}"):
            read_repeats(tmp_path / name)
    assert not (tmp_path / "absent").exists()
