"""The script benchmarks/choose_preset.py, on runs that are made up."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from metantk_nas.results import make_ranking, write_json
from metantk_nas.rng import python_generator
from metantk_nas.scorers.registry import METRICS, PRESETS, asked_for
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Score

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "choose_preset.py"
N = 40

Choose = Callable[..., Path]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("choose_preset", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "choose_preset", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def choose(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Runs the script; gives the folder that it wrote."""

    def run(*words: str) -> Path:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--out", str(tmp_path / "out")])
        script.main()
        return tmp_path / "out"

    return run


def write_run(folder: Path, space: Space, *, noise: float, name: str | None = None) -> Path:
    """A run of two repeats whose condition number tells the truth but for noise, and whose trace tells nothing."""

    def scale(value: float) -> float:
        return float(np.exp((value + noise * rng.normal()) / 50))

    rng, sampler = np.random.default_rng(int(noise * 100)), python_generator(0, "cells")
    archs = dict.fromkeys(space.format(space.sample(sampler)) for _ in range(4 * N))
    cells = {space.key(space.parse(arch)): arch for arch in archs if space.is_connected(space.parse(arch))}
    cells = dict(list(cells.items())[:N])
    candidates = [
        Candidate(place, arch, key, arch, 100 + place % 9, 50) for place, (key, arch) in enumerate(cells.items())
    ]
    scores = [
        Score(key, repeat, "kernel", {"condition_number": scale(99 - place), "trace": float(np.exp(rng.normal()))})
        for place, key in enumerate(cells)
        for repeat in range(2)
    ]
    folder.mkdir()
    make_ranking(candidates, scores, PRESETS["metantk"], 0).save(folder / "ranking.csv")
    with ScoreStore(folder / "scores.sqlite", {}) as store:
        store.put(scores)
    write_json(folder / "manifest.json", {"spec": {"space": name or space.name}})
    truth = pd.DataFrame({"arch": list(cells.values()), "accuracy_5shot": np.arange(N) / 100})
    truth.to_csv(folder.with_suffix(".csv"), index=False)
    return folder


def test_the_better_of_two_settings_is_chosen_and_everything_is_written(
    cells: Space, choose: Choose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (write_run(tmp_path / name, cells, noise=noise) for name, noise in (("good", 1.0), ("bad", 50.0)))
    words = ["--scores", f"anil={good}", "--scores", f"maml={bad}", "--truth", f"rfs={good}.csv", "--splits", "4"]
    out = choose(*words, "--max-parts", "2", "--opposite", "trace", "--candidate", "~maml/trace", "--stability")
    held_out = pd.read_csv(out / "held_out.csv").set_index("rule")
    assert held_out.loc["chosen", "kendall"] > 0.8
    assert held_out.loc["chosen", "wins"] == 1
    assert held_out.loc["chosen", "lift"] > 10  # points
    assert {"params", "macs", "best_baseline", "anil/metantk", "maml/condition_number"} <= set(held_out.index)
    assert "metantk-nas" not in " ".join(held_out.index)  # no run has linear regions
    assert set(pd.read_csv(out / "parts.csv")["part"]) == {"anil/condition_number"}
    whole = pd.read_csv(out / "all_cells.csv").set_index("rule")
    assert whole.loc["chosen", "kendall"] == whole.loc["anil/condition_number", "kendall"]
    assert whole.loc["~maml/trace", "baseline"] in ("params", "macs")
    stable = pd.read_csv(out / "stability.csv").set_index("rule")["spearman"]
    assert stable["anil/condition_number"] > 0.9 > stable["maml/condition_number"]
    shown = capsys.readouterr().out
    assert (out / "summary.txt").read_text() == shown.removesuffix("\n")
    assert "chosen on all cells: anil/condition_number" in shown
    assert sorted(path.stem for path in out.iterdir()) == sorted(
        ["summary", "held_out", "splits", "chosen", "combinations", "parts", "all_cells", "stability"]
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_measured_in_their_own_directions(script: ModuleType, name: str) -> None:
    columns = {metric: metric if metric in ("params", "macs") else f"anil/{metric}" for metric in METRICS}
    directions = {columns[metric]: known.higher_is_better for metric, known in METRICS.items()}
    signed = [
        (asked_for(part).replace(part.name, columns[part.name]), part.higher_is_better)
        for part in PRESETS[name].metrics
    ]
    for rule in (
        script.make_rule(name, directions, "log_rank_sum"),
        script.fixed_rules([name], directions)[f"anil/{name}"],
    ):
        assert [(metric.name, metric.higher_is_better) for metric in rule.metrics] == signed
        assert (rule.combine, rule.breaks_ties) == (PRESETS[name].combine, PRESETS[name].breaks_ties)


def test_a_truth_goes_with_the_space_that_can_read_it(cells: Space, choose: Choose, tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", cells, noise=1.0)
    second = write_run(tmp_path / "second", load_space("darts_fewshot"), noise=2.0)
    words = ["--scores", str(first), "--scores", str(second), "--truth", f"a={first}.csv:accuracy_5shot"]
    out = choose(*words, "--truth", f"b={second}.csv", "--splits", "2", "--sample", "30", "--max-parts", "1")
    held_out = pd.read_csv(out / "held_out.csv").set_index(["truth", "rule"])["kendall"]
    assert held_out["(mean)", "chosen"] == pytest.approx((held_out["a", "chosen"] + held_out["b", "chosen"]) / 2)
    assert "b: 30 cells of darts_fewshot, 0 of them without all scores" in (out / "summary.txt").read_text()


def test_parts_are_those_asked_for_and_the_form_holds_for_candidates(
    cells: Space, choose: Choose, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", cells, noise=5.0)
    words = ["--scores", str(run), "--truth", f"a={run}.csv", "--splits", "2", "--require", "condition_number,trace"]
    words += ["--leave-out", "macs", "--combine", "log_rank_sum", "--candidate", "condition_number,params"]
    out = choose(*words)
    assert "parts: condition_number, trace, params\n" in (out / "summary.txt").read_text()
    held_out = pd.read_csv(out / "held_out.csv")
    assert "condition_number,params [log_rank_sum]" in set(held_out["rule"])
    chosen = pd.read_csv(out / "chosen.csv")
    assert (chosen["n_compared"] == 2).all()
    assert set(chosen["rule"]) == {"condition_number, trace"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--truth", "nothing"], "expected NAME=PATH"),
        (["--truth", "a=RUN.csv", "--require", "naswot"], "required part 'naswot' not found"),
        (
            ["--truth", "a=RUN.csv", "--scores", "RUN"],
            "condition_number, trace stand in several runs; give them labels",
        ),
        (["--truth", "a=RUN.csv:nowhere"], "belongs to none of the spaces.*'nowhere' not found"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    cells: Space, choose: Choose, tmp_path: Path, words: list[str], message: str
) -> None:
    run = write_run(tmp_path / "run", cells, noise=1.0)
    with pytest.raises(SystemExit, match=message):
        choose("--scores", str(run), *(word.replace("RUN", str(run)) for word in words))
