"""The empirical neural tangent kernel (NTK) of any module, layer by layer, without storing the Jacobian.

``Θ = J Jᵀ`` with ``J = ∂f/∂θ`` (Jacot et al., NeurIPS 2018, arXiv 1806.07572) is a sum over layers.
One forward pass and one backward pass to the layers' outputs give each layer's input and output
gradient; its per-sample weight gradients and their Gram matrix follow, and are dropped at once.

Rows must not see each other: ``f_r`` may depend on row ``r`` alone, or a single backward pass could
not separate them. Group normalisation and batch normalisation in evaluation mode keep to this.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from metantk_nas.depthwise import Depthwise
from metantk_nas.errors import UsageError
from metantk_nas.kernels.per_sample import BIAS_RULES, NORM_RULES, WEIGHT_RULES, Rule
from metantk_nas.kernels.precision import exact_float32, outer_product
from metantk_nas.types import OutputReduction


@dataclass(frozen=True)
class ParameterChoice:
    """Which parameters count as θ: weights of convolutions and linear layers always, the rest on request."""

    biases: bool = False
    norm_affine: bool = False

    def rules(self, layer: nn.Module) -> tuple[Rule, ...]:
        """Return the rules of the layer's chosen parameters, in the order weights, biases, normalisation."""
        has_bias = getattr(layer, "bias", None) is not None
        tables = [(WEIGHT_RULES, True), (BIAS_RULES, self.biases and has_bias)]
        tables.append((NORM_RULES, self.norm_affine and getattr(layer, "weight", None) is not None))
        return tuple(table[type(layer)] for table, chosen in tables if chosen and type(layer) in table)


@dataclass(frozen=True)
class Grams:
    """Gram matrices of a chunk of candidates.

    Args:
        ntk: NTK over all chosen parameters, ``[candidate, row, row]``, float64.
        head: share of the last linear layer alone, the empirical NNGP kernel times the number of
            outputs; same shape.
    """

    ntk: Tensor
    head: Tensor


def layerwise_grams(
    network: nn.Module,
    forward: Callable[[Tensor], Tensor],
    rows: Tensor,
    *,
    head: nn.Module,
    n_candidates: int = 1,
    users: Mapping[nn.Module, Tensor] | None = None,
    output_reduction: OutputReduction = "sum",
    parameters: ParameterChoice | None = None,
) -> Grams:
    """Compute the NTK, and the head's share of it, for a chunk of candidates that share weights.

    Args:
        network: holds the layers that ``forward`` runs; each runs at most once.
        forward: maps ``rows`` to logits ``[candidate * row, output]``, grouped by candidate.
        rows: inputs ``[row, …]``, the same for every candidate.
        head: the layer whose share is returned apart.
        n_candidates: candidates in the chunk.
        users: for layers that not all candidates use, the indices of those whose rows they see, in order:
            int64, on the device of ``rows``.
        output_reduction: ``"sum"``: f is the sum of the logits; ``"trace"``: the kernels of all
            logits are summed.
        parameters: which parameters count; weights only where absent.

    Raises:
        UsageError: the network mixes rows, runs a layer twice, changes a first layer's output in place, or holds
            weights for which there is no rule.
    """
    check_rows_independent(network)
    shape = (n_candidates, len(rows), len(rows))
    total = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    grams = Grams(total, torch.zeros_like(total))
    tape = _Tape(grams, head, users or {}, parameters or ParameterChoice())
    with torch.enable_grad(), exact_float32(), _frozen_depthwise(network), tape.recording(network):
        logits = forward(rows.detach())
        tape.check_sources()
        targets = [logits.sum()] if output_reduction == "sum" else [column.sum() for column in logits.unbind(1)]
        for index, target in enumerate(targets):
            tape.last = index == len(targets) - 1
            torch.autograd.grad(target, tape.sources, retain_graph=not tape.last, allow_unused=True)
    return grams


def ntk(network: nn.Module, rows: Tensor, *, head: nn.Module, output_reduction: OutputReduction = "sum") -> Tensor:
    """Compute the NTK ``[row, row]`` (float64) of one stand-alone network; see `layerwise_grams`."""
    return layerwise_grams(network, network, rows, head=head, output_reduction=output_reduction).ntk[0]


COVERED = frozenset({*WEIGHT_RULES, *NORM_RULES})
"""Types of layers whose parameters have rules."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Tape:
    """Turns each layer's input and output gradient into its share of the Gram matrices during the backward pass."""

    def __init__(
        self, grams: Grams, head: nn.Module, users: Mapping[nn.Module, Tensor], parameters: ParameterChoice
    ) -> None:
        self.grams, self.head, self.users, self.parameters = grams, head, users, parameters
        self.everybody = torch.arange(len(grams.ntk), device=grams.ntk.device)
        self.sources: list[Tensor] = []
        self.versions: list[tuple[nn.Module, int]] = []
        self.seen: set[nn.Module] = set()
        self.last = True

    @contextmanager
    def recording(self, network: nn.Module) -> Iterator[None]:
        """Watch every layer of ``network`` that has parameters."""
        handles: list[RemovableHandle] = []
        try:
            for layer in network.modules():
                if type(layer) in COVERED:
                    handles.append(layer.register_forward_hook(self._watcher(self.parameters.rules(layer))))
            yield
        finally:
            self.sources.clear()  # their hooks hold this tape: a circle that the garbage collector cannot see
            for handle in handles:
                handle.remove()

    def check_sources(self) -> None:
        """Refuse a source that was changed after its layer put it out: the backward pass would end before the layer.

        Raises:
            UsageError: names the layer.
        """
        for source, (layer, version) in zip(self.sources, self.versions, strict=True):
            if source._version != version:
                raise UsageError(
                    f"the output of {layer} is changed in place, so its gradient is lost; expected operations that "
                    "return a new tensor, such as relu instead of relu_, and x = x + y instead of x += y."
                )

    def _watcher(self, rules: tuple[Rule, ...]) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def watch(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            if layer in self.seen:
                raise UsageError(f"{layer} runs twice in one forward pass; expected a layer of its own for each use.")
            self.seen.add(layer)
            if not args[0].requires_grad:  # the first layers, and those behind features that do not depend on the rows
                self.sources.append(output.requires_grad_())
                self.versions.append((layer, output._version))
            kept = [args[0].detach()]

            def receive(grads: Tensor) -> None:
                inputs = kept.pop() if self.last else kept[0]
                with torch.no_grad():
                    self._add(layer, rules, inputs, grads)

            if rules:
                output.register_hook(receive)

        return watch

    def _add(self, layer: nn.Module, rules: tuple[Rule, ...], inputs: Tensor, grads: Tensor) -> None:
        n_rows = self.grams.ntk.shape[-1]
        users = self.users.get(layer, self.everybody)
        for rule in rules:
            share = grads.new_zeros(len(users), n_rows, n_rows, dtype=torch.float64)
            for part in rule(layer, inputs, grads):
                share += outer_product(part.unflatten(0, (len(users), n_rows)))
            self.grams.ntk.index_add_(0, users, share)
            if layer is self.head:
                self.grams.head.index_add_(0, users, share)


@contextmanager
def _frozen_depthwise(network: nn.Module) -> Iterator[None]:
    """Let weights of depthwise convolutions ask for no gradient.

    The backward pass ends at the layers' outputs, and PyTorch's layers compute no more. A function of one's own is told
    what could be asked for, not what is, and would compute gradients that nobody wants.
    """
    weights = [layer.weight for layer in network.modules() if isinstance(layer, Depthwise)]
    learning = [weight for weight in weights if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_()


def check_rows_independent(network: nn.Module) -> None:
    """Refuse networks whose rows see each other, or whose weights no rule covers.

    Raises:
        UsageError: names the module.
    """
    for name, module in network.named_modules():
        if isinstance(module, BATCH_NORMS) and (module.training or not module.track_running_stats):
            raise UsageError(
                f"module {name!r} normalises over the batch, so rows see each other and have no kernel of their own; "
                "expected group normalisation, or batch normalisation in evaluation mode (network.eval())."
            )
        if type(module) not in COVERED and next(module.parameters(recurse=False), None) is not None:
            raise UsageError(
                f"module {name!r} of type {type(module).__name__} has weights that the kernel cannot see; "
                f"expected {', '.join(sorted(kind.__name__ for kind in COVERED))}."
            )
        if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
            raise UsageError(
                f"convolution {name!r} pads by {module.padding!r} in mode {module.padding_mode!r}; "
                "expected zeros, by a number of pixels."
            )
