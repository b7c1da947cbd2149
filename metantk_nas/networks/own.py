"""Any module in the place of a search space: a population of one, whose network scorers see as they see candidates.

What is done to a candidate before it is scored is done to the module too: `OwnModule` says what.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metantk_nas.errors import UsageError
from metantk_nas.networks.cost import Cost, layer_costs
from metantk_nas.networks.init import initialise
from metantk_nas.networks.norms import NormKind, make_norm
from metantk_nas.rng import child_seed
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.subspace import Architecture

ONLY = Genotype(())
"""The one architecture there is."""

HEAD = "head"

Factory = Callable[..., nn.Module]
"""Builds the module. Of these it is told what it has parameters for: outputs (``n_outputs``, ``num_classes``,
``n_classes``), channels of the images (``in_channels``, ``in_chans``), their size (``image_size``, ``img_size``)."""


class OwnNetwork(nn.Module):
    """A module as scorers see it: features, a linear head, and one candidate that uses every layer.

    Args:
        body: the whole module.
        head: name of its head; empty where ``body`` ends with features, which then get ``new_head``.
        last_map: name of the last layer that puts out more than one pixel; empty where there is none.
        new_head: the head of a body that has none.
    """

    def __init__(self, body: nn.Module, head: str, last_map: str, new_head: nn.Linear | None) -> None:
        super().__init__()
        self.body, self.new_head = body, new_head
        self._head, self._last_map = head, last_map

    @property
    def head(self) -> nn.Module:
        """The linear layer that puts out the logits."""
        return self.new_head if self.new_head is not None else self.body.get_submodule(self._head)

    @property
    def final(self) -> nn.Module:
        """What puts out the feature map before it is pooled; the features' own layer where there is no map."""
        return self.body.get_submodule(self._last_map)

    def route(self, architectures: Sequence[Architecture], device: torch.device | str = "cpu") -> None:
        """Nothing has to be chosen: the only candidate uses every layer."""

    def users(self, chunk: None) -> Iterator[tuple[nn.Module, Tensor]]:  # noqa: ARG002 - as for networks of cells
        """No layer is for some candidates only."""
        return iter(())

    def features(self, images: Tensor, chunk: None = None) -> Tensor:  # noqa: ARG002 - as for networks of cells
        """Compute what goes into the head, ``[row, n_features]``, of images ``[row, channel, height, width]``."""
        if self.new_head is not None:
            return _pool(self.body(images))
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self.body(images)
        finally:
            handle.remove()
        return seen[-1]

    def forward(self, images: Tensor, chunk: None = None) -> Tensor:  # noqa: ARG002 - as for networks of cells
        """Compute logits ``[row, n_outputs]`` of images ``[row, channel, height, width]``."""
        logits: Tensor = self.body(images) if self.new_head is None else self.new_head(_pool(self.body(images)))
        return logits


@dataclass(frozen=True)
class OwnModule:
    """A module of one's own, and how it is made comparable with the architectures of a space.

    - **Batch normalisation** (`nn.BatchNorm2d`) is replaced as in candidates: by group normalisation of
      ``min(16, C)`` groups, so that rows are independent; by whatever else a scorer asks of candidates. Where it asks
      for no normalisation, group normalisation of the module's own (`nn.GroupNorm`) goes, too.
    - **Weights** of convolutions and linear layers are drawn as those of candidates are, by layer name and seed; biases
      are zero. Trained weights are not kept: the ranking compares untrained networks. Other parameters stay as the
      factory made them, with PyTorch's generator seeded for each repeat.
    - **Head**: the linear layer that puts out the result. With another number of outputs than ``n_outputs`` it is
      replaced; a module that ends otherwise is taken for a feature extractor, its maps are averaged over pixels, and it
      gets a head.
    - It is in evaluation mode: no dropout. In-place activations are switched off, which changes no value.

    Args:
        name: what it is called by.
        factory: builds it; a module stands for itself.
        n_outputs: logits.
        in_channels: channels of the images.
        image_size: height and width in pixels.
    """

    name: str
    factory: Factory | nn.Module
    n_outputs: int
    in_channels: int
    image_size: int

    def build(self, seed: int, norm: NormKind, device: torch.device | str = "cpu") -> OwnNetwork:
        """Build the network that is scored; see above.

        Args:
            seed: seed of the weights.
            norm: what batch normalisation is replaced by.
            device: where it goes.

        Raises:
            UsageError: the factory fails, or the module cannot run images of this size.
        """
        network = self.alone(seed)
        for name, module in list(network.body.named_modules()):
            if type(module) is nn.BatchNorm2d:
                network.body.set_submodule(name, make_norm(norm, module.num_features, affine=module.affine))
            elif type(module) is nn.GroupNorm and norm == "none":
                network.body.set_submodule(name, nn.Identity())
        initialise(network.body, seed, kaiming_head=True)
        if network.new_head is not None:
            initialise(nn.ModuleDict({HEAD: network.new_head}), seed, kaiming_head=True)
        return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]

    def alone(self, seed: int = 0) -> OwnNetwork:
        """Build the module with its own normalisation and a head of ``n_outputs``, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(child_seed(seed, "module"))
            module = self._make().eval().requires_grad_()
            for part in module.modules():
                if getattr(part, "inplace", False):  # it would hide the first layers' outputs from kernels
                    part.inplace = False  # type: ignore[assignment]  # a flag of activations, no module
            return self._with_head(module)

    def cost(self) -> Cost:
        """Parameters and multiply–accumulates, as counted for architectures."""
        network = self.alone()
        shape = (1, self.in_channels, self.image_size, self.image_size)
        macs = sum(cost.macs for cost in layer_costs(network, lambda: network(torch.zeros(shape))).values())
        return Cost(sum(parameter.numel() for parameter in network.parameters()), macs, 0)

    def _make(self) -> nn.Module:
        """Call the factory, or copy the module."""
        if isinstance(self.factory, nn.Module):
            return deepcopy(self.factory)
        told = {"n_outputs": self.n_outputs, "num_classes": self.n_outputs, "n_classes": self.n_outputs}
        told |= {"in_channels": self.in_channels, "in_chans": self.in_channels}
        told |= {"image_size": self.image_size, "img_size": self.image_size}
        try:
            parameters = inspect.signature(self.factory).parameters
            module = self.factory(**{name: value for name, value in told.items() if name in parameters})
        except Exception as error:  # whatever a stranger's code raises
            raise UsageError(
                f"module {self.name!r} could not be built ({type(error).__name__}: {error}); expected a factory "
                f"whose parameters have defaults, or are among {', '.join(told)}."
            ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"module {self.name!r}: the factory returned {module!r}; expected a torch.nn.Module.")
        return module

    def _with_head(self, body: nn.Module) -> OwnNetwork:
        """Find the head and the last feature map; replace a head of another size, make one where there is none."""
        result, ran = self._run(body)
        names = {module: name for name, module in body.named_modules()}
        layer = next(
            (layer for layer, output in reversed(ran) if output is result and isinstance(layer, nn.Linear)), None
        )
        before = [(names[each], output) for each, output in ran if each is not layer] or [(names[ran[-1][0]], result)]
        maps = [name for name, output in before if output.ndim == 4 and output[0, 0].numel() > 1] or [before[-1][0]]
        if layer is None or result.ndim != 2:
            return OwnNetwork(body, "", maps[-1], nn.Linear(_pool(result).shape[1], self.n_outputs))
        if layer.out_features != self.n_outputs:
            head = nn.Linear(layer.in_features, self.n_outputs, bias=layer.bias is not None)
            body.set_submodule(names[layer], head)
        return OwnNetwork(body, names[layer], maps[-1], None)

    def _run(self, body: nn.Module) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]]:
        """Run one image: what comes out, and what each innermost layer put out, in order."""
        ran: list[tuple[nn.Module, Tensor]] = []

        def watch(layer: nn.Module, _: object, output: Any) -> None:
            if isinstance(output, Tensor):
                ran.append((layer, output))

        layers = [module for module in body.modules() if next(module.children(), None) is None]
        handles = [layer.register_forward_hook(watch) for layer in layers]
        shape = (1, self.in_channels, self.image_size, self.image_size)
        try:
            with torch.no_grad():
                result = body(torch.zeros(shape))
        except Exception as error:  # whatever a stranger's code raises
            raise UsageError(
                f"module {self.name!r} cannot run images of shape {list(shape)} ({type(error).__name__}: {error}); "
                "choose --image-size and --data to fit, or let the factory take in_channels and image_size."
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if not isinstance(result, Tensor) or result.ndim not in (2, 4) or len(result) != 1 or not ran:
            got = f"shape {list(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise UsageError(
                f"module {self.name!r} puts out {got}; expected logits [row, output], or features [row, feature] or "
                "[row, channel, height, width], from layers that are modules."
            )
        return result, ran


def _pool(features: Tensor) -> Tensor:
    """Average maps over their pixels."""
    return features.mean(dim=(-2, -1)) if features.ndim == 4 else features
