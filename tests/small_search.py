"""A search small enough for a test."""

import sys
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "space": "nas_bench_201",
    "data": "glyphs",
    "init_channels": 4,
    "n_cells": 3,
    "image_size": 16,
    "repeats": 2,
    "n_episodes": 2,
    "budget": 12,
}


def command(out: Path, **more: Any) -> list[str]:
    """The same search on the command line."""
    options = {**SMALL, "out": out, **more}
    words = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "metantk_nas", "search", *words]
