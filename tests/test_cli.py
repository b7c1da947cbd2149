"""The command line as a person meets it: lists, errors that teach, exit codes, JSON."""

import errno
import json
import re
import subprocess
import sys
from importlib import metadata

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from metantk_nas.cli import screen
from metantk_nas.cli.app import app
from metantk_nas.errors import UsageError
from metantk_nas.scorers.registry import PRESETS
from tests.small_search import SMALL, command


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def flags(**more):
    return [text for name, value in {**SMALL, **more}.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["spaces"], ["darts_fewshot", "15,625"]),
        (["spaces", "darts"], ["1,037,664,180", "1806.09055"]),
        (["datasets"], ["glyphs", "omniglot", "cifar_fs", "folder"]),
        (["searchers"], ["random", "exhaustive", "evolution", "population=32", "pruning", "2203.09137"]),
        (["learners"], ["maml", "anil", "kernel", "protonet", "rfs"]),
        (["metrics"], ["condition_number", "naswot", "metantk-nas", "n_linear_regions"]),
    ],
)
def test_lists_name_everything(words, expected, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(*words)
    assert done.exit_code == 0
    assert all(text in done.stdout for text in expected)
    parsed = json.loads(run(*words, "--json").stdout)
    assert len(parsed) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "--space", "dart"], "Did you mean 'darts'"),
        (["search", "--data", "omniglott"], "Did you mean 'omniglot'"),
        (["search", "--rank-by", "condition_nmber"], "Did you mean 'condition_number'"),
        (["search", "--train-top", "1", "--learner", "protonett"], "Did you mean 'protonet'"),
        (["search", "--train-top", "1", "--set", "inner_lr"], "expected NAME=VALUE"),
        (["search", "--searcher", "evolutoin"], "Did you mean 'evolution'"),
        (["search", "--searcher", "evolution", "--searcher-set", "popsize=3"], "available: generation, population"),
        (["search", "--searcher", "evolution", "--searcher-set", "population"], "--searcher-set population=32"),
        (["search", "--searcher", "pruning", "--max-params", "1M"], "cannot keep --max-params"),
        (["search", "--preset", "metantk-nas-2022", "--budget", "3"], "cannot keep --budget"),
        (["search", "--preset", "metantk-nas"], "Did you mean 'metantk-nas-2022'"),
        (["search", "--pareto", "params"], "at least two"),
        (["train", "--arch", "conv4", "--data", "sine"], "do not fit; expected --arch mlp with --data sine"),
        (["train", "--arch", "mlp", "--data", "glyphs"], "do not fit"),
        (["train", "--arch", "mlp", "--data", "sine", "--learner", "rfs"], "rfs' classifies"),
        (
            ["train", "--arch", "conv4", "--learner", "maml", "--train-way", "9"],
            "leave --train-way out, or use one of r2d2",
        ),
        (["search", "--train-top", "1", "--train-way", "61"], "60"),
        (["search", "--ranks", "metantk,metantknas"], "Did you mean 'metantk-nas'"),
        (["bench", "build", "--protocol", "rsf"], "Did you mean 'rfs'"),
        (["bench", "build", "--sample", "0"], "--sample is 0"),
        (["bench", "correlate", "run", "--truth", "nowhere"], "no truth at nowhere"),
        (["search", "--repeats", "0"], "--repeats is 0"),
        (["search", "--device", "cuda:99"], "does not see"),
        (["search", "--max-params", "many"], "200K or 2M"),
        (["search", "--n-way", "61"], "60"),
        (["search", "--searcher", "exhaustive", "--space", "darts"], "--searcher random"),
        (["score", "|nor_conv_3x3~0|", "--space", "nas_bench_201"], "node"),
        (["train"], "either the directory of a search or --arch"),
        (["train", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["spaces", "./missing.toml"], "missing.toml"),
        (["search", "--bugdet", "3"], "--budget"),
    ],
)
def test_bad_input_teaches_and_exits_with_2(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not list(tmp_path.rglob("ranking.csv"))


def test_the_version_is_shown(monkeypatch):
    assert run("--version").stdout.startswith("metantk-nas ")
    monkeypatch.setattr("metantk_nas.cli.app.metadata.version", missing)
    assert "not installed" in run("--version").stdout


def missing(name):
    raise metadata.PackageNotFoundError(name)


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("search", "--space", "dart", "--debug")
    assert done.exit_code == 1
    assert "dart" in str(done.exception)


def test_search_prints_the_best_and_where_everything_is(tmp_path):
    out = tmp_path / "run"
    done = run("search", *flags(out=out, budget=4))
    assert done.exit_code == 0, done.output
    assert "Best: |" in done.stdout
    assert str(out / "ranking.csv") in done.stdout.replace("\n", "")
    assert str(out / "report.html") in done.stdout.replace("\n", "")
    assert run("report", out).exit_code == 0


@pytest.mark.parametrize(("columns", "shown"), [("80", 2), ("90", 3), ("200", 4)])
def test_a_narrow_terminal_shows_fewer_metrics_and_all_of_each(columns, shown, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    done = run("search", *flags(out=tmp_path / "run", budget=4))
    (heading,) = (line for line in done.stdout.splitlines() if "condition_number" in line)
    names = [name.strip() for name in heading.strip("┃").split("┃")]
    rule = [metric.name for metric in PRESETS["few-shot"].metrics]
    assert names[: 1 + shown] == ["rank", *rule[:shown]]
    assert "params" in names
    assert "arch" in names


def test_the_pareto_front_is_printed_and_is_in_the_json(tmp_path):
    words = ["search", *flags(out=tmp_path / "run", budget=6), "--pareto", "params,score"]
    assert "Pareto front of params, score" in run(*words).stdout
    found = json.loads(run(*words, "--json").stdout)
    assert found["front"]
    assert all(row["pareto"] == 1 for row in found["front"])


def test_options_that_are_given_win_over_the_preset_also_where_they_repeat_a_default(monkeypatch, tmp_path):
    seen = []

    def remember(spec, out, **_):
        seen.append((spec, out))
        raise UsageError("seen enough")

    monkeypatch.setattr("metantk_nas.experiment.scoring.search", remember)
    monkeypatch.chdir(tmp_path)
    run("search", "--preset", "metantk-nas-2022-anil", "--space", "darts", "--inner-reg", "1e-3")
    ((spec, out),) = seen
    assert (spec.space, spec.inner_reg) == ("darts", 1e-3)
    assert (spec.searcher, spec.n_cells, spec.adaptation, spec.inner_time) == ("pruning", 8, "anil", 1.0)
    assert str(out) == "results/metantk-nas-2022-anil-glyphs-seed0"


def test_json_goes_to_stdout_and_progress_to_stderr(tmp_path):
    done = subprocess.run([*command(tmp_path / "run", budget=4), "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["top"]) <= 4
    assert found["top"][0]["rank"] == 1
    assert "scoring: 4 of 4, after " in done.stderr


def test_a_log_is_told_once_a_minute_how_far_work_has_got_and_where_it_ended(monkeypatch, capfd):
    clock = iter([0.0, 30.0, 60.0, 61.0, 180.0, 181.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.progress_bars() as report:
        for done in (100, 110, 140, 150, 260):
            report("scoring", done, 500)
        report("reading", 7, 0)
        clock = iter([190.0])
    assert capfd.readouterr().err.splitlines() == [
        "scoring: 140 of 500, after 60.0 s, about 9 min 0 s left",
        "scoring: 260 of 500, after 3 min 0 s, about 4 min 30 s left",
        "reading: 7, after 9.00 s",
    ]


def test_what_has_ended_is_not_said_to_last_as_long_as_the_rest(monkeypatch, capfd):
    clock = iter([0.0, 20.0, 20.0, 50.0, 55.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.progress_bars() as report:
        for label, done in (("drawing", 1), ("drawing", 3), ("scoring", 0), ("scoring", 2)):
            report(label, done, 3)
    assert capfd.readouterr().err.splitlines() == [
        "drawing: 3 of 3, after 20.0 s",
        "scoring: 2 of 3, after 35.0 s, about 17.5 s left",
    ]


def test_what_is_left_does_not_depend_on_workers_that_finish_together(monkeypatch, capfd):
    """Two rows every ten minutes, the second a minute after the first: five minutes a row."""
    clock = iter([0.0, *(600.0 * pair + when for pair in range(10) for when in (540.0, 600.0))])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(screen, "duration", lambda seconds: f"{seconds:.0f} s")
    with screen.progress_bars() as report:
        for done in range(21):
            report("training", done, 48)
    lines = capfd.readouterr().err.splitlines()
    left = [int(line.removesuffix(" s left").rpartition("about ")[2]) for line in lines]
    assert left[7:] == [300 * (48 - done) for done in range(8, 21)]


def test_score_reads_texts_files_and_stdin(tmp_path):
    first = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    second = "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    third = "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    (tmp_path / "archs.txt").write_text(second + "\n\n")
    options = flags()
    options = options[: options.index("--budget")]
    done = run("score", first, tmp_path / "archs.txt", "-", *options, "--json", input=third + "\n")
    assert done.exit_code == 0, done.output
    assert {row["arch"] for row in json.loads(done.stdout)} == {first, second, third}


def test_train_of_one_architecture(tmp_path):
    words = ["--arch", "conv4", "--data", "glyphs", "--image-size", 16, "--train-budget", 20, "--eval-episodes", 10]
    done = run("train", *words, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["evaluation"][0]
    assert row["arch"] == "conv4"
    assert 0 <= row["accuracy"] <= 1
    assert (tmp_path / "run" / "plots" / "learning_curves.png").exists()


def test_train_on_sine_waves(tmp_path):
    words = ["--arch", "mlp", "--data", "sine", "--learner", "kernel", "--n-shot", 10, "--train-budget", 60]
    done = run("train", *words, "--eval-episodes", 10, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["evaluation"][0]
    assert row["mse"] > 0
    assert "accuracy" not in row
    assert (tmp_path / "run" / "plots" / "learning_curves.png").exists()
    assert "10-shot regression" in run("train", *words, "--eval-episodes", 10, "--out", tmp_path / "run").stdout


def test_bench_builds_a_table_and_compares_scores_with_it(tmp_path):
    small = ["--data", "glyphs", "--image-size", 16, "--init-channels", 4, "--n-cells", 3, "--device", "cpu"]
    words = ["--sample", 4, "--train-budget", 3, "--eval-episodes", 4, "--eval-query", 5]
    done = run("bench", "build", *small, *words, "--out", tmp_path / "table", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [row["position"] for row in rows] == [-1, 0, 1, 2, 3]
    again = run("bench", "build", *small, *words, "--out", tmp_path / "table")
    assert "The best and the worst of 5 trainings" in again.stdout
    archs = [row["arch"] for row in rows[1:]]
    run("score", *archs, *small, "--space", "nas_bench_201", "--repeats", 1, "--out", tmp_path / "run")
    options = ["--truth", tmp_path / "table", "--scores", "condition_number,-trace", "--out", tmp_path / "found"]
    done = run("bench", "correlate", tmp_path / "run", *options, "--json")
    assert done.exit_code == 0, done.output
    found = {row["score"]: row for row in json.loads(done.stdout)["scores"]}
    assert set(found) == {"condition_number", "trace", "params", "macs"}
    assert not found["trace"]["higher_is_better"]
    assert all(row["n"] == 4 for row in found.values())
    shown = run("bench", "correlate", tmp_path / "run", *options).stdout
    assert "Agreement over 4 architectures" in shown
    assert "different seeds" not in shown
    assert (tmp_path / "found" / "correlation.html").exists()
    run("bench", "build", *small, *words, "--out", tmp_path / "table", "--train-seed", 1)
    shown = run("bench", "correlate", tmp_path / "run", *options).stdout
    assert "Two trainings with different seeds of 4 architectures of the truth agree with a τ of" in shown


def test_bench_correlate_takes_the_space_from_the_run(tmp_path):
    small = ["--image-size", 16, "--init-channels", 4, "--n-cells", 3, "--repeats", 1, "--device", "cpu"]
    search = ["search", "--space", "darts_fewshot", "--rank-by", "params,macs", "--budget", 4]
    run(*search, *small, "--out", tmp_path / "run")
    ranking = pd.read_csv(tmp_path / "run" / "ranking.csv")
    ranking.assign(accuracy=[0.4, 0.3, 0.2, 0.1])[["arch", "accuracy"]].to_csv(tmp_path / "truth.csv", index=False)
    options = ["--truth", tmp_path / "truth.csv", "--out", tmp_path / "found"]
    done = run("bench", "correlate", tmp_path / "run" / "ranking.csv", *options)
    assert "Agreement over 4 architectures" in done.stdout
    refused = run("bench", "correlate", tmp_path / "run", *options, "--space", "nas_bench_201")
    assert refused.exit_code == 2
    assert "is not about nas_bench_201" in refused.output


def test_bench_correlate_leaves_a_manifest_alone_that_is_not_a_run_s(tmp_path):
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    cells = [f"|{op}~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|" for op in ops]
    pd.DataFrame({"arch": cells, "mine": range(4), "accuracy": range(4)}).to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "manifest.json").write_text('{"name": "a page of the web"}', encoding="utf-8")
    options = ["--column", "accuracy", "--unit", "arch", "--out", tmp_path / "found"]
    path = tmp_path / "scores.csv"
    done = run("bench", "correlate", path, "--scores", "mine", "--truth", path, *options)
    assert done.exit_code == 0, done.output
    assert "Agreement over 4 architectures" in done.stdout
    (size,) = (line for line in done.stdout.splitlines() if "[params]" in line)
    assert size.count("–") == 5, "the four cells have the same size, so it agrees with nothing"


def every_command(group=None, words=()):
    """Words of every command and sub-command, the program itself first."""
    group = group or get_command(app)
    yield words
    for name, member in getattr(group, "commands", {}).items():
        yield from every_command(member, (*words, name))


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_help_speaks_in_words(words, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    help_text = run(*words, "--help").stdout
    assert max(map(len, help_text.splitlines())) <= int(columns)
    types = re.findall(r"<(?:str|int|float|path|bool|list)\b.*?>|list\[|\bPath\b|Optional", help_text)
    assert not types, "names of Python's types say nothing to a newcomer"


def test_python_m_works():
    done = subprocess.run([sys.executable, "-m", "metantk_nas", "--help"], capture_output=True, text=True, check=True)
    assert "search" in done.stdout


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "model.pt"))

    monkeypatch.setattr("metantk_nas.experiment.scoring.search", no_space)
    done = run("search", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "no space is left" in done.stderr
    assert "Traceback" not in done.output
