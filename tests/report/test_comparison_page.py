import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from metantk_nas.errors import RunError, UsageError
from metantk_nas.report import compare
from metantk_nas.report.compare import LISTED, write_comparison
from metantk_nas.results import Ranking
from metantk_nas.spaces.space import Space
from tests.report.conftest import make_run

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def runs(tmp_path: Path, cells: Space, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs with the same scores on overlapping candidates, and a third with other scores."""
    monkeypatch.setattr(compare, "_draw", lambda runs: [])
    sizes = {"large": (90, 0), "small": (60, 0), "other": (60, 1)}
    return [make_run(tmp_path / name, cells, n, seed=seed, trained=False) for name, (n, seed) in sizes.items()]


def best(folder: Path) -> pd.DataFrame:
    frame = Ranking.load(folder / "ranking.csv").frame
    return frame[frame["status"] == "ok"].drop_duplicates("key").set_index("key")


def words(page: Path) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8"))))


def test_agreement_is_kendalls_tau_on_shared_keys_and_the_overlap_of_the_heads(runs: list[Path]) -> None:
    read = [compare._read_run(folder, folder.name) for folder in runs]
    same = compare.compare(read[0], read[1])
    one, other = best(runs[0]), best(runs[1])
    shared = one.index.intersection(other.index)
    assert same.n_shared == len(shared) > 20
    assert same.n_top == len(set(one.index[:10]) & set(other.index[:10]))
    pairs = [(a, b) for place, a in enumerate(shared) for b in shared[place + 1 :]]
    signs = [(one["rank"][a] - one["rank"][b]) * (other["rank"][a] - other["rank"][b]) for a, b in pairs]
    ties = [sum(frame["rank"][a] == frame["rank"][b] for a, b in pairs) for frame in (one, other)]
    concordance = sum(int(sign > 0) - int(sign < 0) for sign in signs)
    expected = concordance / ((len(pairs) - ties[0]) * (len(pairs) - ties[1])) ** 0.5
    assert same.kendall == pytest.approx(expected, abs=1e-12)
    assert same.kendall > 0.8
    assert abs(compare.compare(read[0], read[2]).kendall) < 0.5


def test_the_page_sets_runs_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs, tmp_path / "comparison.html")
    text = words(page)
    union = set().union(*(best(folder).index for folder in runs))
    assert f"3 runs scored {len(union)} different functions" in text
    body = page.read_text(encoding="utf-8").split('<table data-name="scores"')[1].split("</table>")[0]
    assert body.count("<tr") == 1 + min(LISTED, len(union))
    for name in ("large", "small", "other"):
        assert f'data-column="rank {name}"' in body
        assert f'data-column="condition_number {name}"' in body
    assert page.stat().st_size < 3e6


def test_only_what_differs_in_the_manifests_is_told(runs: list[Path], tmp_path: Path) -> None:
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    manifest["spec"]["inner_reg"] = 0.5
    (runs[1] / "manifest.json").write_text(json.dumps(manifest))
    text = words(write_comparison(runs, tmp_path / "comparison.html"))
    settings = text.split("What differs in the manifests")[1].split("How they were made")[0]
    assert "spec.inner_reg – 0.5 –" in settings
    assert "seed 0 0 1" in settings
    assert "torch" not in settings


def test_runs_that_share_nothing_are_said_to(runs: list[Path], tmp_path: Path) -> None:
    for folder in runs[1:]:
        frame = pd.read_csv(folder / "ranking.csv", keep_default_na=False)
        frame["key"] = folder.name + frame["key"]
        frame.to_csv(folder / "ranking.csv", index=False)
    text = words(write_comparison(runs, tmp_path / "comparison.html"))
    assert "0 of them in every run" in text
    assert "share too little" in text


def test_a_run_in_which_all_failed_can_be_compared(runs: list[Path], tmp_path: Path) -> None:
    frame = pd.read_csv(runs[1] / "ranking.csv", keep_default_na=False).assign(status="no_path", score="")
    frame.to_csv(runs[1] / "ranking.csv", index=False)
    assert "0 of the best 0" in words(write_comparison(runs[:2], tmp_path / "comparison.html"))


def test_hostile_text_is_shown_and_never_obeyed(runs: list[Path], tmp_path: Path) -> None:
    frame = pd.read_csv(runs[0] / "ranking.csv", keep_default_na=False)
    frame.assign(arch=HOSTILE).to_csv(runs[0] / "ranking.csv", index=False)
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    manifest |= {"command": HOSTILE, HOSTILE: HOSTILE, "spec": {"space": HOSTILE, "data": HOSTILE}}
    (runs[0] / "manifest.json").write_text(json.dumps(manifest))
    page = write_comparison(runs, tmp_path / "comparison.html")
    assert page.read_text(encoding="utf-8").count("<script") == 1
    assert HOSTILE not in page.read_text(encoding="utf-8")
    assert words(page).count("alert") >= 6


def test_runs_of_one_name_are_called_by_their_paths(tmp_path: Path, cells: Space) -> None:
    folders = [make_run(tmp_path / parent / "run", cells, 20, trained=False) for parent in ("a", "b")]
    text = words(write_comparison(folders, tmp_path / "comparison.html"))
    assert str(folders[0]) in text
    assert str(folders[1]) in text
    assert "Ranks in" in text


def test_one_run_or_no_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    for given in (runs[:1], [runs[0], runs[0].parent / "." / runs[0].name]):
        with pytest.raises(UsageError, match="two or more different runs"):
            write_comparison(given, tmp_path / "comparison.html")
    with pytest.raises(RunError, match="nowhere"):
        write_comparison([runs[0], tmp_path / "nowhere"], tmp_path / "comparison.html")
