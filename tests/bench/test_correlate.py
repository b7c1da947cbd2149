import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from metantk_nas.bench.agreement import STATISTICS, paired_difference
from metantk_nas.bench.correlate import Scores, correlate, read_scores, write_correlation
from metantk_nas.bench.truth import Truth, read_truth
from metantk_nas.errors import UsageError
from metantk_nas.networks.cost import CostModel
from metantk_nas.report.correlation import draw_agreement, draw_points
from metantk_nas.report.plots import LIGHT
from metantk_nas.report.words import fixed
from metantk_nas.results import make_ranking
from metantk_nas.rng import python_generator
from metantk_nas.scorers.registry import PRESETS
from metantk_nas.spaces.space import Space
from metantk_nas.store import Candidate
from metantk_nas.types import Score

N = 60
FEW = 30  # resamples
PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = "<script>alert('x')</script>"
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture(scope="module")
def archs(cells: Space) -> list[str]:
    """Connected cells, one of each key."""
    rng = python_generator(0, "genotypes")
    found: dict[str, str] = {}
    while len(found) < N:
        genotype = cells.sample(rng)
        if cells.is_connected(genotype):
            found.setdefault(cells.key(genotype), cells.format(genotype))
    return list(found.values())


@pytest.fixture
def truth(cells: Space, archs: list[str]) -> Truth:
    return truth_of(cells, archs, np.random.default_rng(0).permutation(N) / N)


def truth_of(space: Space, archs: list[str], accuracies: np.ndarray) -> Truth:
    keys = [space.key(space.parse(arch)) for arch in archs]
    rows = pd.DataFrame({"arch": archs, "key": keys, "truth": accuracies, "index": np.arange(len(archs)) * 3.0})
    return Truth("truth.csv", "accuracy_5shot", rows)


def write(folder: Path, frame: pd.DataFrame, name: str = "scores.csv") -> Path:
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / name, index=False)
    return folder / name


def write_ranking(folder: Path, space: Space, archs: list[str], truth: Truth, *, failed: int = 0) -> Path:
    """A run whose condition number foretells the truth and whose trace does not; the best cells failed."""
    accuracy = truth.rows.set_index("arch")["truth"]
    candidates, scores = [], []
    for place, arch in enumerate(archs):
        key = space.key(space.parse(arch))
        candidates.append(Candidate(place, arch, key, arch, params=100 + place, macs=1000 + place % 7))
        values = {"condition_number": 9 - accuracy[arch] ** 3, "trace": float(place % 5)}
        bad = accuracy[arch] > 1 - failed / N - 1e-9
        scores.append(Score(key, 0, "kernel", values, *(("singular", "λmin is 0") if bad else ())))
    folder.mkdir()
    make_ranking(candidates, scores, PRESETS["metantk"], 0).save(folder / "ranking.csv")
    return folder


def row_of(correlation, score: str) -> pd.Series:
    return correlation.table.set_index("score").loc[score]


def test_a_ranking_is_held_against_the_truth_beside_params_and_macs(cells, archs, truth, tmp_path: Path) -> None:
    run = write_ranking(tmp_path / "run", cells, archs, truth)
    correlation = correlate(truth, [read_scores(run, cells)], cells, n_resamples=FEW)
    table = correlation.table.set_index("score")
    assert set(table.index) == {"rank", "condition_number", "trace", "params", "macs"}
    assert list(table["kendall"]) == sorted(table["kendall"], reverse=True)
    assert table.loc["condition_number", "kendall"] == 1
    assert not table.loc["condition_number", "higher_is_better"]
    assert not table.loc["rank", "higher_is_better"]
    assert table["baseline"].to_dict() == {name: name in ("params", "macs") for name in table.index}
    values = truth.rows["truth"].to_numpy()
    assert table.loc["params", "kendall"] == pytest.approx(kendalltau(range(N), values).statistic)
    assert table.loc["trace", "kendall"] == pytest.approx(kendalltau([i % 5 for i in range(N)], values).statistic)
    for name in STATISTICS:
        assert (table[f"{name}_low"] <= table[f"{name}_high"]).all()
    assert set(table["n"]) == {N}
    assert set(table["top_k"]) == {10}


def test_candidates_that_could_not_be_scored_come_last(cells, archs, truth, tmp_path: Path) -> None:
    run = write_ranking(tmp_path / "run", cells, archs, truth, failed=6)
    correlation = correlate(truth, [read_scores(run / "ranking.csv", cells)], cells, n_resamples=FEW)
    row = row_of(correlation, "condition_number")
    assert row["n_missing"] == 6
    assert row["n"] == N
    best = truth.rows["truth"].max()
    assert row["regret"] == pytest.approx(best - sorted(truth.rows["truth"])[-7])
    assert row_of(correlation, "rank")["n_missing"] == 0
    assert row_of(correlation, "params")["n_missing"] == 0


def test_a_lead_over_the_best_baseline_is_paired(cells, archs, truth, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).normal(size=(2, N))
    values = truth.rows["truth"].to_numpy()
    frame = pd.DataFrame(
        {"arch": archs, "good": values + 0.2 * noise[0], "params": values + noise[1], "macs": noise[0]}
    )
    scores = read_scores(write(tmp_path, frame), cells)
    correlation = correlate(truth, [scores], cells, n_resamples=FEW, seed=3)
    assert correlation.best_baseline == "params"
    row = row_of(correlation, "good")
    known = correlation.compared["truth"]
    ours, theirs = correlation.scores["good"], correlation.scores["params"]
    difference = paired_difference(ours, theirs, known, n_resamples=FEW, seed=3)
    assert (row["over_baseline"], row["over_baseline_low"]) == (difference.value, difference.low)
    assert np.isnan(row_of(correlation, "macs")["over_baseline"])


def test_directions_come_from_our_metrics_or_from_a_minus_sign(cells, archs, tmp_path: Path) -> None:
    names = ["naswot", "condition_number", "rank_metantk", "loss", "seed", "naswot_sd"]
    path = write(tmp_path, pd.DataFrame({"arch": archs, **dict.fromkeys(names, 1.0)}))
    found = read_scores(path, cells).directions
    assert found == {"naswot": True, "condition_number": False, "rank_metantk": False, "loss": True}
    assert read_scores(path, cells, ["-loss", "naswot"]).directions == {"loss": False, "naswot": True}
    with pytest.raises(UsageError, match=r"score in scores\.csv 'los' not found.*Did you mean 'loss'"):
        read_scores(path, cells, ["los"])
    with pytest.raises(UsageError, match=r"'loss' of .* is named twice"):
        read_scores(path, cells, ["loss", "-loss"])


def test_params_and_macs_are_counted_where_no_file_has_them(cells, archs, truth, tmp_path: Path) -> None:
    path = write(tmp_path, pd.DataFrame({"arch": archs, "score": range(N)}))
    correlation = correlate(truth, [read_scores(path, cells)], cells, n_resamples=FEW)
    cost = CostModel(cells, n_outputs=10, in_channels=3, image_size=32)
    for key, row in correlation.scores.iterrows():
        counted = cost.live(cells.parse(correlation.compared.loc[key, "arch"]))
        assert (row["params"], row["macs"]) == (counted.params, counted.macs)
    sized = Truth(truth.name, truth.column, truth.rows.assign(params=7.0, macs=range(N)))
    measured = correlate(sized, [read_scores(path, cells)], cells, n_resamples=FEW)
    assert set(measured.scores["params"]) == {7.0}
    assert np.isnan(row_of(measured, "params")["kendall"])


def test_sizes_of_keys_alone_cannot_be_counted(cells, archs, truth, tmp_path: Path) -> None:
    nameless = Truth(truth.name, truth.column, truth.rows.assign(arch=""))
    path = write(tmp_path, pd.DataFrame({"key": truth.rows["key"], "score": range(N)}))
    with pytest.raises(UsageError, match="size cannot be counted; add a column arch, or columns params and macs"):
        correlate(nameless, [read_scores(path, cells)], cells, n_resamples=FEW)


def test_baselines_may_name_cells_by_their_index(cells, archs, truth, tmp_path: Path) -> None:
    path = write(tmp_path, pd.DataFrame({"index": np.arange(N)[::-1] * 3, "proxy": np.arange(N)}))
    baseline = read_scores(path, cells, truth=truth, baseline=True)
    scores = read_scores(write(tmp_path, pd.DataFrame({"arch": archs, "ours": range(N)}), "ours.csv"), cells)
    correlation = correlate(truth, [scores, baseline], cells, n_resamples=FEW)
    assert row_of(correlation, "proxy")["baseline"]
    assert (correlation.scores["proxy"] + correlation.scores["ours"] == N - 1).all()
    with pytest.raises(UsageError, match=r"scores\.csv names architectures by index; expected a truth with"):
        read_scores(path, cells)


def test_only_what_every_file_has_is_compared(cells, archs, truth, tmp_path: Path) -> None:
    ours = write(tmp_path, pd.DataFrame({"arch": archs[5:], "ours": range(N - 5)}), "ours.csv")
    theirs = pd.DataFrame({"arch": archs[:-7], "theirs": [np.nan, *range(N - 8)]})
    theirs.loc[20, "theirs"] = np.nan
    both = [read_scores(ours, cells), read_scores(write(tmp_path, theirs, "theirs.csv"), cells)]
    correlation = correlate(truth, both, cells, n_resamples=FEW)
    assert sorted(correlation.compared["arch"]) == sorted(archs[5:-7])
    assert set(correlation.table["n"]) == {N - 12}
    assert row_of(correlation, "theirs")["n_missing"] == 1
    assert correlation.n_truth == N


def test_scores_of_one_name_are_told_apart_by_their_files(cells, archs, truth, tmp_path: Path) -> None:
    first = write_ranking(tmp_path / "first", cells, archs, truth)
    second = write_ranking(tmp_path / "second", cells, archs, truth, failed=9)
    both = [read_scores(first, cells), read_scores(second, cells)]
    correlation = correlate(truth, both, cells, n_resamples=FEW)
    names = set(correlation.table["score"])
    assert {"first/rank", "second/rank", "first/trace", "params", "macs"} <= names
    assert not row_of(correlation, "second/condition_number")["higher_is_better"]
    assert row_of(correlation, "first/condition_number")["n_missing"] == 0
    assert row_of(correlation, "second/condition_number")["n_missing"] == 9
    with pytest.raises(UsageError, match="two files of scores are called first"):
        correlate(truth, [both[0], both[0]], cells, n_resamples=FEW)


def test_cells_of_one_function_count_once_by_key_and_each_by_architecture(cells, tmp_path: Path) -> None:
    middle = ["nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect"]
    dead_ends = ["none", "skip_connect"]  # whether they reach the middle node, which reaches nothing
    archs = [f"|{a}~0|+|{b}~0|none~1|+|none~0|{c}~1|none~2|" for a in middle for c in middle[:2] for b in dead_ends]
    truth = truth_of(cells, archs, np.arange(16.0))
    first_of_each = pd.DataFrame({"arch": archs[::2], "score": np.arange(8.0)})
    scores = read_scores(write(tmp_path, first_of_each), cells)
    by_key = correlate(truth, [scores], cells, n_resamples=FEW)
    assert set(by_key.table["n"]) == {8}
    assert sorted(by_key.compared["truth"]) == list(np.arange(0.5, 16, 2))
    assert row_of(by_key, "score")["kendall"] == 1
    by_arch = correlate(truth, [scores], cells, unit="arch", n_resamples=FEW)
    assert set(by_arch.table["n"]) == {16}
    assert list(by_arch.scores.loc[archs, "score"]) == [place // 2 for place in range(16)]
    own = read_scores(write(tmp_path, pd.DataFrame({"arch": archs, "score": np.arange(16.0)})), cells)
    assert list(correlate(truth, [own], cells, unit="arch", n_resamples=FEW).scores.loc[archs, "score"]) == [*range(16)]


def test_dead_cells_are_left_out_unless_asked_for(cells, archs, truth, tmp_path: Path) -> None:
    with_dead = truth_of(cells, [*archs, DEAD], np.append(truth.rows["truth"], -1.0))
    scores = read_scores(write(tmp_path, pd.DataFrame({"arch": [*archs, DEAD], "score": range(N + 1)})), cells)
    assert set(correlate(with_dead, [scores], cells, n_resamples=FEW).table["n"]) == {N}
    everything = correlate(with_dead, [scores], cells, connected_only=False, n_resamples=FEW)
    assert set(everything.table["n"]) == {N + 1}


def test_a_sample_depends_on_the_seed_and_the_cells_alone(cells, archs, truth, tmp_path: Path) -> None:
    frame = pd.DataFrame({"arch": archs, "score": range(N)})
    scores = read_scores(write(tmp_path, frame), cells)
    backwards = read_scores(write(tmp_path, frame[::-1], "backwards.csv"), cells)
    drawn = [
        set(correlate(truth, [each], cells, sample=20, seed=seed, n_resamples=FEW).compared.index)
        for each, seed in ((scores, 0), (backwards, 0), (scores, 1))
    ]
    assert len(drawn[0]) == 20
    assert drawn[0] == drawn[1] != drawn[2]


def test_nothing_to_compare_is_said(cells, archs, truth, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no scores"):
        correlate(truth, [], cells)
    strangers = Scores("other", pd.DataFrame({"key": ["0"], "arch": [""], "score": [1.0]}), {"score": True})
    with pytest.raises(UsageError, match="0 architectures have a truth and all scores; expected at least 3"):
        correlate(truth, [strangers], cells)
    with pytest.raises(UsageError, match=r"cannot read .*absent\.csv as CSV"):
        read_scores(tmp_path / "absent.csv", cells)


def test_real_proxies_stand_beside_each_other(cells, data_folder: Path) -> None:
    truth = read_truth(data_folder / "nas_bench_201_cifar10.csv", cells)
    peers = read_scores(data_folder / "nas_bench_201_peer_proxies.csv", cells, truth=truth, baseline=True)
    correlation = correlate(truth, [peers], cells, sample=300, n_resamples=FEW)
    assert len(correlation.table) == 15
    assert correlation.table["baseline"].all()
    assert 0.5 < row_of(correlation, "cifar10_nwot")["kendall"] < 0.7
    assert row_of(correlation, "params")["kendall"] == pytest.approx(
        row_of(correlation, "cifar10_params")["kendall"], abs=0.02
    )


class Page(HTMLParser):
    """Tags, links and text of a page; complains about tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "srcset")]
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def written(cells: Space, archs: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("correlation")
    truth = truth_of(cells, archs, np.random.default_rng(0).permutation(N) / N)
    rows = pd.concat([truth.rows.assign(seed=0), truth.rows.assign(seed=1)])
    truth = Truth(HOSTILE, "accuracy_5shot", rows)
    values = truth.rows["truth"].to_numpy()[:N]
    noise = np.random.default_rng(1).normal(size=N)
    frame = pd.DataFrame({"arch": archs, HOSTILE: values + 0.3 * noise, "condition_number": noise, "flat": 0.0})
    scores = read_scores(write(folder, frame), cells)
    correlation = correlate(truth, [scores], cells, n_resamples=FEW)
    paths = write_correlation(folder / "out", correlation, ["metantk-nas", "bench", "correlate", HOSTILE])
    assert [path.name for path in paths] == ["correlation.csv", "correlation.png", "correlation.html"]
    return folder / "out", correlation.table


def test_the_table_is_written_as_it_was_measured(written) -> None:
    folder, table = written
    found = pd.read_csv(folder / "correlation.csv")
    pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=1e-5)
    assert (folder / "correlation.png").read_bytes().startswith(PNG)


def test_the_page_needs_no_network_and_obeys_no_text(written) -> None:
    page = Page(written[0] / "correlation.html")
    assert "script" not in page.tags
    assert {link for link in page.links if not link.startswith("data:image/png;base64,")} == {"correlation.csv"}
    assert not re.search(r"@import|url\(", page.source)
    assert page.text.count(HOSTILE) >= 3


def test_the_page_tells_every_statistic_and_the_best_score(written) -> None:
    folder, table = written
    page = Page(folder / "correlation.html")
    for row in table.to_dict("records"):
        for name in STATISTICS:
            assert fixed(row[name]) in page.text
    best = table[~table["baseline"]].iloc[0]
    assert f"with a Kendall τ of {fixed(best['kendall'])} (95 % interval {fixed(best['kendall_low'])}" in page.text
    assert "difference to the best baseline" in page.text
    assert f"Two trainings with different seeds of {N} architectures of the truth agree with a τ of 1.000" in page.text
    assert "condition number ↓" in page.text
    assert "metantk-nas bench correlate" in page.text
    for heading in ("nDCG@10", "recall@10", "regret@10"):
        assert heading in page.text


def test_a_place_that_cannot_be_written_is_named(cells, archs, truth, tmp_path: Path) -> None:
    scores = read_scores(write(tmp_path, pd.DataFrame({"arch": archs, "score": range(N)})), cells)
    correlation = correlate(truth, [scores], cells, n_resamples=FEW)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot write .*correlation\.csv"):
        write_correlation(tmp_path / "out", correlation)
    (tmp_path / "taken" / "correlation.png").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cannot write .*correlation\.png"):
        write_correlation(tmp_path / "taken", correlation)


def test_bars_stand_in_the_order_of_the_table_and_baselines_apart() -> None:
    table = pd.DataFrame({"score": ["a", "b", "c"], "higher_is_better": [True, False, True], "n": 50})
    table["baseline"], table["kendall"] = [False, True, False], [0.5, -0.2, np.nan]
    table["kendall_low"], table["kendall_high"] = table["kendall"] - 0.1, table["kendall"] + 0.1
    axes = draw_agreement(table, "accuracy", LIGHT).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b ↓"]
    assert [bar.get_width() for bar in axes.patches] == [0.5, -0.2]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    assert [text.get_text().strip() for text in axes.texts] == ["0.50", "−0.20"]
    assert "50 architectures" in axes.get_xlabel()


def test_a_plot_of_scores_leaves_out_what_is_not_finite() -> None:
    points = pd.DataFrame({"x": [1.0, np.inf, 100.0, np.nan], "y": [1.0, 2.0, 3.0, 4.0]})
    axes = draw_points(points, ("score ↓", "accuracy"), LIGHT).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[1.0, 1.0], [100.0, 3.0]]
    assert axes.get_xscale() == "log"
    assert draw_points(points.iloc[[1, 3]], ("x", "y"), LIGHT).axes[0].get_xlabel() == "x"
