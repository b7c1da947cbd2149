"""Adaptation in function space: the inner loop has a closed form."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

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
from metantk_nas.networks.norms import NormKind

INITIAL_SCALE = 10.0
LOG_SCALE = "extra.log_scale"


@final
@dataclass(frozen=True)
class Kernel(AbstractLearner):
    """Function-space adaptation, in the spirit of Park & Kang 2024 (arXiv 2411.00404).

    The paper's own equations could not be read in full; this follows its abstract and the kernel regression of
    Meta-RKHS-II (arXiv 2102.03909), of which it is the limit of infinite inner time:
    ``a = (K_SS + λI)⁻¹ (Y_S − f_θ(X_S))`` and ``f_i(x) = f_θ(x) + K(x, X_S) a``, with one-hot ``Y_S``.
    The outer loop minimises the cross-entropy of ``γ f_i`` on the query set, γ learnt, and its gradient flows
    through the closed form. Kernels are divided by the mean of their support diagonal, so λ has no unit.

    Args:
        kernel: ``"feature"``, inner products of features, plus 1 for the bias; or ``"ntk"``, the neural tangent
            kernel of the summed logits over all weights.
        inner_reg: λ, relative to the mean of the support diagonal.
        inner_time: inner learning rate × steps; ``inf`` is kernel ridge regression.
    """

    kernel: Literal["feature", "ntk"] = "feature"
    inner_reg: float = 0.1
    inner_time: float = math.inf

    regresses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.kernel not in ("feature", "ntk"):
            raise unknown_name("kernel", self.kernel, ("feature", "ntk"))

    @property
    def norm(self) -> NormKind:
        """Running statistics for features; groups for the NTK, whose rows must not see each other."""
        return "batch" if self.kernel == "feature" else "group"

    def make_model(self, network: nn.Module) -> MetaModel:
        """The network and ``log γ`` are meta-learned; ``f_θ`` starts at zero, which trains much better than noise."""
        head: Any = network.head
        nn.init.zeros_(head.weight)
        return MetaModel(network, nn.ParameterDict({"log_scale": torch.tensor(math.log(INITIAL_SCALE))}))

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the cross-entropy of the query set after the closed-form inner loop, all images in one pass."""
        n_support = len(episode.support_labels)
        rows = self._rows(model, parameters, torch.cat([episode.support_images, episode.query_images]))
        support, query = (
            Rows(*parts) for parts in zip(*(part.tensor_split([n_support]) for part in rows), strict=True)
        )
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
        if self.kernel == "ntk":
            return tangent_rows(model, parameters, images)
        features, logits = outputs(model, parameters, images)
        return Rows(torch.cat([features, torch.ones_like(features[:, :1])], dim=1), logits)

    def _adapted_logits(self, parameters: Parameters, support: "Rows", labels: Tensor, query: "Rows") -> Tensor:
        targets = target_rows(labels, support.logits.shape[1], like=support.logits)
        k_ss, k_qs = support.lifted @ support.lifted.mT, query.lifted @ support.lifted.mT
        unit = k_ss.diagonal().mean()
        smoother = kernel_smoother(k_qs / unit, k_ss / unit, inner_time=self.inner_time, inner_reg=self.inner_reg)
        return parameters[LOG_SCALE].exp() * (query.logits + smoother @ (targets - support.logits))


class Rows(NamedTuple):
    """Images as a kernel sees them.

    Args:
        lifted: ``[row, dimension]``, whose inner products are the kernel.
        logits: ``[row, n_way]``, before adaptation.
    """

    lifted: Tensor
    logits: Tensor


def tangent_rows(model: MetaModel, parameters: Parameters, images: Tensor) -> Rows:
    """Compute the gradient of each row's summed logits in all weights of the network, flat, and the logits."""
    weights = {name: value for name, value in parameters.items() if name.startswith("network.")}

    def summed_logits(weights: Parameters, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = outputs(model, weights, image[None]).logits[0]
        return logits.sum(), logits

    gradients, logits = vmap(grad(summed_logits, has_aux=True), in_dims=(None, 0), randomness="different")(
        weights, images
    )
    return Rows(torch.cat([gradients[name].flatten(1) for name in weights], dim=1), logits)
