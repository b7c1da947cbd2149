import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from metantk_nas.errors import RunError, UsageError
from metantk_nas.report import html
from metantk_nas.report.html import HEAD, LISTED, write_report
from metantk_nas.spaces.space import Space

MakeRun = Callable[..., Path]
VOID = {"meta", "img", "br", "source", "link", "hr", "input"}
HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """What a browser sees: text by section, links, drawings; complains about tags that do not match."""

    def __init__(self, report: Path) -> None:
        super().__init__()
        self.source = report.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.script = ""
        self.section = ""
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        found = {name: value or "" for name, value in attributes}
        self.links += [found[name] for name in ("href", "src", "srcset", "action", "data") if name in found]
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "section":
            self.section = found["id"]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.script += data
        elif self.open and self.open[-1] != "style":
            self.text += data
            self.sections[self.section] = self.sections.get(self.section, "") + data


def change(folder: Path, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Edit one table of a run."""
    edit(pd.read_csv(folder / name)).to_csv(folder / name, index=False)


def set_manifest(folder: Path, **content: object) -> None:
    version = json.loads((folder / "manifest.json").read_text())["schema_version"]
    (folder / "manifest.json").write_text(json.dumps({**content, "schema_version": version}))


def test_a_run_becomes_one_page_that_needs_no_network(run: tuple[Path, Space]) -> None:
    report = run[0] / "report.html"
    page = Page(report)
    assert page.tags.count("script") == 1
    assert page.script == (Path(html.__file__).parent / "tables.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in unescape(page.source)
    outward = [link for link in page.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert set(outward) == {"ranking.csv"}
    assert not re.search(r"@import|url\(", page.source)
    assert report.stat().st_size < 3e6
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_the_head_of_the_ranking_is_listed_and_drawn(run: tuple[Path, Space]) -> None:
    folder, space = run
    page = Page(folder / "report.html")
    ranking = pd.read_csv(folder / "ranking.csv", keep_default_na=False)
    top = ranking[ranking["status"] == "ok"].drop_duplicates("key").head(HEAD)
    for arch in top["arch"]:
        assert arch in page.sections["ranking"]
        assert arch in page.sections["cells"]
    assert page.tags.count("svg") == len(top) * len(space.cell_types)
    for op in space.ops:
        assert op in page.sections["cells"]


def test_metrics_show_their_direction_and_meaning(run: tuple[Path, Space]) -> None:
    page = Page(run[0] / "report.html")
    assert "condition number ↓" in page.sections["ranking"]
    assert "trace ↑" in page.sections["ranking"]
    assert "λmax/λmin of the MetaNTK." in page.sections["ranking"]
    assert "query loss after adaptation; lower is better" in page.sections["ranking"]


def test_plots_are_in_the_page_and_beside_it(run: tuple[Path, Space]) -> None:
    folder, _ = run
    page = Page(folder / "report.html")
    files = {path.stem for path in (folder / "plots").glob("*.png")}
    assert files == {name.removeprefix("plot-") for name in page.ids if name.startswith("plot-")}
    assert len(files) == 5
    assert page.tags.count("img") == 5
    assert page.tags.count("source") == 5


def test_trained_architectures_come_with_their_confidence(run: tuple[Path, Space]) -> None:
    folder, _ = run
    page = Page(folder / "report.html")
    evaluation = pd.read_csv(folder / "evaluation.csv")
    for row in evaluation.to_dict("records"):
        assert f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f} %" in page.sections["trained"]
    best = evaluation["accuracy"].max()
    assert f"The best result after training is {100 * best:.2f} ±" in page.text


def test_the_summary_says_what_was_ranked_and_what_failed(run: tuple[Path, Space]) -> None:
    folder, space = run
    page = Page(folder / "report.html")
    ranking = pd.read_csv(folder / "ranking.csv")
    n_failed = int((ranking["status"] != "ok").sum())
    assert f"{len(ranking)} architectures of {space.name}" in page.text
    assert "5‑way 1‑shot learning on omniglot, by condition number and trace." in page.text
    assert n_failed > 0
    assert f"{n_failed} could not be scored and rank last." in page.text
    for status, n in ranking.loc[ranking["status"] != "ok", "status"].value_counts().items():
        assert f"{str(status).replace('_', ' ')} · {n}" in page.sections["failures"]


def test_the_manifest_and_the_command_are_shown(run: tuple[Path, Space]) -> None:
    folder, space = run
    page = Page(folder / "report.html")
    command = f"metantk-nas search --space {space.name} --data omniglot --out results/{folder.name}"
    assert command in page.sections["reproduce"]
    for text in ("versions.torch", "2.13.0", "spec.inner_time", "git_commit", "0123456789abcdef"):
        assert text in page.sections["manifest"]


@pytest.mark.usefixtures("without_plots")
def test_reasons_that_differ_in_numbers_only_are_told_once(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, 300, trained=False)
    page = Page(write_report(folder, cells))
    assert page.sections["failures"].count("below the rounding error") == 1
    assert "(the numbers differ)" in page.sections["failures"]


def test_a_run_without_training_has_no_section_on_it(new_run: MakeRun, cells: Space) -> None:
    page = Page(write_report(new_run(cells, trained=False), cells))
    assert "trained" not in page.sections
    assert "after training" not in page.text
    assert page.tags.count("img") == 3


def test_a_run_in_which_all_failed_still_gets_a_report(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, trained=False)
    failed = {"status": "no_path", "reason": "no path", "score": float("nan"), "rank": 1}
    change(folder, "ranking.csv", lambda frame: frame.assign(**failed))
    page = Page(write_report(folder, cells))
    assert "None could be scored." in page.text
    assert set(page.sections) >= {"failures", "manifest"}
    assert not {"ranking", "plots", "cells"} & set(page.sections)


def test_a_run_of_one_candidate_gets_a_report(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, 1, trained=False)
    change(folder, "ranking.csv", lambda frame: frame.assign(rank_low=None, rank_high=None))
    page = Page(write_report(folder, cells))
    assert page.tags.count("svg") == 1
    assert "interval" not in page.sections["ranking"], "nothing is known of one repeat"
    assert "standard deviation" not in page.sections["ranking"]
    assert f"1 architecture of {cells.name} was ranked" in page.text
    assert "plots" not in page.sections


@pytest.mark.usefixtures("without_plots")
def test_hostile_text_is_shown_and_never_obeyed(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells)
    set_manifest(folder, command=HOSTILE, spec={"data": HOSTILE, HOSTILE: HOSTILE})
    last = lambda frame: frame.assign(reason=frame["reason"].mask(frame["status"] != "ok", HOSTILE))  # noqa: E731
    change(folder, "ranking.csv", last)
    change(folder, "ranking.csv", lambda frame: frame.assign(arch=HOSTILE))
    change(folder, "evaluation.csv", lambda frame: frame.assign(learner=HOSTILE))
    page = Page(write_report(folder, cells))
    assert page.tags.count("script") == 1
    assert "alert" not in page.script
    for section in ("ranking", "cells", "failures", "manifest", "reproduce", "trained"):
        assert HOSTILE in page.sections[section]


@pytest.mark.usefixtures("without_plots")
def test_an_architecture_outside_the_space_is_named_and_not_drawn(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells)
    change(folder, "evaluation.csv", lambda frame: frame.assign(arch="conv4", rank=None).head(1))
    page = Page(write_report(folder, cells))
    assert "conv4" in page.sections["trained"]
    assert "not in the ranking" in page.sections["cells"]
    assert "Not drawn:" in page.sections["cells"]


@pytest.mark.usefixtures("without_plots")
def test_a_manifest_without_any_known_key_is_enough(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells)
    set_manifest(folder, unheard_of=[1, 2])
    page = Page(write_report(folder, cells))
    assert "by condition number and trace" in page.text
    assert "The command was not recorded." in page.text
    assert "unheard_of" in page.sections["manifest"]


def test_a_large_ranking_keeps_the_page_small(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, 400, trained=False)
    rows = pd.read_csv(folder / "ranking.csv", keep_default_na=False)
    many = pd.concat([rows.assign(key=rows["key"] + f"-{copy}") for copy in range(40)]).sort_values("rank")
    many.to_csv(folder / "ranking.csv", index=False)
    assert len(many) > 15_000
    page = write_report(folder, cells)
    assert page.stat().st_size < 3e6
    assert Page(page).source.count("<tr hidden>") == LISTED - HEAD
    assert f"the best {LISTED} of" in Page(page).sections["ranking"]


def test_writing_again_replaces_the_report_and_leaves_nothing_else(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, 20, trained=False)
    first = write_report(folder, cells).read_bytes()
    files = sorted(folder.rglob("*"))
    assert write_report(folder, cells).read_bytes() == first
    assert sorted(folder.rglob("*")) == files


@pytest.mark.usefixtures("without_plots")
def test_a_table_that_lacks_columns_is_named(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells)
    change(folder, "evaluation.csv", lambda frame: frame.drop(columns=["accuracy", "ci95"]))
    with pytest.raises(RunError, match=r"evaluation\.csv lacks the columns accuracy, ci95"):
        write_report(folder, cells)
    (folder / "evaluation.csv").write_text("")
    with pytest.raises(RunError, match=r"cannot read .*evaluation\.csv: .* Delete it"):
        write_report(folder, cells)


def test_plots_that_cannot_be_written_are_an_error_that_names_the_place(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, trained=False)
    (folder / "plots").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write the plots to .*plots"):
        write_report(folder, cells)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, cells: Space) -> None:
    with pytest.raises(RunError, match=r"manifest\.json"):
        write_report(tmp_path, cells)


@pytest.mark.usefixtures("without_plots")
def test_what_was_measured_and_chosen_stands_in_columns(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, trained=False)
    change(folder, "ranking.csv", lambda frame: frame.assign(latency_ms=1.25, pareto=2, rank_naswot=3))
    page = write_report(folder, cells)
    shown = re.findall(r'<th class="number" data-column="(\w+)"', page.read_text())
    assert shown[2:] == ["score", "condition_number", "trace", "pareto", "params", "macs", "latency_ms"]
    more = re.findall(r'<th class="number extra" data-column="(\w+)"', page.read_text())
    assert set(more) == {"adaptation_loss", "n_linear_regions", "seconds", "rank_naswot"}
    assert "latency [ms]" in Page(page).sections["ranking"], "the manifest is older than what it could say of it"


@pytest.mark.usefixtures("without_plots")
def test_columns_are_explained_by_the_manifest(new_run: MakeRun, cells: Space) -> None:
    folder = new_run(cells, trained=False)
    change(folder, "ranking.csv", lambda frame: frame.assign(latency_ms=1.25, nonsense=3.0))
    entry = {"description": "how <long> it takes", "higher_is_better": False, "unit": "ms"}
    set_manifest(folder, metrics={"latency_ms": entry})
    path = write_report(folder, cells)
    page = Page(path)
    assert "latency [ms] ↓" in page.sections["ranking"]
    assert "how <long> it takes, in ms; lower is better" in page.sections["ranking"]
    assert '<abbr title="how &lt;long&gt; it takes, in ms; lower is better">' in path.read_text()
    assert "how <long> it takes" not in page.sections["manifest"], "it is told once, beside the table"
