import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment.fidelity import Look, read_looks
from metantk_nas.results import SCREENED_OUT, Ranking, make_ranking
from metantk_nas.store import Candidate
from metantk_nas.types import Metric, RankRule, Score
from tests.small_search import SMALL

LOOK = {"fidelity": "init_channels=2,n_cells=3,repeats=2,keep=0.5"}
FULL = Look(32, 48, 5, 3, 1.0)


def test_auto_takes_smaller_images_and_then_one_repeat_of_the_full_size() -> None:
    assert read_looks("auto", FULL) == (Look(16, 48, 5, 1, 0.25), Look(32, 48, 5, 1, 0.4))
    assert read_looks("auto", replace(FULL, image_size=10)) == (Look(8, 48, 5, 1, 0.25), Look(10, 48, 5, 1, 0.4))


def test_a_look_that_saves_nothing_is_passed_over() -> None:
    once = replace(FULL, repeats=1)
    assert read_looks("auto", once) == (Look(16, 48, 5, 1, 0.25),)
    assert read_looks("auto", replace(once, image_size=8)) == ()


def test_what_is_left_out_is_as_at_full_size() -> None:
    assert read_looks("init_channels=16", FULL) == (Look(32, 16, 5, 1, 0.25),)
    assert read_looks("keep=0.3 / repeats=2", FULL) == (Look(32, 48, 5, 1, 0.3), Look(32, 48, 5, 2, 0.25))
    assert read_looks("", FULL) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cheap", r"'cheap' not found; available: auto, image_size, init_channels, keep, n_cells, repeats"),
        ("keep=half", r"keep is 'half'; expected a number"),
        ("keep=0", r"keep in \(0, 1\]"),
        ("n_cells=0", "whole numbers of at least 1"),
        ("keep=.9/keep=.8/keep=.7/keep=.6", "takes 4 looks; expected 3 at most"),
    ],
)
def test_what_means_nothing_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_looks(text, FULL)


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
    places = out["reason"].str.extract(r"^place (\d+) of \d+ by .*, 2 channels, 3 cells, 2 repeats$")[0].astype(int)
    assert places.is_monotonic_increasing
    assert out["rank"].min() == (frame["status"] == "ok").sum() + 1


def test_the_report_tells_screened_out_from_failed(looked: tuple[Path, Ranking]) -> None:
    out, ranking = looked
    page = (out / "report.html").read_text(encoding="utf-8")
    n_screened = (ranking.frame["status"] == SCREENED_OUT).sum()
    assert f"{n_screened} were screened out by a cheap look" in page
    assert "place 7 of" not in page


def test_the_same_command_scores_nothing_anew(looked: tuple[Path, Ranking]) -> None:
    """Also what a searcher is told stays the same: full scores, there by now, are not part of the first look."""
    out, before = looked
    again = metantk_nas.search(out=out, **SMALL, **LOOK)
    assert again.frame.equals(before.frame)


def test_looks_follow_each_other_and_repeats_are_not_scored_twice(full: Ranking, tmp_path: Path) -> None:
    """Of twelve keys six see the second look, and three are scored in full; the second look is part of that score."""
    looks = {"fidelity": "image_size=8,keep=0.5/repeats=1,keep=0.5"}
    frame = metantk_nas.search(out=tmp_path, **SMALL, **looks).frame
    assert frame["key"].is_unique
    assert len(frame) == 12
    out = frame["reason"].str.extract(r"^place \d+ of (\d+) by (.*)$")
    assert out[0].dropna().tolist() == ["6"] * 3 + ["12"] * 6
    assert out[1].dropna().unique().tolist() == [
        "16 pixels, 4 channels, 3 cells, 1 repeat",
        "8 pixels, 4 channels, 3 cells, 1 repeat",
    ]
    assert frame["condition_number"].notna().tolist() == [True] * 6 + [False] * 6
    whole = full.frame.set_index("key").loc[frame["key"][:3], "condition_number"]
    assert frame["condition_number"][:3].tolist() == pytest.approx(whole.tolist())
    with closing(sqlite3.connect(tmp_path / "scores.sqlite")) as store:
        scored = dict(store.execute("SELECT scorer, COUNT(*) FROM score GROUP BY scorer"))
    for scorer in ("kernel", "synflow"):
        assert (scored.pop(f"cheap_{scorer}"), scored.pop(scorer)) == (12, 6 + 3)
    assert not scored
    assert metantk_nas.search(out=tmp_path, **SMALL, **looks).frame.equals(frame)


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
