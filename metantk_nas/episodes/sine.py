"""Sine waves: the regression benchmark of meta-learning."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import DataError
from metantk_nas.rng import numpy_generator

SINE = "sine"
"""Name of this problem where data sets are named."""


@dataclass(frozen=True)
class SineWaves:
    """Episodes of sine waves ``y = a · sin(x + φ)`` (Finn et al. 2017, arXiv 1703.03400, section 5.1).

    Each episode is one wave: amplitude a from 0.1 to 5, phase φ from 0 to π, and x from −5 to 5, all uniform. Targets
    are real numbers, so learners minimise the squared error. The index-th episode is a pure function of seed, name,
    split and index.

    Args:
        split: ``"base"``, ``"validation"`` or ``"novel"``: which stream of waves.
        n_shot: support points.
        n_query: query points.
        seed: seed of the run.
        name: what the episodes are for; another name gives other episodes.

    Raises:
        DataError: fewer than one support or query point.
    """

    split: str
    n_shot: int
    n_query: int
    seed: int
    name: str = "episodes"

    def __post_init__(self) -> None:
        if self.n_shot < 1 or self.n_query < 1:
            raise DataError(f"a wave needs n_shot >= 1 and n_query >= 1; got {self.n_shot} and {self.n_query}.")

    def __call__(self, index: int) -> Episode:
        """The episode number ``index``, from 0: points ``[point, 1]`` and targets ``[point, 1]``, float32."""
        rng = numpy_generator(self.seed, self.name, "sine", self.split, index)
        amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, math.pi)
        points = torch.from_numpy(rng.uniform(-5.0, 5.0, (self.n_shot + self.n_query, 1)))
        support, query = points.tensor_split([self.n_shot])

        def wave(x: Tensor) -> Tensor:
            return (amplitude * torch.sin(x + phase)).float()

        return Episode(
            support.float(), wave(support), query.float(), wave(query), 1, (f"{amplitude:.2f}·sin(x + {phase:.2f})",)
        )
