from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from metantk_nas.errors import RunError
from metantk_nas.report.html import write_report
from metantk_nas.report.trajectory import read_trajectory
from metantk_nas.spaces.space import Space

COLUMNS = ["round", "cell_type", "node", "input", "op", "trace_change", "place", "pruned"]
TRIALS = pd.DataFrame(
    [
        (1, "cell", 0, 0, "nor_conv_1x1", -0.1, 1, True),
        (1, "cell", 0, 0, "nor_conv_3x3", 0.2, 2, False),
        (1, "cell", 0, 0, "skip_connect", 0.3, 3, False),
        (1, "cell", 1, 1, "avg_pool_3x3", 0.25, 1, True),
        (1, "cell", 1, 1, "nor_conv_3x3", None, 2, False),
        (2, "cell", 0, 0, "nor_conv_3x3", 0.031, 1, True),
        (2, "cell", 0, 0, "skip_connect", 0.5, 2, False),
        (2, "cell", 1, 1, "nor_conv_3x3", 0.5, 2, True),
    ],
    columns=COLUMNS,
)


def test_removals_are_sorted_by_edge_and_round() -> None:
    story = read_trajectory(TRIALS, n_inputs=1)
    assert story.n_rounds == 2
    first, second = story.edges
    assert (first.name, second.name) == ("cell in → 1", "cell 1 → 2")
    assert first.removed == [[("nor_conv_1x1", "trace −10 %")], [("nor_conv_3x3", "trace +3.1 %")]]
    assert first.left == ["skip_connect"]
    assert second.left == []


def test_a_pruning_run_tells_its_story_and_hostile_text_in_it_is_escaped(
    new_run: Callable[..., Path], cells: Space, without_plots: None
) -> None:
    folder = new_run(cells, 1, trained=False)
    TRIALS.replace("avg_pool_3x3", "<script>").to_csv(folder / "pruning.csv", index=False)
    page = write_report(folder, cells).read_text(encoding="utf-8")
    assert "Pruning tried 8 removals to find it." in page
    assert '<b class="op op-conv" title="nor_conv_3x3 removed: trace +3.1 %">conv 3×3</b>' in page
    assert "&lt;script&gt;" in page
    assert page.count("<script>") == 1


def test_a_malformed_table_is_an_error_that_names_it(new_run: Callable[..., Path], cells: Space) -> None:
    folder = new_run(cells, 1, trained=False)
    TRIALS.drop(columns="op").to_csv(folder / "pruning.csv", index=False)
    with pytest.raises(RunError, match=r"pruning\.csv lacks the columns op"):
        write_report(folder, cells)
    with pytest.raises(RunError, match=r"pruning\.csv is malformed"):
        read_trajectory(TRIALS.assign(node="first"), n_inputs=1)
