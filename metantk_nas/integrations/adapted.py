"""A learner that has adapted to a support set, to be kept, copied and pickled."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from metantk_nas.learners.base import Predictor
from metantk_nas.learners.saved import TrainedLearner


@dataclass(frozen=True, eq=False)
class Adapted:
    """A learner and the support set that it has adapted to; pickles without the predictor, which is made again.

    Args:
        trained: the learner, in 64 bits, so that predictions do not depend on the rows beside a row.
        support: normalised images ``[support, channel, height, width]``.
        labels: int64 ``[support]``.
        n_way: number of classes.
    """

    trained: TrainedLearner
    support: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    n_way: int

    @cached_property
    def predictor(self) -> Predictor:
        """From images to logits."""
        return self.trained.adapt(self.support, self.labels, self.n_way)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "predictor"}
