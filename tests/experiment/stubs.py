"""A workbench whose only scorer is a stub, so that a test of the engine costs milliseconds."""

import random

from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.registry import METRICS
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.store import Candidate
from tests.small_search import SMALL


class StubScorer(AbstractScorer):
    """Knows every candidate's parameters, and keeps in mind what it was asked."""

    name = "kernel"
    metrics = (METRICS["condition_number"], METRICS["trace"])

    def __init__(self, bench, fails=lambda chunk: None):
        self.bench, self.fails, self.chunks = bench, fails, []

    def score(self, architectures, repeat):
        self.chunks.append(list(architectures))
        if error := self.fails(architectures):
            raise error
        found = [float(self.bench.cost(each).params) for each in architectures]
        return [Finding({"condition_number": value, "trace": value + repeat}) for value in found]


def stub_bench(fails=lambda chunk: None, **settings):
    bench = Workbench.of(SearchSpec(**{**SMALL, "device": "cpu", **settings}))
    scorer = StubScorer(bench, fails)
    vars(bench)["scorers"] = [scorer]
    return bench, scorer


def genotypes(bench, n, seed=0) -> list[Genotype]:
    """Draw some, each with a key of its own."""
    rng = random.Random(seed)
    drawn = {}
    while len(drawn) < n:
        genotype = bench.space.sample(rng)
        drawn.setdefault(bench.space.key(genotype), genotype)
    return list(drawn.values())


def candidates(bench, drawn) -> list[Candidate]:
    space = bench.space
    found = []
    for position, genotype in enumerate(drawn):
        cost = bench.cost(genotype)
        representative = space.format(space.representative(genotype))
        texts = space.format(genotype), space.key(genotype), representative
        found.append(Candidate(position, *texts, cost.params, cost.macs))
    return found
