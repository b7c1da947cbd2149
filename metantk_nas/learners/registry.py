"""Every learner by name, with its paper and one line.

A plug-in's entry point in the group ``metantk_nas.learners`` is a `LearnerInfo` of the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metantk_nas import plugins
from metantk_nas.errors import UsageError
from metantk_nas.learners.alpaca import Alpaca
from metantk_nas.learners.alpha_maml import AlphaMaml
from metantk_nas.learners.anil import Anil
from metantk_nas.learners.base import AbstractLearner
from metantk_nas.learners.baseline_plus_plus import BaselinePlusPlus
from metantk_nas.learners.cavia import Cavia
from metantk_nas.learners.imaml import Imaml
from metantk_nas.learners.kernel import Kernel
from metantk_nas.learners.lambda_pattern import LambdaPattern
from metantk_nas.learners.lrd2 import LRD2
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.maml_plus_plus import MamlPlusPlus
from metantk_nas.learners.matching_net import MatchingNet
from metantk_nas.learners.meta_rkhs_1 import MetaRkhs1
from metantk_nas.learners.meta_rkhs_2 import MetaRkhs2
from metantk_nas.learners.meta_sgd import MetaSgd
from metantk_nas.learners.metaoptnet import MetaOptNet
from metantk_nas.learners.moml import Moml
from metantk_nas.learners.protonet import ProtoNet
from metantk_nas.learners.r2d2 import R2D2
from metantk_nas.learners.relation_net import RelationNet
from metantk_nas.learners.reptile import Reptile
from metantk_nas.learners.rfs import Rfs
from metantk_nas.learners.siamese import Siamese
from metantk_nas.learners.steepest_descent import SteepestDescent
from metantk_nas.learners.trainer import TrainSettings
from metantk_nas.settings import check_settings, default_settings


@dataclass(frozen=True)
class LearnerInfo:
    """One line about a learner, for ``metantk-nas learners``.

    Args:
        name: what it is called by.
        paper: who proposed it.
        description: what it does.
        factory: its class; the fields are its settings.
        identity: settings that make it this method among those of its class.
        preset: where this name starts from other settings than the class does, besides.
    """

    name: str
    paper: str
    description: str
    factory: type[AbstractLearner]
    identity: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Default settings of the method, by name."""
        return {**default_settings(self.factory), **self.identity, **self.preset}

    @property
    def train_settings(self) -> dict[str, Any]:
        """Default settings of the outer loop for this method, by name."""
        return {**default_settings(TrainSettings), **self.factory.train_defaults}


_INFOS = (
    LearnerInfo(
        "maml", "Finn et al. 2017, arXiv 1703.03400", "weights from which a few gradient steps solve a task", Maml
    ),
    LearnerInfo(
        "fomaml",
        "Finn et al. 2017, arXiv 1703.03400",
        "as maml, without second derivatives",
        Maml,
        {"first_order": True},
        {"inner_lr": 0.1, "inner_steps": 5, "inner_steps_test": 5},
    ),
    LearnerInfo("anil", "Raghu et al. 2020, arXiv 1909.09157", "as maml, but only the head takes the steps", Anil),
    LearnerInfo(
        "boil",
        "Oh et al. 2021, arXiv 2008.08882",
        "as maml, but all layers except the head take the steps",
        LambdaPattern,
        {"pattern": "body"},
        {"inner_lr": 0.5},
    ),
    LearnerInfo(
        "lambda_pattern",
        "Khabarlak 2022, arXiv 2206.05930",
        "as maml, but a pattern of layers takes the steps; finds the fastest pattern",
        LambdaPattern,
    ),
    LearnerInfo(
        "reptile",
        "Nichol et al. 2018, arXiv 1803.02999",
        "weights move towards those that ordinary training on a task ends with",
        Reptile,
    ),
    LearnerInfo("meta_sgd", "Li et al. 2017, arXiv 1707.09835", "as maml, with a learnt rate for each weight", MetaSgd),
    LearnerInfo(
        "maml_plus_plus",
        "Antoniou et al. 2019, arXiv 1810.09502",
        "as maml, with a loss, learnt rates and normalisation for each step",
        MamlPlusPlus,
    ),
    LearnerInfo(
        "alpha_maml",
        "Behl et al. 2019, arXiv 1905.07435",
        "as maml, with both learning rates adapted by their hypergradients",
        AlphaMaml,
    ),
    LearnerInfo(
        "cavia", "Zintgraf et al. 2019, arXiv 1810.03642", "only a few context parameters take the steps", Cavia
    ),
    LearnerInfo(
        "imaml",
        "Rajeswaran et al. 2019, arXiv 1909.04630",
        "adapts close to the start; meta-gradient by conjugate gradients",
        Imaml,
    ),
    LearnerInfo("moml", "Wang et al. 2023, arXiv 2106.04911", "as maml, with a memory of adapted weights", Moml),
    LearnerInfo(
        "kernel",
        "in the spirit of Park & Kang 2024, arXiv 2411.00404",
        "closed-form adaptation in function space with the feature kernel, the NTK or their sum",
        Kernel,
    ),
    LearnerInfo(
        "meta_rkhs_1",
        "Zhou et al. 2021, arXiv 2102.03909",
        "weights where one gradient step goes far, learnt without taking it",
        MetaRkhs1,
    ),
    LearnerInfo(
        "meta_rkhs_2",
        "Zhou et al. 2021, arXiv 2102.03909",
        "gradient flow in function space with the NTK, solved for any time",
        MetaRkhs2,
    ),
    LearnerInfo("r2d2", "Bertinetto et al. 2019, arXiv 1805.08136", "ridge regression head in closed form", R2D2),
    LearnerInfo(
        "lrd2", "Bertinetto et al. 2019, arXiv 1805.08136", "logistic regression head by a few Newton steps", LRD2
    ),
    LearnerInfo(
        "metaoptnet",
        "Lee et al. 2019, arXiv 1904.03758",
        "support vector machine or ridge head by convex optimisation",
        MetaOptNet,
    ),
    LearnerInfo(
        "alpaca", "Harrison et al. 2018, arXiv 1807.08912", "Bayesian linear regression with a learnt prior", Alpaca
    ),
    LearnerInfo(
        "steepest_descent",
        "Tripathi et al. 2020, arXiv 2010.00390",
        "ridge head by a few steps of closed-form length",
        SteepestDescent,
    ),
    LearnerInfo("protonet", "Snell et al. 2017, arXiv 1703.05175", "nearest class mean in feature space", ProtoNet),
    LearnerInfo("matching_net", "Vinyals et al. 2016, arXiv 1606.04080", "attention over the support set", MatchingNet),
    LearnerInfo(
        "relation_net", "Sung et al. 2018, arXiv 1711.06025", "learnt comparison with class means", RelationNet
    ),
    LearnerInfo(
        "siamese",
        "Koch et al. 2015, ICML deep learning workshop (not on arXiv)",
        "learnt verification of pairs of images",
        Siamese,
    ),
    LearnerInfo(
        "baseline_plus_plus",
        "Chen et al. 2019, arXiv 1904.04232",
        "ordinary classification by cosines, then a cosine head fitted to each task",
        BaselinePlusPlus,
    ),
    LearnerInfo(
        "rfs",
        "Tian et al. 2020, arXiv 2003.11539",
        "ordinary classification of all base classes, then logistic regression on frozen features",
        Rfs,
    ),
)


def _read_plugin(name: str, offered: object) -> Mapping[str, LearnerInfo]:
    """Check what a plug-in offers."""
    if not isinstance(offered, LearnerInfo) or offered.name != name:
        raise UsageError(f"it is {offered!r}; expected a LearnerInfo whose name is {name!r}")
    if not (isinstance(offered.factory, type) and issubclass(offered.factory, AbstractLearner)):
        raise UsageError(f"its factory is {offered.factory!r}; expected a dataclass that is an AbstractLearner")
    _ = offered.settings, offered.train_settings
    return {name: offered}


LEARNERS = plugins.Registry(plugins.LEARNERS, {info.name: info for info in _INFOS}, _read_plugin)
"""All learners by name."""


def make_learner(name: str, **settings: Any) -> AbstractLearner:
    """Build a learner.

    Args:
        name: a key of `LEARNERS`.
        settings: fields of its class; the rest keep their defaults.

    Raises:
        UsageError: unknown learner, unknown setting of it, or a value of another kind.
    """
    info = _info(name)
    check_settings(f"setting of learner {name!r}:", settings, info.factory)
    return info.factory(**{**info.identity, **info.preset, **settings})


def make_train_settings(name: str, **settings: Any) -> TrainSettings:
    """Build the outer loop's settings for a learner: the given ones over the method's defaults over the general ones.

    Raises:
        UsageError: unknown learner, unknown setting, a value of another kind or out of range, or a precision that the
            learner cannot have.
    """
    check_settings("training setting", settings, TrainSettings)
    made = TrainSettings(**{**_info(name).train_settings, **settings})
    if made.precision == "bfloat16" and not _info(name).factory.half_precision:
        raise UsageError(f"learner {name!r} cannot be trained in bfloat16; expected precision float32 or auto.")
    return made


def learner_name(learner: AbstractLearner) -> str:
    """Return the name under which a learner is registered; of several, the one whose identity says most."""
    own = [info for info in LEARNERS.values() if isinstance(learner, info.factory)]
    fitting = [info for info in own if all(getattr(learner, name) == value for name, value in info.identity.items())]
    return max(fitting, key=lambda info: len(info.identity)).name


def _info(name: str) -> LearnerInfo:
    if name not in LEARNERS:
        raise LEARNERS.not_found("learner", name)
    return LEARNERS[name]
