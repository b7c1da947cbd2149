import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

Abroad = Callable[..., list[Tensor]]


@pytest.fixture(scope="session")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abroad]:
    """Runs an exported file in a process that cannot import this package, and gives its outputs."""
    folder = tmp_path_factory.mktemp("abroad")
    script = Path(__file__).with_name("stranger.py")
    with subprocess.Popen(
        [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    ) as process:

        def run(
            path: Path, inputs: dict[str, Tensor], *, weights: dict[str, Tensor] | Path | None = None
        ) -> list[Tensor]:
            torch.save(inputs, folder / "inputs.pt")
            if isinstance(weights, dict):
                torch.save(weights, folder / "weights.pt")
            job = {"path": str(path), "inputs": str(folder / "inputs.pt"), "outputs": str(folder / "outputs.pt")}
            job["weights"] = str(weights if isinstance(weights, Path) else folder / "weights.pt")
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            trouble = json.loads(process.stdout.readline())
            assert trouble is None, trouble
            return torch.load(folder / "outputs.pt", weights_only=True)

        yield run
        process.stdin.close()
