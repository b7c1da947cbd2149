"""One architecture in, one row out: what every adapter stands on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.tasks import Item, Task, compute, give_up
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.results import aggregate, repeat_table
from metantk_nas.spaces.flat import decode
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space

AnyArchitecture = str | Genotype | Mapping[str, str]
"""An architecture as text, as an object, or as flat parameters (`metantk_nas.spaces.flat`)."""


@dataclass(frozen=True)
class ArchitectureScorer:
    """Scores one architecture at a time, the same row as a search with the same settings writes.

    It keeps nothing between calls but what it loaded, so it may be pickled, sent to another process and called there in
    any order.

    Args:
        spec: space, data, episodes, repeats, seed and metrics, as for a search; searcher and budget do not matter.
    """

    spec: SearchSpec

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was loaded; whoever unpickles it loads it again when it is called."""
        return {"spec": self.spec}

    @property
    def space(self) -> Space:
        """The search space, with the skeleton that is scored."""
        return self._bench.space

    def __call__(self, architecture: AnyArchitecture) -> dict[str, Any]:
        """Score an architecture.

        Returns:
            ``arch``, ``key``, ``status``, ``reason``, the mean over repeats and ``_sd`` of every metric, ``params``,
            ``macs`` and ``seconds``. Where the status is not ``"ok"`` metrics may be NaN.

        Raises:
            GenotypeError: it is no architecture of the space.
        """
        bench, space = self._bench, self._bench.space
        genotype = self._read(architecture)
        key, scored = space.key(genotype), space.format(space.representative(genotype))
        scores = []
        for repeat in range(self.spec.repeats):
            for scorer in bench.scorers:
                task = Task(scorer.name, repeat, (Item(key, scored, 1.0),))
                scores += compute(bench, task) or give_up(bench, task)
        row = aggregate(repeat_table(scores)).loc[key]
        cost = bench.cost(genotype)
        sizes = {"params": cost.params, "macs": cost.macs}
        return {"arch": space.format(genotype), "key": key, **dict(zip(row.index, row, strict=True)), **sizes}

    def _read(self, architecture: AnyArchitecture) -> Genotype:
        if isinstance(architecture, str):
            return self.space.parse(architecture)
        if isinstance(architecture, Mapping):
            return decode(self.space, architecture)
        self.space.check(architecture)
        return architecture

    @cached_property
    def _bench(self) -> Workbench:
        return Workbench.of(self.spec)
