"""Run files: what `init` writes, `search --config` reads."""

import inspect
import re
import tomllib
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from metantk_nas.cli import runs
from metantk_nas.cli.app import app
from metantk_nas.cli.run_file import format_run_file, read_run_file, settings_of
from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import SearchSpec, TrainSpec

SETTINGS = settings_of(runs.search)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def searched(monkeypatch, tmp_path):
    """The specs with which a search was begun, each with its directory; nothing is searched."""
    seen = []

    def remember(spec, out, **_):
        seen.append((spec, out))
        raise UsageError("seen enough")

    monkeypatch.setattr("metantk_nas.experiment.scoring.search", remember)
    monkeypatch.chdir(tmp_path)
    return seen


def test_init_writes_every_setting_with_its_default_and_its_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("init")
    assert done.exit_code == 0
    assert "metantk-nas search --config run.toml" in done.stdout
    text = (tmp_path / "run.toml").read_text()
    assert tomllib.loads(text) == {}
    for spec, renamed in ((SearchSpec, {}), (TrainSpec, {"n_query": "train_query"})):
        for field in fields(spec):
            assert re.search(rf"^#{renamed.get(field.name, field.name)} = ", text, re.MULTILINE), field.name
    assert "# Re-initialisations, each with its own episodes.\n#repeats = 3\n" in text
    assert "One of maml, anil." in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_defaults_that_stand_there_are_those_of_the_command():
    text = format_run_file(SETTINGS, "run.toml")
    stated = "\n".join(line[1:] for line in text.splitlines() if re.match(r"#\w+ = ", line) and not capitals(line))
    parameters = inspect.signature(runs.search).parameters
    found = tomllib.loads(stated)
    assert len(found) > 25
    assert found == {name: parameters[name].default for name in found}
    assert all(parameters[name].default is None for name in SETTINGS.keys() - found)


def capitals(line):
    """Whether a word in capitals stands where a default would."""
    return re.search(r"= (\"?[A-Z]+\"?|\{ NAME = VALUE \})$", line)


def test_an_existing_file_is_never_overwritten(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("budget = 3\n")
    done = run("init", mine)
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert mine.read_text() == "budget = 3\n"
    assert run("init", tmp_path / "new" / "run.toml").exit_code == 0


def test_a_search_takes_its_settings_from_the_file(searched, tmp_path):
    (tmp_path / "run.toml").write_text(
        'space = "nas_bench_201"\nn_way = 4\ninner_time = 2\nrotations = true\nmax_params = "2M"\nmax_macs = 5000\n'
        'searcher = "evolution"\nsearcher_settings = { population = 8, generation = 4 }\n'
        'metrics = ["naswot", "params"]\n'
        'adaptation = "anil"\nout = "results/mine"\n'
    )
    run("search", "--config", "run.toml")
    ((spec, out),) = searched
    assert (spec.space, spec.n_way, spec.inner_time, spec.rotations) == ("nas_bench_201", 4, 2.0, True)
    assert (spec.max_params, spec.max_macs, spec.metrics) == (2_000_000, 5000, "naswot,params")
    assert spec.searcher_settings == {"population": 8, "generation": 4}
    assert (spec.adaptation, spec.n_shot, str(out)) == ("anil", 1, "results/mine")


def test_options_win_over_the_file_and_the_file_over_a_preset(searched, tmp_path):
    (tmp_path / "run.toml").write_text('preset = "metantk-nas-2022-anil"\nspace = "darts"\nrepeats = 7\nseed = 3\n')
    run("search", "--config", "run.toml", "--seed", "0", "--inner-reg", "0.5")
    ((spec, _),) = searched
    assert (spec.space, spec.repeats, spec.seed, spec.inner_reg) == ("darts", 7, 0, 0.5)
    assert (spec.n_cells, spec.adaptation, spec.inner_time) == (8, "anil", 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_wya = 3", r"setting 'n_wya' not found.*Did you mean 'n_way'"),
        ("n_way = 'five'", r"n_way is 'five'; expected a whole number"),
        ("n_way = 2.5", r"n_way is 2.5; expected a whole number"),
        ("n_way = true", r"n_way is True; expected a whole number"),
        ("rotations = 1", r"rotations is 1; expected true or false"),
        ("adaptation = 'anli'", r"adaptation is 'anli'; expected one of maml, anil"),
        ("space = 3", r"space is 3; expected a text"),
        ("inner_reg = 'small'", r"expected a number"),
        ("max_params = 2.5", r"expected a number such as 200000, or a text such as '2M'"),
        ("searcher_settings = 'population=3'", r"expected a table of settings"),
        ("[search]\nn_way = 3", r"setting 'search' not found"),
        ("n_way = five", r"cannot read the run file .*line 1"),
        ("#init_channels = N\ninit_channels = N", r"cannot read the run file .*line 2"),
        ("as_json = true", r"setting 'as_json' not found"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong_in_it(text, message, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_run_file(path, SETTINGS)
    assert "run.toml" in str(caught.value)


def test_the_command_line_tells_of_a_bad_or_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    for name in ("run.toml", "nowhere.toml"):
        done = run("search", "--config", name)
        assert done.exit_code == 2
        assert f"cannot read the run file {name}" in done.stderr
        assert "Traceback" not in done.output
