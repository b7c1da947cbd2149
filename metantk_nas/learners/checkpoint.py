"""What a training run leaves on disk: a checkpoint to go on from, and a learning curve to look at."""

import csv
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from metantk_nas.errors import RunError

CHECKPOINT_FILE, CURVE_FILE = "checkpoint.pt", "curve.csv"
ZIP = b"PK\x03\x04"
"""How the files of ``torch.save`` begin."""


@dataclass(frozen=True)
class CurvePoint:
    """One row of a learning curve, written at every validation.

    Args:
        episode: training episodes so far.
        train_loss: mean loss of the training episodes since the row before.
        train_accuracy: their mean query accuracy, in [0, 1]; NaN in regression.
        validation_accuracy: mean accuracy on the fixed validation episodes; NaN in regression, and without any.
        validation_error: mean squared error on them; NaN in classification, and without any.
        validation_ci: half-width of the 95 % confidence interval of either.
        seconds: time spent training and validating so far, interruptions not counted.
    """

    episode: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_error: float
    validation_ci: float
    seconds: float


CURVE_COLUMNS = tuple(field.name for field in fields(CurvePoint))


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Args:
        fingerprint: what the run is; another run must not continue it.
        model: state of the model.
        optimiser: state of the outer optimiser.
        best_model: state of the model at the best validation.
        curve: one row a validation; its last row says where the run stands.
    """

    fingerprint: str
    model: dict[str, Any]
    optimiser: dict[str, Any]
    best_model: dict[str, Any]
    curve: list[CurvePoint]


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and its curve; a crash in between leaves the checkpoint before."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {**vars(checkpoint), "curve": [astuple(point) for point in checkpoint.curve]}
    save_atomically(content, directory / CHECKPOINT_FILE)
    _write_curve(directory / CURVE_FILE, checkpoint.curve)


def read_checkpoint(directory: Path, fingerprint: str) -> Checkpoint | None:
    """Read the checkpoint of a directory; None if there is none.

    Raises:
        RunError: the checkpoint belongs to another run, or cannot be read.
    """
    path = directory / CHECKPOINT_FILE
    if not path.exists():
        return None
    content = load_safely(path, "a training checkpoint", ("fingerprint", "model", "optimiser", "best_model", "curve"))
    if content["fingerprint"] != fingerprint:
        raise RunError(
            f"{path} belongs to another run ({content['fingerprint']}) than this one ({fingerprint}): the learner, its "
            "settings, the seed, the architecture or the data differ. Choose another directory, or remove the file."
        )
    return Checkpoint(**{**content, "curve": [CurvePoint(*row) for row in content["curve"]]})


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values with ``torch.save``, under a temporary name that replaces the file at once."""
    unfinished = path.with_name(path.name + ".tmp")
    torch.save(content, unfinished)
    os.replace(unfinished, path)


def load_safely(path: Path, what: str, keys: Sequence[str]) -> dict[str, Any]:
    """Read what `save_atomically` wrote, tensors and plain values only: nothing in the file is executed.

    Raises:
        RunError: the file cannot be read, or lacks one of ``keys``.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP)) != ZIP:  # PyTorch unpacks its oldest form, tar archives, to wherever they say
                raise ValueError("it is no zip archive")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes a stranger sent, the unpickler fails in its own way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{path} is not {what} that can be read: {reason}") from error
    missing = [key for key in keys if key not in content] if isinstance(content, dict) else list(keys)
    if missing:
        raise RunError(f"{path} is not {what}: it lacks {', '.join(missing)}.")
    return {key: content[key] for key in keys}


def _write_curve(path: Path, curve: Sequence[CurvePoint]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CURVE_COLUMNS)
        writer.writerows(astuple(point) for point in curve)
