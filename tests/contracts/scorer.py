"""What every scorer promises; a scorer's own test file inherits this and names the scorer."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.rng import numpy_generator
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.registry import SCORERS
from metantk_nas.scorers.setup import KernelSettings, ScoringSetup
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from tests.contracts.space import draw
from tests.devices import OtherDevice
from tests.networks.chunks import SPACES, small

CPU = torch.device("cpu")
IN_ANOTHER_PROCESS = "from tests.contracts.scorer import all_findings; print(all_findings())"


def noise(name: str, n_images: int, *, n_channels: int = 3, size: int = 12) -> np.ndarray:
    """Images of one class: noise around a random picture."""
    rng = numpy_generator(0, "noise", name)
    picture = rng.integers(64, 192, (1, size, size, n_channels))
    return np.clip(picture + 40 * rng.standard_normal((n_images, size, size, n_channels)), 0, 255).astype(np.uint8)


@cache
def noise_dataset(n_classes: int = 8, n_images: int = 8, n_channels: int = 3) -> FewShotDataset:
    base = {f"class{i}": noise(f"class{i}", n_images, n_channels=n_channels) for i in range(n_classes)}
    return make_dataset("noise", {"base": base, "validation": {}, "novel": {}})


def make_setup(
    space: str | Space = "nas_bench_201",
    *,
    dataset: FewShotDataset | None = None,
    seed: int = 0,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    **kernel: Any,
) -> ScoringSetup:
    settings = KernelSettings(**{"n_way": 3, "n_episodes": 2} | kernel)
    space = small(space) if isinstance(space, str) else space
    return ScoringSetup(space, dataset or noise_dataset(), settings, seed, device, dtype)


def values(findings: Sequence[Finding]) -> list[dict[str, float]]:
    return [dict(finding.values) for finding in findings]


def assert_close(found: Sequence[Finding], expected: Sequence[Finding], rel: float = 1e-8) -> None:
    for first, second in zip(found, expected, strict=True):
        assert first.status == second.status
        assert dict(first.values) == pytest.approx(dict(second.values), rel=rel)


def all_findings() -> str:
    """Values of every scorer for two genotypes, every digit of them."""
    setup = make_setup(seed=3)
    return json.dumps({scorer.name: values(scorer(setup).score(draw(setup.space, 2), 1)) for scorer in SCORERS})


@cache
def findings_of_another_process() -> Mapping[str, list[dict[str, float]]]:
    environment = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


class ScorerContract:
    scorer: ClassVar[type[Any]]

    def make(self, **setup: Any) -> AbstractScorer:
        return self.scorer(make_setup(**setup))

    def chunk(self, space: str = "nas_bench_201", n: int = 4) -> list[Genotype]:
        return draw(small(space), n, seed=1)

    @pytest.mark.parametrize("space", SPACES)
    def test_a_finding_for_each_genotype_has_the_declared_metrics(self, space: str) -> None:
        findings = self.make(space=space).score(self.chunk(space), 0)
        declared = {metric.name for metric in self.scorer.metrics}
        assert len(findings) == 4
        for finding in findings:
            assert (finding.status, finding.reason) == ("ok", "")
            assert finding.values.keys() == declared
            assert all(type(value) is float and math.isfinite(value) for value in finding.values.values())

    @pytest.mark.parametrize("space", SPACES)
    def test_a_finding_does_not_depend_on_the_chunk(self, space: str) -> None:
        """In float64: in float32 a unit that rounding alone switches on or off moves a kernel of four channels."""
        scorer, chunk = self.make(space=space, dtype=torch.float64), self.chunk(space)
        together = scorer.score(chunk, 0)
        assert_close([scorer.score([genotype], 0)[0] for genotype in chunk], together)
        assert_close(scorer.score(chunk[::-1], 0), together[::-1])
        assert len({tuple(found.values()) for found in values(together)}) > 1

    def test_a_device_finds_what_the_processor_finds(self, other_device: OtherDevice) -> None:
        setup: dict[str, Any] = {"space": "darts_fewshot", "dtype": torch.float64}
        chunk = self.chunk(setup["space"], n=2)
        with other_device() as device:
            found = self.make(**setup, device=device).score(chunk, 0)
        assert_close(found, self.make(**setup).score(chunk, 0))

    def test_a_genotype_twice_in_a_chunk_is_found_twice(self) -> None:
        first, second = self.chunk(n=2)
        findings = self.make().score([first, second, first], 0)
        assert_close(findings[:1], findings[2:])

    def test_the_same_seed_finds_the_same_in_another_process(self) -> None:
        assert findings_of_another_process()[self.scorer.name] == json.loads(all_findings())[self.scorer.name]

    def test_repeats_and_seeds_differ(self) -> None:
        chunk = self.chunk(n=1)
        found = [
            values(self.make(seed=seed).score(chunk, repeat))[0] for seed, repeat in ((0, 0), (0, 1), (1, 0), (0, 0))
        ]
        assert found[0] == found[3]
        for metric in self.scorer.metrics:
            assert len({some[metric.name] for some in found}) == 3

    def test_scoring_twice_finds_the_same_and_leaves_no_trace(self) -> None:
        scorer, before = self.make(), torch.get_rng_state()
        first = scorer.score(self.chunk(), 0)
        scorer.score(self.chunk(n=2), 1)
        assert scorer.score(self.chunk(), 0) == first
        assert torch.equal(torch.get_rng_state(), before)

    def test_grey_images_do(self) -> None:
        (finding,) = self.make(dataset=noise_dataset(n_channels=1)).score(self.chunk(n=1), 0)
        assert finding.status == "ok"
