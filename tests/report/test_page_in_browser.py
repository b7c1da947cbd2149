"""What a person sees who opens a page, sorts and filters: looked at in headless Chromium."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from metantk_nas.report.compare import write_comparison
from metantk_nas.report.html import HEAD, write_report
from metantk_nas.spaces.space import Space
from tests.report.conftest import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, cells: Space) -> Path:
    """A report of some hundred candidates without its plots, of which one has a hostile reason."""
    folder = make_run(tmp_path_factory.mktemp("browser") / "run", cells, 150, trained=False)
    ranking = pd.read_csv(folder / "ranking.csv", keep_default_na=False)
    ranking["reason"] = ranking["reason"].mask(ranking["status"] != "ok", HOSTILE)
    ranking.to_csv(folder / "ranking.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metantk_nas.report.html.draw_plots", lambda tables: [])
        return write_report(folder, cells)


def browse(page: Path, state: str = "") -> str:
    """The document as the browser has it once its script has run; complaints of the browser fail the test."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--enable-logging=stderr"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={page.parent / 'browser'}", "--dump-dom"]
    done = subprocess.run([*command, f"file://{page}#{state}"], capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def rows(document: str, table: str = "ranking") -> list[list[str]]:
    """Cells of the rows that are to be seen, in their order."""
    body = re.search(rf'<table data-name="{table}".*?<tbody>(.*?)</tbody>', document, re.DOTALL)
    assert body is not None
    seen = [row for hidden, row in re.findall(r"<tr( hidden=\"\")?>(.*?)</tr>", body[1], re.DOTALL) if not hidden]
    return [[text_of(cell) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)] for row in seen]


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html)).strip()


def distinct(page: Path) -> pd.DataFrame:
    """What the table can show: the candidates that were scored, one of each key."""
    ranking = pd.read_csv(page.parent / "ranking.csv", keep_default_na=False, na_values=[""])
    return ranking[ranking["status"] == "ok"].drop_duplicates("key")


def test_at_first_the_best_are_shown_in_their_order(page: Path) -> None:
    document = browse(page)
    assert [row[-1] for row in rows(document)] == list(distinct(page)["arch"].head(HEAD))
    assert f"{HEAD} of {len(distinct(page))} shown" in document


@pytest.mark.parametrize(("sort", "descending"), [("trace", False), ("-trace", True), ("-params", True)])
def test_a_link_sorts(page: Path, sort: str, descending: bool) -> None:
    column = sort.removeprefix("-")
    expected = distinct(page).sort_values(column, ascending=not descending, kind="stable")
    document = browse(page, f"ranking.sort={sort}&ranking.all=1")
    assert [row[-1] for row in rows(document)] == list(expected["arch"])
    direction = "descending" if descending else "ascending"
    assert re.search(rf'data-column="{column}" aria-sort="{direction}"', document)


def test_a_link_filters_by_words_and_by_numbers(page: Path) -> None:
    frame = distinct(page)
    has = frame["arch"].str.contains("nor_conv_3x3") & ~frame["arch"].str.contains("avg_pool")
    wanted = frame[has & frame["params"].between(100_000, 180_000)]
    assert 0 < len(wanted) < len(frame)
    document = browse(page, "ranking.find=NOR_conv_3x3 -avg_pool&ranking.params=100K..0.18M&ranking.all=1")
    assert [row[-1] for row in rows(document)] == list(wanted["arch"])
    assert f"{len(wanted)} match" in document
    unreadable = browse(page, "ranking.params=many..&ranking.all=1")
    assert len(rows(unreadable)) == len(frame)
    assert 'aria-invalid="true"' in unreadable


def test_missing_values_come_last_in_both_directions_and_infinite_ones_do_not(
    page: Path, tmp_path: Path, cells: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metantk_nas.report.html.draw_plots", lambda tables: [])
    folder = shutil.copytree(page.parent, tmp_path / "run", ignore=shutil.ignore_patterns("browser"))
    ranking = pd.read_csv(folder / "ranking.csv", keep_default_na=False)
    first = ranking.drop_duplicates("key").index
    ranking["naswot"] = 1.0
    ranking.loc[first[0], "naswot"], ranking.loc[first[1], "naswot"] = float("nan"), float("inf")
    ranking.to_csv(folder / "ranking.csv", index=False)
    report = write_report(folder, cells)
    shown = [rows(browse(report, f"ranking.sort={sign}naswot&ranking.all=1")) for sign in ("", "-")]
    archs = [[row[-1] for row in table] for table in shown]
    assert archs[0][-2:] == [ranking["arch"][first[1]], ranking["arch"][first[0]]]
    assert (archs[1][0], archs[1][-1]) == (ranking["arch"][first[1]], ranking["arch"][first[0]])


def test_clicks_and_words_change_the_address(page: Path, tmp_path: Path) -> None:
    """Chromium is driven by a script, which the page itself would refuse."""
    driver = """<script>
      const column = document.querySelector('th[data-column="params"] button');
      column.click(); column.click();
      const find = document.querySelector("input[type=search]");
      find.value = "skip"; find.dispatchEvent(new Event("input", { bubbles: true }));
      document.title = location.hash;
    </script></body>"""
    source = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text(encoding="utf-8"))
    copy = tmp_path / "driven.html"
    copy.write_text(source.replace("</body>", driver), encoding="utf-8")
    document = browse(copy)
    assert "<title>#ranking.sort=-params&amp;ranking.find=skip</title>" in document
    params = [row[5] for row in rows(document)]  # behind rank, interval, score and two metrics
    assert len(params) == HEAD
    skips = distinct(page)[distinct(page)["arch"].str.contains("skip")]
    assert params[0] == f"{skips['params'].max() / 1000:.0f} K"


def test_a_script_from_the_run_is_shown_and_never_run(page: Path) -> None:
    document = browse(page)
    assert "<title>run · metantk-nas</title>" in document
    assert "owned" in document


def test_other_anchors_leave_the_table_alone(page: Path) -> None:
    assert len(rows(browse(page, "arch-3"))) == HEAD


def test_a_comparison_sorts_and_filters_too(page: Path, tmp_path: Path, cells: Space) -> None:
    other = make_run(tmp_path / 'other "run" & co', cells, 60, trained=False, seed=1)
    document = browse(write_comparison([page.parent, other], tmp_path / "comparison.html"), "scores.rank run=1..3")
    ranks = distinct(page)["rank"]
    assert sorted(row[0] for row in rows(document, "scores")) == sorted(str(rank) for rank in ranks[ranks <= 3])
