"""A process that has PyTorch, but not this package: it runs exported files as others would.

Reads jobs from stdin, one JSON object a line, and answers each on stdout with ``null`` or what went wrong.
"""

import importlib.util
import json
import sys
import traceback
from typing import Any

import torch
from torch import Tensor

sys.modules["metantk_nas"] = None  # type: ignore[assignment]  # from now on `import metantk_nas` fails


def run_source(path: str, weights: str, images: Tensor) -> list[Tensor]:
    """Features and logits of a Python file, with weights from a state dict; in 64 bits if they are."""
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Network()
    state = torch.load(weights, weights_only=True)
    network.to(next(iter(state.values())).dtype).load_state_dict(state)
    network.eval()
    if hasattr(module, "normalise"):
        images = module.normalise(images)
    return [network.features(images), network(images)]


def run(job: dict[str, Any]) -> None:
    """Run one exported file on the inputs of a job."""
    inputs = torch.load(job["inputs"], weights_only=True)
    with torch.no_grad():
        if job["path"].endswith(".py"):
            outputs = run_source(job["path"], job["weights"], **inputs)
        else:
            outputs = [torch.export.load(job["path"]).module()(**inputs)]
    torch.save(outputs, job["outputs"])


for line in sys.stdin:
    trouble = None
    try:
        run(json.loads(line))
    except Exception:  # whatever it is, the test shows it
        trouble = traceback.format_exc()
    sys.stdout.write(json.dumps(trouble) + "\n")
    sys.stdout.flush()
