"""Every learner by name, with its paper and one line."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from metantk_nas.errors import unknown_name
from metantk_nas.learners.anil import Anil
from metantk_nas.learners.base import AbstractLearner
from metantk_nas.learners.kernel import Kernel
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.protonet import ProtoNet
from metantk_nas.learners.rfs import Rfs
from metantk_nas.learners.trainer import TrainSettings


@dataclass(frozen=True)
class LearnerInfo:
    """One line about a learner, for ``metantk-nas learners``.

    Args:
        name: what it is called by.
        paper: who proposed it.
        description: what it does.
        factory: its class; the fields are its settings.
    """

    name: str
    paper: str
    description: str
    factory: type[AbstractLearner]

    @property
    def settings(self) -> dict[str, Any]:
        """Default settings of the method, by name."""
        return _defaults(self.factory)

    @property
    def train_settings(self) -> dict[str, Any]:
        """Default settings of the outer loop for this method, by name."""
        return {**_defaults(TrainSettings), **self.factory.train_defaults}


_INFOS = (
    LearnerInfo(
        "maml", "Finn et al. 2017, arXiv 1703.03400", "weights from which a few gradient steps solve a task", Maml
    ),
    LearnerInfo("anil", "Raghu et al. 2020, arXiv 1909.09157", "as maml, but only the head takes the steps", Anil),
    LearnerInfo(
        "kernel",
        "in the spirit of Park & Kang 2024, arXiv 2411.00404",
        "closed-form adaptation in function space with the feature kernel or the NTK",
        Kernel,
    ),
    LearnerInfo("protonet", "Snell et al. 2017, arXiv 1703.05175", "nearest class mean in feature space", ProtoNet),
    LearnerInfo(
        "rfs",
        "Tian et al. 2020, arXiv 2003.11539",
        "ordinary classification of all base classes, then logistic regression on frozen features",
        Rfs,
    ),
)
LEARNERS: Mapping[str, LearnerInfo] = {info.name: info for info in _INFOS}


def make_learner(name: str, **settings: Any) -> AbstractLearner:
    """Build a learner.

    Args:
        name: a key of `LEARNERS`.
        settings: fields of its class; the rest keep their defaults.

    Raises:
        UsageError: unknown learner, or unknown setting of it.
    """
    factory = _info(name).factory
    _check_names(f"setting of learner {name!r}:", settings, _defaults(factory))
    return factory(**settings)


def make_train_settings(name: str, **settings: Any) -> TrainSettings:
    """Build the outer loop's settings for a learner: the given ones over the method's defaults over the general ones.

    Raises:
        UsageError: unknown learner, unknown setting, or a value out of range.
    """
    defaults = _info(name).train_settings
    _check_names("training setting", settings, defaults)
    return TrainSettings(**{**defaults, **settings})


def learner_name(learner: AbstractLearner) -> str:
    """Return the name under which a learner is registered."""
    return next(info.name for info in _INFOS if isinstance(learner, info.factory))


def _info(name: str) -> LearnerInfo:
    if name not in LEARNERS:
        raise unknown_name("learner", name, LEARNERS)
    return LEARNERS[name]


def _check_names(kind: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known)


def _defaults(settings: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(settings) if field.default is not MISSING}
