"""What README tells a newcomer to type does work, in the order it is told, with README alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from metantk_nas.cli.app import app
from tests.newcomer import write_belongings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    write_belongings(folder, 1200)
    (toml,) = blocks("toml")
    (folder / "mine.toml").write_text(toml, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_tour_works(workplace):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) == 11
    for line in commands:
        done = subprocess.run(
            line, shell=True, cwd=workplace, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    mine = pd.read_csv(workplace / "results" / "mine" / "ranking.csv", keep_default_na=False, na_values=[""])
    assert len(mine) == 8
    assert (mine["status"] == "ok").any()
    assert mine["arch"].str.startswith("Genotype(normal=").all()


def run_example(code, folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_example_works(workplace):
    assert run_example(blocks("python")[0], workplace).startswith(f"{1_037_664_180**2}")


@pytest.mark.slow
def test_the_example_of_every_adapter_works(workplace):
    for library in ("optuna", "ConfigSpace", "mlflow", "sqlalchemy"):
        pytest.importorskip(library, reason=f"{library} is in the extra 'all'")
    _, code = blocks("python")
    arch, accuracy = run_example(code, workplace).splitlines()[-1].split(" ")
    assert arch.startswith("|")
    assert float(accuracy) > 0.5


def test_every_command_and_option_in_readme_exists():
    known = get_command(app).commands
    for name, rest in re.findall(r"metantk-nas (\w+)([^\n`]*)", README):
        assert name in known, name
        command, options = known[name], rest
        if hasattr(command, "commands"):
            inner, _, options = rest.strip().partition(" ")
            command = command.commands[inner] if inner else command
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", options)) <= flags, (name, options)
