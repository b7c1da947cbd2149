"""ALPaCA: Bayesian linear regression on learnt features, with a learnt prior."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.kernels.smoother import kernel_smoother
from metantk_nas.learners.base import (
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Outputs,
    Parameters,
    Predictor,
    check_head,
    outputs,
    target_rows,
    task_loss,
)
from metantk_nas.learners.features import mean_diagonal, positive, positive_parameters, with_bias
from metantk_nas.networks.norms import NormKind

INITIAL_NOISE = 0.1
PRIOR = "extra.prior"


class Posterior(NamedTuple):
    """What is known of query rows.

    Args:
        mean: ``[query, n_way]``.
        variance: ``[query]``, of each output, noise included.
    """

    mean: Tensor
    variance: Tensor


@final
@dataclass(frozen=True)
class Alpaca(AbstractLearner):
    """Meta-learning priors for online Bayesian regression (Harrison, Sharma & Pavone, WAFR 2018, arXiv 1807.08912).

    ``y = Kᵀ φ(x) + ε`` with noise ``ε ~ N(0, σ²)`` and the prior ``K ~ N(K̄₀, σ² Λ₀⁻¹)`` on a linear head. The
    posterior has precision ``Λ = ΦᵀΦ + Λ₀`` and mean ``Λ⁻¹(ΦᵀY + Λ₀ K̄₀)``; a query row is predicted with variance
    ``σ² (1 + φᵀΛ⁻¹φ)``. The outer loop minimises the negative log density of the query targets in the features, K̄₀
    (the network's head), Λ₀ and σ, which the paper gives.

    Labels are regressed on as one-hot vectors. Among those the log density differs by the mean over the variance
    alone, which are thus the logits; the loss is the negative log density of the right one among them, a cross-entropy.

    It is computed with the kernel ``φᵀ Λ₀⁻¹ φ'`` of size support × support. What is learnt is L in ``Λ₀⁻¹ = L Lᵀ``,
    where the paper learns a factor of Λ₀. Features are followed by a 1 for the bias, and measured in units of the
    root of their mean squared norm in the support set, so that one prior suits any architecture.
    """

    regresses: ClassVar[bool] = True

    @property
    def norm(self) -> NormKind:
        """Running statistics: predictions do not depend on the images beside an image."""
        return "batch"

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features, prior and noise are meta-learned; the prior starts at N(0, σ²)."""
        module: Any = network
        nn.init.zeros_(module.head.weight)
        extra = positive_parameters(noise=INITIAL_NOISE)
        extra["prior"] = torch.eye(module.n_features + 1)
        return MetaModel(network, extra)

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the negative log density of the query targets, all images in one pass."""
        rows = outputs(model, parameters, torch.cat([episode.support_images, episode.query_images]))
        cut = len(episode.support_labels)
        support, query = Outputs(*(part[:cut] for part in rows)), Outputs(*(part[cut:] for part in rows))
        found = posterior(parameters, support, episode.support_labels, query)
        predictions = _predictions(found, episode.query_labels)
        if not episode.query_labels.is_floating_point():
            return EpisodeLoss(task_loss(predictions, episode.query_labels), predictions)
        variance = found.variance[:, None]
        surprise = (episode.query_labels - found.mean).square() / variance + (2 * math.pi * variance).log()
        return EpisodeLoss(surprise.mean() / 2, predictions)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Remember the support rows; ``n_way`` is what the head was built for."""
        check_head(model, n_way)
        support = outputs(model, parameters, support_images)
        return lambda query_images: _predictions(
            posterior(parameters, support, support_labels, outputs(model, parameters, query_images)), support_labels
        )


def posterior(parameters: Parameters, support: Outputs, targets: Tensor, query: Outputs) -> Posterior:
    """Predict query rows from support rows and their targets; logits before adaptation are those of the prior mean."""
    rows, others = with_bias(support.features), with_bias(query.features)
    unit = mean_diagonal(rows).sqrt()
    lifted, query_lifted = (part @ parameters[PRIOR] / unit for part in (rows, others))
    k_qs = query_lifted @ lifted.mT
    smoother = kernel_smoother(k_qs, lifted @ lifted.mT, inner_time=math.inf, inner_reg=1.0)
    residuals = target_rows(targets, support.logits.shape[1], like=support.logits) - support.logits
    unexplained = query_lifted.square().sum(1) - (smoother * k_qs).sum(1)
    return Posterior(query.logits + smoother @ residuals, positive(parameters, "noise") * (1 + unexplained))


def _predictions(found: Posterior, targets: Tensor) -> Tensor:
    """The mean of real targets, the logits of labels."""
    return found.mean if targets.is_floating_point() else found.mean / found.variance[:, None]
