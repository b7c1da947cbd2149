"""One seed, many independent streams: every use of chance has a name.

A stream is named by the run's seed and a path of names, such as ``("init", "stem.conv.weight")``.
Drawing from one stream never shifts another, so results depend neither on the order of the work
nor on how it was split.
"""

import hashlib
import random

import numpy as np


def child_seed(seed: int, *path: str | int) -> int:
    """Seed of the stream ``path`` under ``seed``: 63 bits, equal in every process and on every machine."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def python_generator(seed: int, *path: str | int) -> random.Random:
    """Generator of the standard library for the stream ``path``."""
    return random.Random(child_seed(seed, *path))  # noqa: S311 - sampling architectures, not secrets


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """NumPy generator for the stream ``path``."""
    return np.random.default_rng(child_seed(seed, *path))
