"""A network as JSON: its space, cells, texts and size; read back without trusting what it says."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from metantk_nas.errors import MetaNTKError, RunError
from metantk_nas.export.subject import Subject
from metantk_nas.learners.registry import learner_name
from metantk_nas.learners.saved import NetworkSpec
from metantk_nas.networks.build import is_baseline
from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.load import build_space
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.text import write_cell, write_cells

FORMAT, VERSION = "metantk-nas network", 1
MAX_BYTES = 1_000_000
MAX_SIZE = 100_000
"""Largest number of outputs, channels or pixels that a file may ask for."""


def to_record(subject: Subject) -> dict[str, Any]:
    """Describe a network in plain values; weights are not part of it."""
    space, genotype, spec = subject.space, subject.genotype, subject.spec
    params, macs = count(subject)
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "arch": subject.arch,
        "network": {
            "n_outputs": spec.n_outputs,
            "in_channels": spec.in_channels,
            "image_size": spec.image_size,
            "norm": subject.norm,
        },
        "params": params,
        "macs": macs,
    }
    if space is not None and genotype is not None:
        record |= {
            "key": space.key(genotype),
            "cells": dict(genotype.cells),
            "texts": texts(space, genotype),
            "space": _document(space),
        }
    if subject.trained is not None:
        trained = subject.trained
        settings = asdict(trained.learner)  # type: ignore[call-overload]  # learners are dataclasses
        record["learner"] = {
            "name": learner_name(trained.learner),
            "settings": {name: _plain(value) for name, value in settings.items()},
            "mean": list(trained.mean),
            "std": list(trained.std),
        }
    return record


def record_text(record: Mapping[str, Any]) -> str:
    """Write a description as JSON; an edge stands on one line."""
    text = json.dumps(record, indent=2, allow_nan=False)
    return re.sub(r'\[\s+("\w+"),\s+(\d+)\s+\]', r"[\1, \2]", text) + "\n"


def read_record(path: Path) -> tuple[NetworkSpec, NormKind]:
    """Read what a JSON export says a network is built from, and its normalisation.

    Raises:
        RunError: the file is not such an export; the message says what is wrong with it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"it has more than {MAX_BYTES:,} bytes")
        return _read(json.loads(path.read_bytes()))
    except (MetaNTKError, OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise RunError(
            f"{path} is not a network that `metantk-nas export … --format json` wrote: {reason.rstrip('.')}."
        ) from error


def read_genotype(path: Path) -> tuple[Space, Genotype]:
    """Read the space and the cells of a JSON export.

    Raises:
        RunError: the file is not such an export, or that of a network without cells.
    """
    spec, _ = read_record(path)
    if spec.space is None:
        raise RunError(f"{path} describes {spec.arch}, which is not made of cells; expected a genotype of a space.")
    return spec.space, spec.space.parse(spec.arch)


def texts(space: Space, genotype: Genotype) -> dict[str, str]:
    """Write a genotype as papers do: DARTS's text of all cells, and NAS-Bench-201's of each."""
    cells = {
        f"nas_bench_201{'' if len(genotype.cells) == 1 else f'_{cell_type}'}": write_cell(cell)
        for cell_type, cell in genotype.cells
    }
    return {"darts": write_cells(genotype, space.concat), **cells}


def count(subject: Subject) -> tuple[int, int]:
    """Count parameters, and multiply–accumulates of convolutions and linear layers for one image."""
    images, macs = subject.images(2), []  # two, because statistics of one image may not exist

    def add(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        weight: Any = layer.weight
        macs.append(weight.numel() * math.prod(output.shape[2:]))

    layers = [module for module in subject.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        subject.network(images)
    for hook in hooks:
        hook.remove()
    return sum(parameter.numel() for parameter in subject.network.parameters()), sum(macs)


def _document(space: Space) -> dict[str, Any]:
    """Describe a space in the keys of its TOML file."""
    skeleton = asdict(space.skeleton)
    return {
        "name": space.name,
        "description": space.description,
        "source": space.source,
        "cell": {
            "types": space.cell_types,
            "n_inputs": space.n_inputs,
            "n_nodes": space.n_nodes,
            "edges_per_node": space.edges_per_node or "all",
            "output": space.output,
            "ops": space.ops,
        },
        "skeleton": {**skeleton, "reduce_at": [f"{x.numerator}/{x.denominator}" for x in space.skeleton.reduce_at]},
    }


def _read(record: object) -> tuple[NetworkSpec, NormKind]:
    """Check a parsed file, and build what it describes."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RunError(f"expected an object whose format is {FORMAT!r}")
    if record.get("version") != VERSION:
        raise RunError(f"its version is {record.get('version')!r}; this package reads {VERSION}")
    arch, sizes = record.get("arch"), record.get("network")
    if not isinstance(arch, str) or not isinstance(sizes, dict):
        raise RunError("it lacks arch or network")
    numbers = {name: _size(name, sizes) for name in ("n_outputs", "in_channels", "image_size")}
    norm: Any = sizes.get("norm")
    if norm not in get_args(NormKind):
        raise RunError(f"its norm is {norm!r}; expected one of {', '.join(get_args(NormKind))}")
    space = None if is_baseline(arch) else _space(record, arch)
    return NetworkSpec(arch=arch, space=space, **numbers), norm


def _space(record: Mapping[str, Any], arch: str) -> Space:
    """Build the space, and check that the text and the cells say the same."""
    document = record.get("space")
    if not isinstance(document, dict):
        raise RunError("it lacks space")
    space = build_space(document)
    said = json.loads(json.dumps(dict(space.parse(arch).cells)))
    if record.get("cells") != said:
        raise RunError("arch and cells differ; after a change by hand, change both")
    return space


def _size(name: str, sizes: Mapping[str, Any]) -> int:
    value = sizes.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_SIZE:
        raise RunError(f"its {name} is {value!r}; expected a whole number from 1 to {MAX_SIZE:,}")
    return value


def _plain(value: object) -> object:
    """A setting as JSON has it: numbers that are not finite become strings."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
