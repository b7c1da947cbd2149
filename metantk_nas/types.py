"""Small value types that several floors of the package speak in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Adaptation = Literal["maml", "anil"]
OutputReduction = Literal["sum", "trace"]
Averaging = Literal["arithmetic", "geometric"]


@dataclass(frozen=True)
class EpisodeLayout:
    """How the rows of a Gram matrix fall into episodes: all query rows first, then all support rows.

    Within each part rows are grouped by episode, and every episode has the same numbers of rows.

    Args:
        n_episodes: episodes in the batch.
        n_support: support rows of one episode (``n_way * n_shot``).
        n_query_total: query rows of one episode (``n_way * n_query``).
    """

    n_episodes: int
    n_support: int
    n_query_total: int

    @property
    def n_query_rows(self) -> int:
        """Query rows of all episodes together."""
        return self.n_episodes * self.n_query_total

    @property
    def n_rows(self) -> int:
        """Rows of the whole Gram matrix."""
        return self.n_episodes * (self.n_query_total + self.n_support)

    def query(self, episode: int) -> slice:
        """Rows of the query images of one episode."""
        return slice(episode * self.n_query_total, (episode + 1) * self.n_query_total)

    def support(self, episode: int) -> slice:
        """Rows of the support images of one episode."""
        start = self.n_query_rows + episode * self.n_support
        return slice(start, start + self.n_support)


@dataclass(frozen=True)
class Metric:
    """One column of a ranking: its name, its direction and where it comes from.

    Args:
        name: column name, as in ``ranking.csv``.
        higher_is_better: direction; raw values are never sign-flipped.
        description: one line, for ``metantk-nas metrics`` and the reports.
        source: paper and equation, or the rule that defines it.
        averaging: how repeats are averaged. ``"geometric"`` suits positive values that differ by factors: the episodes
            of one repeat may double every condition number, and should weigh no more for it.
        unit: such as ``"ms"``; empty for a plain number.
    """

    name: str
    higher_is_better: bool
    description: str
    source: str
    averaging: Averaging = "arithmetic"
    unit: str = ""


Combine = Literal["rank_sum", "dense_rank_sum", "log_rank_sum"]
"""How ranks are added up, see `RankRule`."""


@dataclass(frozen=True)
class RankRule:
    """How a ranking is made: the metrics whose ranks are combined, best (smallest) sum first.

    Args:
        name: preset name, or the comma-separated metric list that was asked for.
        metrics: the parts, each ranked in its own direction; ties share a rank.
        combine: ``"rank_sum"`` adds ranks, ties sharing their mean; ``"dense_rank_sum"`` adds ranks that ties share
            without leaving a gap (1, 1, 2); ``"log_rank_sum"`` adds ``−ln((m + 1 − rank)/m)`` over m candidates, so
            that a bad rank in one part weighs more than a good rank in another.
        breaks_ties: the last metric is no part of the sum; it orders candidates whose sums of ranks are equal.

    Raises:
        ValueError: ties are to be broken of logarithms, or of a sum of nothing.
    """

    name: str
    metrics: tuple[Metric, ...]
    combine: Combine = "rank_sum"
    breaks_ties: bool = False

    def __post_init__(self) -> None:
        if self.breaks_ties and (self.combine == "log_rank_sum" or len(self.metrics) < 2):
            raise ValueError(f"rule {self.name!r}: only sums of ranks of at least one metric have ties to break")

    @property
    def tie_breaker(self) -> Metric | None:
        """The metric that only breaks ties."""
        return self.metrics[-1] if self.breaks_ties else None

    @property
    def summed(self) -> tuple[Metric, ...]:
        """The metrics whose ranks are summed."""
        return self.metrics[:-1] if self.breaks_ties else self.metrics

    @property
    def parts(self) -> str:
        """The metrics and their directions here, such as ``condition_number ↓ + naswot ↑, ties: trace ↑``."""
        summed = " + ".join(map(_directed, self.summed))
        return f"{summed}, ties: {_directed(self.tie_breaker)}" if self.tie_breaker else summed


def _directed(metric: Metric) -> str:
    return f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"


@dataclass(frozen=True)
class Score:
    """What one scorer found for one canonical key in one repeat.

    Args:
        key: canonical key of the architecture.
        repeat: index of the repeat (its own initialisation and episodes).
        scorer: name of the scorer.
        values: raw metric values by metric name; may be NaN where ``status`` is not ``"ok"``.
        status: ``"ok"``, or the name of what is wrong.
        reason: one sentence that explains a ``status`` other than ``"ok"``.
        seconds: wall-clock time spent, shared evenly by the members of a chunk.
    """

    key: str
    repeat: int
    scorer: str
    values: Mapping[str, float] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""
    seconds: float = 0.0
