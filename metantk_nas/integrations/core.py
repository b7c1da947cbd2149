"""One architecture in, one row out: what every adapter stands on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.tasks import Item, Task, compute, give_up
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.results import aggregate, repeat_table
from metantk_nas.scorers.registry import METRICS
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
        recipe: what it works with is built by this, such as the parcel of a `Workbench`, and not loaded from files.
    """

    spec: SearchSpec
    recipe: Callable[[], Workbench] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was loaded; whoever unpickles it loads it again when it is called."""
        return {"spec": self.spec, "recipe": self.recipe}

    def packed(self) -> "ArchitectureScorer":
        """Return one that takes its images along, for machines that have no file of this one."""
        return replace(self, recipe=self._bench.parcel)

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
        row = aggregate(repeat_table(scores), METRICS).loc[key]
        scored_as = {"arch": space.format(genotype), "key": key}
        return {**scored_as, **dict(zip(row.index, row, strict=True)), **self.cost(genotype)}

    def cost(self, architecture: AnyArchitecture) -> dict[str, float]:
        """Count ``params`` and ``macs`` of an architecture, which costs next to nothing; time it where that is asked.

        Raises:
            GenotypeError: it is no architecture of the space.
        """
        genotype = self._read(architecture)
        cost = self._bench.cost.live(genotype)
        latency = self._bench.latencies.columns(genotype) if self.spec.wants_latency else {}
        return {"params": cost.params, "macs": cost.macs, **latency}

    def _read(self, architecture: AnyArchitecture) -> Genotype:
        if isinstance(architecture, str):
            return self.space.parse(architecture)
        if isinstance(architecture, Mapping):
            return decode(self.space, architecture)
        self.space.check(architecture)
        return architecture

    @cached_property
    def _bench(self) -> Workbench:
        return self.recipe() if self.recipe else Workbench.of(self.spec)
