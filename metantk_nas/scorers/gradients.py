"""Scores from one backward pass: how much each weight matters to the output or to the loss.

The gradient of a weight that several candidates share would be the sum of theirs. Theirs are kept apart: from a
layer's input and output gradient, one convolution whose groups are the candidates gives each its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.grad import conv2d_weight
from torch.utils.hooks import RemovableHandle

from metantk_nas.depthwise import Depthwise, weight_gradient
from metantk_nas.kernels.precision import exact_float32
from metantk_nas.rng import child_seed
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.findings import findings, spread
from metantk_nas.scorers.setup import ScoredNetwork, ScoringSetup
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric

Receive = Callable[[nn.Conv2d | nn.Linear, Tensor, Tensor], None]
"""(layer, indices of its candidates, gradient of its weight for each of them ``[candidate, *weight]``) → nothing."""

ABDELFATTAH = "Abdelfattah et al., ICLR 2021, arXiv 2101.08134"


def run_with_gradients(
    network: ScoredNetwork,
    architectures: Sequence[Architecture],
    images: Tensor,
    target: Callable[[Tensor], Tensor],
    receive: Receive,
) -> Tensor:
    """Run a chunk forward and backward, and hand over each candidate's own gradient of every weight that it uses.

    Args:
        network: weight-shared network whose rows are independent.
        architectures: the chunk.
        images: ``[row, channel, height, width]``.
        target: from logits ``[candidate * row, output]`` to the sum of what is differentiated for each candidate.
        receive: called once per convolution and linear layer that the target depends on.

    Returns:
        Logits ``[candidate, row, output]``.
    """
    chunk: Any = network.route(architectures, images.device)
    users = dict(network.users(chunk))
    everybody = torch.arange(len(architectures), device=images.device)

    def hand_over(layer: nn.Conv2d | nn.Linear, inputs: Tensor, grads: Tensor) -> None:
        who = users.get(layer, everybody)
        receive(layer, who, weight_gradients(layer, inputs, grads, len(who)))

    with torch.enable_grad(), exact_float32(), _watching(network, hand_over) as sources:
        logits = network(images, chunk)
        torch.autograd.grad(target(logits), sources, allow_unused=True)
    return _by_candidate(logits.detach(), len(architectures))


def weight_gradients(layer: nn.Conv2d | nn.Linear, inputs: Tensor, grads: Tensor, n_candidates: int) -> Tensor:
    """Compute the gradient of a layer's weight for each candidate, ``[candidate, *weight]``.

    Args:
        layer: a convolution with numeric zero padding, or a linear layer.
        inputs: ``[candidate * row, channel_in, …]``.
        grads: gradient of what came out, ``[candidate * row, channel_out, …]``.
        n_candidates: candidates whose rows the layer has seen.
    """
    if isinstance(layer, nn.Linear):
        return _by_candidate(grads, n_candidates).mT @ _by_candidate(inputs, n_candidates)
    inputs, grads = _side_by_side(inputs, n_candidates), _side_by_side(grads, n_candidates)
    if isinstance(layer, Depthwise):
        gradient = weight_gradient(inputs, grads, layer.steps, layer.kernel_size[0])
        return _by_candidate(gradient, n_candidates)
    gradient = conv2d_weight(
        inputs,
        (n_candidates * layer.out_channels, *layer.weight.shape[1:]),
        grads,
        layer.stride,
        layer.padding,
        layer.dilation,
        n_candidates * layer.groups,
    )
    return _by_candidate(gradient, n_candidates)


def _by_candidate(rows: Tensor, n_candidates: int) -> Tensor:
    """View ``[candidate * row, …]`` as ``[candidate, row, …]``."""
    split: Tensor = rows.unflatten(0, (n_candidates, -1))
    return split


def _side_by_side(images: Tensor, n_candidates: int) -> Tensor:
    """Lay ``[candidate * row, channel, height, width]`` out as ``[row, candidate * channel, height, width]``."""
    return _by_candidate(images, n_candidates).transpose(0, 1).flatten(1, 2)


@contextmanager
def _watching(network: nn.Module, receive: Callable[..., None]) -> Iterator[list[Tensor]]:
    """Have every layer's input and output gradient received; yields the first outputs, where a backward pass ends."""
    sources: list[Tensor] = []

    def watch(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if not args[0].requires_grad:  # the first layers, and those behind features that do not depend on the rows
            sources.append(output.requires_grad_())
        kept = [args[0].detach()]

        def on_gradient(grads: Tensor) -> None:
            with torch.no_grad():
                receive(layer, kept.pop(), grads)

        if isinstance(layer, nn.Conv2d | nn.Linear):
            output.register_hook(on_gradient)

    handles: list[RemovableHandle] = []
    try:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.GroupNorm):
                handles.append(layer.register_forward_hook(watch))
        yield sources
    finally:
        for handle in handles:
            handle.remove()


class GradientScorer(AbstractScorer):
    """How strongly the loss pulls at the weights, on the images of the repeat's episodes with their labels.

    L is the mean cross-entropy over all rows, support and query. The network is the one that all kernels see, with
    group normalisation, where the published proxies use batch normalisation.
    """

    name = "gradients"
    metrics = (
        Metric(
            "grad_norm",
            True,
            "sum over layers of the norm of the loss gradient, Σ ‖∂L/∂W‖",
            ABDELFATTAH,
            averaging="geometric",
        ),
        Metric(
            "snip",
            True,
            "connection sensitivity, Σ |W ∂L/∂W|",
            "SNIP, Lee et al., ICLR 2019, arXiv 1810.02340",
            averaging="geometric",
        ),
    )

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward and one backward pass."""
        rows, n_candidates = self._setup.rows(repeat), len(architectures)
        labels = torch.cat([rows.query_labels.flatten(), rows.support_labels.flatten()]).repeat(n_candidates)
        norms, saliency = torch.zeros(2, n_candidates, dtype=torch.float64, device=self._setup.device)

        def receive(layer: nn.Conv2d | nn.Linear, users: Tensor, gradients: Tensor) -> None:
            norms.index_add_(0, users, gradients.flatten(1).norm(dim=1).double())
            saliency.index_add_(0, users, (gradients * layer.weight).abs().flatten(1).sum(1).double())

        def loss(logits: Tensor) -> Tensor:
            return n_candidates * cross_entropy(logits, labels)

        logits = run_with_gradients(self._setup.network(repeat), architectures, rows.images, loss, receive)
        return findings({"grad_norm": norms, "snip": saliency}, spread(logits))


class SynFlowScorer(AbstractScorer):
    """SynFlow: the flow through all paths from input to output, ln Σ |W ∂R/∂W|.

    R is the sum of the outputs for an image of ones and weights |W| (Tanaka et al., NeurIPS 2020,
    arXiv 2006.05467). As in the zero-cost proxies of Abdelfattah et al. (ICLR 2021, arXiv 2101.08134) there is
    no normalisation at all, since it would undo the flow. So R grows by an order of magnitude a layer: it is
    computed in float64, and its logarithm is told. No data are seen.
    """

    name = "synflow"
    metrics = (
        Metric(
            "synflow",
            True,
            "ln Σ |W ∂R/∂W|, R the output for an image of ones and absolute weights",
            "SynFlow, arXiv 2006.05467; without normalisation as in arXiv 2101.08134",
        ),
    )
    own_weight_bytes = 8

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup
        self._network = cache(self._absolute_network)

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk with one forward and one backward pass of a single image."""
        data = self._setup.dataset
        shape = (1, data.n_channels, data.image_size, data.image_size)
        ones = torch.ones(shape, dtype=torch.float64, device=self._setup.device)
        flow = torch.zeros(len(architectures), dtype=torch.float64, device=self._setup.device)

        def receive(layer: nn.Conv2d | nn.Linear, users: Tensor, gradients: Tensor) -> None:
            flow.index_add_(0, users, (gradients * layer.weight).abs().flatten(1).sum(1))

        run_with_gradients(self._network(repeat), architectures, ones, Tensor.sum, receive)
        return findings({"synflow": flow.log()}, flow)

    def _absolute_network(self, repeat: int) -> ScoredNetwork:
        """Build the repeat's network with |W|, in float64, without normalisation."""
        network = self._setup.build(child_seed(self._setup.seed, "repeat", repeat), norm="none").double()
        for parameter in network.parameters():
            parameter.data.abs_()
        return network
