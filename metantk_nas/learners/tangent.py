"""Rows of a network's Jacobian, whose inner products are its neural tangent kernel; differentiable themselves."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from metantk_nas.learners.base import MetaModel, Parameters, outputs
from metantk_nas.learners.inner_loop import detached, weights


class TangentRows(NamedTuple):
    """Images as the neural tangent kernel sees them.

    Args:
        gradients: of outputs in all weights of the network, flat: ``[row, weight]`` for the summed logits,
            ``[row, n_way, weight]`` for each of them.
        features: ``[row, feature]``.
        logits: ``[row, n_way]``.
    """

    gradients: Tensor
    features: Tensor
    logits: Tensor


def tangent_rows(model: MetaModel, parameters: Parameters, images: Tensor, *, each_logit: bool = False) -> TangentRows:
    """Differentiate the logits of each image in the weights of the network.

    Args:
        model: its images must not see each other; group normalisation and held statistics keep to that.
        parameters: where to differentiate.
        images: ``[row, channel, height, width]``.
        each_logit: differentiate every logit, not their sum.
    """
    own = weights(parameters)
    if not torch.is_grad_enabled():
        own = detached(own)

    def row(image: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        def logits_of(own: Parameters) -> tuple[Tensor, Tensor]:
            features, logits = outputs(model, own, image[None])
            return logits[0], features[0]

        logits, pull_back, features = vjp(logits_of, own, has_aux=True)  # type: ignore[misc]  # three, with has_aux
        if not each_logit:
            return pull_back(torch.ones_like(logits))[0], features, logits
        one_by_one = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
        return vmap(pull_back)(one_by_one)[0], features, logits

    with torch.enable_grad():  # without it autograd sums gradients in place, which vmap cannot in channels-last layout
        gradients, features, logits = vmap(row, randomness="different")(images)
    n_leading = 2 if each_logit else 1
    flat = torch.cat([gradients[name].flatten(n_leading) for name in own], dim=-1)
    return TangentRows(flat, features, logits)
