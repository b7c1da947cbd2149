"""Adaptation in function space: the inner loop has a closed form."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import unknown_name
from metantk_nas.kernels.smoother import kernel_smoother
from metantk_nas.learners.base import (
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Parameters,
    Predictor,
    check_head,
    outputs,
    target_rows,
    task_loss,
)
from metantk_nas.learners.features import (
    INITIAL_SCALE,
    logit_scale,
    mean_diagonal,
    positive_parameters,
    with_bias,
)
from metantk_nas.learners.tangent import tangent_rows
from metantk_nas.networks.norms import NormKind

KERNELS = ("feature", "ntk", "sum")


@final
@dataclass(frozen=True)
class Kernel(AbstractLearner):
    """Function-space adaptation, in the spirit of Park & Kang 2024 (arXiv 2411.00404).

    The paper's own equations could not be read in full; this follows its abstract and the kernel regression of
    Meta-RKHS-II (arXiv 2102.03909), of which it is the limit of infinite inner time:
    ``a = (K_SS + λI)⁻¹ (Y_S − f_θ(X_S))`` and ``f_i(x) = f_θ(x) + K(x, X_S) a``, with one-hot ``Y_S``.
    The outer loop minimises the cross-entropy of ``γ f_i`` on the query set, γ learnt, and its gradient flows
    through the closed form; with real targets it minimises the squared error of ``f_i``. Kernels are divided by the
    mean of their support diagonal, so λ has no unit.

    Args:
        kernel: ``"feature"``, inner products of features, plus 1 for the bias; ``"ntk"``, the neural tangent
            kernel of the summed logits over all weights; or ``"sum"``, the mean of the two, each divided as above.
        inner_reg: λ, relative to the mean of the support diagonal.
        inner_time: inner learning rate × steps; ``inf`` is kernel ridge regression.
    """

    kernel: Literal["feature", "ntk", "sum"] = "feature"
    inner_reg: float = 0.1
    inner_time: float = math.inf

    regresses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise unknown_name("kernel", self.kernel, KERNELS)

    @property
    def norm(self) -> NormKind:
        """Running statistics for features; groups for the NTK, whose rows must not see each other."""
        return "batch" if self.kernel == "feature" else "group"

    def make_model(self, network: nn.Module) -> MetaModel:
        """The network and γ are meta-learned; ``f_θ`` starts at zero, which trains much better than noise."""
        head: Any = network.head
        nn.init.zeros_(head.weight)
        return MetaModel(network, positive_parameters(scale=INITIAL_SCALE))

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the loss of the query set after the closed-form inner loop, all images in one pass."""
        rows = self._rows(model, parameters, torch.cat([episode.support_images, episode.query_images]))
        support, query = rows.split(len(episode.support_labels))
        logits = self._adapted_logits(parameters, support, episode.support_labels, query)
        return EpisodeLoss(task_loss(logits, episode.query_labels), logits)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Remember the support rows; ``n_way`` is what the head was built for."""
        check_head(model, n_way)
        support = self._rows(model, parameters, support_images)
        return lambda query_images: self._adapted_logits(
            parameters, support, support_labels, self._rows(model, parameters, query_images)
        )

    def _rows(self, model: MetaModel, parameters: Parameters, images: Tensor) -> "Rows":
        if self.kernel == "feature":
            features, logits = outputs(model, parameters, images)
            return Rows((with_bias(features),), logits)
        gradients, features, logits = tangent_rows(model, parameters, images)
        return Rows((with_bias(features), gradients) if self.kernel == "sum" else (gradients,), logits)

    def _adapted_logits(self, parameters: Parameters, support: "Rows", labels: Tensor, query: "Rows") -> Tensor:
        adapted = adapted_logits(support, labels, query, inner_time=self.inner_time, inner_reg=self.inner_reg)
        return logit_scale(parameters, labels) * adapted


class Rows(NamedTuple):
    """Images as the kernel sees them.

    Args:
        lifted: one ``[row, dimension]`` for each kernel, whose inner products it is.
        logits: ``[row, n_way]``, before adaptation.
    """

    lifted: tuple[Tensor, ...]
    logits: Tensor

    def split(self, n_first: int) -> tuple["Rows", "Rows"]:
        """Return the first rows, and the rest."""
        first, rest = (Rows(tuple(part[cut] for part in self.lifted), self.logits[cut]) for cut in _cuts(n_first))
        return first, rest

    def kernel(self, support: "Rows") -> Tensor:
        """Return the mean of the kernels ``[row, support]``, each divided by the mean of its support diagonal."""
        pairs = zip(self.lifted, support.lifted, strict=True)
        return torch.stack([rows @ others.mT / mean_diagonal(others) for rows, others in pairs]).mean(0)


def adapted_logits(support: Rows, labels: Tensor, query: Rows, *, inner_time: float, inner_reg: float) -> Tensor:
    """Add to the query logits what the smoother makes of the support residuals, ``[query, n_way]``."""
    residuals = target_rows(labels, support.logits.shape[1], like=support.logits) - support.logits
    k_ss, k_qs = support.kernel(support), query.kernel(support)
    return query.logits + kernel_smoother(k_qs, k_ss, inner_time=inner_time, inner_reg=inner_reg) @ residuals


def _cuts(n_first: int) -> tuple[slice, slice]:
    return slice(n_first), slice(n_first, None)
