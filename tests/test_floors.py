"""The floors of the house hold, and light commands stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_imports_only_go_down():
    lint = pytest.importorskip("importlinter.cli", reason="import-linter is in the extra 'check'")
    assert lint.lint_imports(config_filename=str(ROOT / "setup.cfg"), no_cache=True) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["search", "--help"], ["spaces"], ["spaces", "darts"], ["spaces", "nowhere"], ["searchers"]],
)
def test_light_commands_import_no_torch(arguments):
    code = (
        "import sys\n"
        "from metantk_nas.cli.app import app\n"
        "try:\n"
        "    app(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.exit(3 if 'torch' in sys.modules else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_torch():
    code = "import sys, metantk_nas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
