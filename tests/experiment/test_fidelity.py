from pathlib import Path

import pytest

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment.fidelity import Fidelity
from metantk_nas.results import SCREENED_OUT, Ranking, make_ranking
from metantk_nas.spaces.load import load_space
from metantk_nas.store import Candidate
from metantk_nas.types import Metric, RankRule, Score
from tests.small_search import SMALL

LOOK = {"fidelity": "init_channels=2,n_cells=3,repeats=2,keep=0.5"}


def test_auto_takes_one_repeat_of_the_full_size() -> None:
    assert Fidelity.read("auto", load_space("darts_fewshot")) == Fidelity(48, 5, 1, 0.1)
    tiny = Fidelity(2, 3, 1, 0.5).shrink(load_space("darts"))
    assert Fidelity.read("auto", tiny) == Fidelity(2, 3, 1, 0.1)


def test_what_is_left_out_is_as_in_auto() -> None:
    assert Fidelity.read("keep=0.3", load_space("darts_fewshot")) == Fidelity(48, 5, 1, 0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cheap", r"part of --fidelity 'cheap' not found; available: auto, init_channels, keep, n_cells, repeats"),
        ("keep=half", r"keep is 'half'; expected a number"),
        ("keep=0", r"keep in \(0, 1\]"),
        ("n_cells=0", "whole numbers of at least 1"),
    ],
)
def test_what_means_nothing_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Fidelity.read(text, load_space("darts_fewshot"))


def test_pruning_has_no_first_look() -> None:
    with pytest.raises(UsageError, match="cannot keep --fidelity"):
        metantk_nas.search(space="darts", searcher="pruning", fidelity="auto")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Ranking:
    return metantk_nas.search(out=tmp_path_factory.mktemp("full"), **SMALL)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranking]:
    out = tmp_path_factory.mktemp("looked")
    return out, metantk_nas.search(out=out, **SMALL, **LOOK)


def test_the_best_of_the_first_look_get_the_full_score(full: Ranking, looked: tuple[Path, Ranking]) -> None:
    """Half of the keys, those that the small skeleton ranks first; their values are those of an ordinary search."""
    frame = looked[1].frame.set_index("arch")
    small = metantk_nas.score(list(frame.index), **{**SMALL, "init_channels": 2, "n_cells": 3}).frame.set_index("arch")
    both = full.frame.set_index("arch").loc[frame.index]
    ok = frame["status"] == "ok"
    assert frame.loc[ok, "condition_number"].tolist() == pytest.approx(both.loc[ok, "condition_number"].tolist())
    scored = small.loc[frame.index, "status"] == "ok"
    assert frame.loc[scored, "cheap_condition_number"].tolist() == pytest.approx(
        small.loc[frame.index[scored], "condition_number"].tolist()
    )
    out = frame["status"] == SCREENED_OUT
    assert out.sum() == len(frame) // 2
    assert frame.loc[out, "condition_number"].isna().all()
    assert small.loc[frame.index[out], "rank"].min() >= small.loc[frame.index[~out], "rank"].max()


def test_who_was_screened_out_follows_in_the_order_of_the_first_look(
    looked: tuple[Path, Ranking],
) -> None:
    frame = looked[1].frame
    assert frame["rank"].is_monotonic_increasing
    out = frame[frame["status"] == SCREENED_OUT]
    places = out["reason"].str.extract(r"^place (\d+) of \d+ by 2 channels, 3 cells, 2 repeats$")[0].astype(int)
    assert places.is_monotonic_increasing
    assert out["rank"].min() == (frame["status"] == "ok").sum() + 1


def test_the_report_tells_screened_out_from_failed(looked: tuple[Path, Ranking]) -> None:
    out, ranking = looked
    page = (out / "report.html").read_text(encoding="utf-8")
    n_screened = (ranking.frame["status"] == SCREENED_OUT).sum()
    assert f"{n_screened} were screened out by a first look" in page
    assert "place 7 of" not in page


def test_the_same_command_scores_nothing_anew(looked: tuple[Path, Ranking]) -> None:
    """Also what a searcher is told stays the same: full scores, there by now, are not part of the first look."""
    out, before = looked
    again = metantk_nas.search(out=out, **SMALL, **LOOK)
    assert again.frame.equals(before.frame)


def test_evolution_listens_to_the_first_look(tmp_path: Path) -> None:
    evolution = {"searcher": "evolution", "searcher_settings": {"population": 4, "tournament": 2, "generation": 2}}
    first = metantk_nas.search(out=tmp_path, **{**SMALL, **LOOK, **evolution})
    assert first.frame["cheap_condition_number"].notna().sum() > (first.frame["status"] == "ok").sum()
    assert metantk_nas.search(out=tmp_path, **{**SMALL, **LOOK, **evolution}).frame.equals(first.frame)


def test_what_failed_comes_after_what_was_screened_out() -> None:
    metric = Metric("kappa", False, "", "")
    candidates = [Candidate(i, f"arch{i}", f"key{i}", f"arch{i}", 1, 1) for i in range(5)]
    scores = [
        Score(f"key{i}", 0, "s", {"kappa": float(i)}, status) for i, status in enumerate(("ok", "singular", "ok"))
    ]
    frame = make_ranking(
        candidates, scores, RankRule("kappa", (metric,)), 0, screened_out={"key4": "place 4", "key3": "place 5"}
    ).frame
    assert frame["key"].tolist() == ["key0", "key2", "key4", "key3", "key1"]
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5]
    assert frame["reason"].tolist()[2:4] == ["place 4", "place 5"]
