"""What the shell offers when Tab is pressed, as Bash asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metantk_nas.cli import complete

PROGRAM = Path(sys.executable).with_name("metantk-nas")
installed = pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not installed beside this Python")


def press_tab(line: str, cwd: Path) -> list[str]:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_METANTK_NAS_COMPLETE": "complete_bash"}
    command = [str(PROGRAM)]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    return done.stdout.split()


@installed
def test_bash_is_offered_commands_options_and_names(tmp_path):
    assert press_tab("metantk-nas re", tmp_path) == ["report", "rerun"]
    assert "--train-top" in press_tab("metantk-nas search --tra", tmp_path)
    assert press_tab("metantk-nas search --space nas", tmp_path) == ["nas_bench_201"]


@installed
def test_completion_can_be_shown_and_installed(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [str(PROGRAM), "--show-completion", "bash"]
    shown = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "complete -o default -F" in shown.stdout
    words[1] = "--install-completion"
    subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    scripts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_METANTK_NAS_COMPLETE=complete_bash" in text for text in scripts)


def test_every_kind_of_name_is_completed():
    assert complete.spaces("darts") == ["darts", "darts_fewshot"]
    assert complete.presets("metantk-nas-2022-") == ["metantk-nas-2022-anil"]
    assert complete.searchers("evo") == ["evolution"]
    assert "metaoptnet" in complete.learners("meta")
    assert "glyphs" in complete.data("gl")
    assert complete.objectives("params,sco") == ["params,score"]
    assert complete.rank_presets("metantk,") == ["metantk,few-shot", "metantk,few-shot-nb201", "metantk,metantk-nas"]


def test_lists_are_completed_behind_the_last_comma_with_what_is_not_there_yet():
    assert complete.metrics("naswot,tra") == ["naswot,trace"]
    assert complete.metrics("trace,tra") == []
    assert "metantk" in complete.rules("")
    assert complete.rules("trace,metantk") == []


def test_spaces_and_data_may_be_files_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.toml", "mine.txt", "mine.zip"):
        (tmp_path / name).touch()
    (tmp_path / "minerals" / ".hidden").mkdir(parents=True)
    assert complete.spaces("mine") == ["mine.toml", "minerals/"]
    assert complete.data("mine") == ["mine.zip", "minerals/"]
    assert complete.data("minerals/") == []
    assert complete.data("minerals/.") == ["minerals/.hidden/"]
    assert complete.data("nowhere/") == []
