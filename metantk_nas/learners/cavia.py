"""CAVIA: adapt a few context parameters, share all weights."""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from metantk_nas.learners.base import MetaModel, Parameters
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend, fit_loss, flatten, unflatten
from metantk_nas.rng import child_seed

CONTEXT, FILM = "context", "extra.film"


@final
@dataclass(frozen=True)
class Cavia(AbstractInnerLoop):
    """Fast context adaptation via meta-learning (Zintgraf et al., ICML 2019, arXiv 1810.03642).

    ``φ_i = φ_0 − α ∇_φ L_S(θ, φ)`` with ``φ_0 = 0``; the outer loop minimises ``L_Q(θ, φ_i)`` in θ alone, second
    derivatives included. Weights are the same for all tasks, so a task is a vector of ``n_context`` numbers.

    The paper feeds φ to the input of its perceptron, and in Conv-4 through a linear map to a scale and a shift (FiLM)
    of the third layer's feature maps. For any network, here: a linear map of φ is added to scale and shift of every
    normalisation layer, or, where there is none, to the bias of every layer before the head, which is what φ beside
    that layer's input would do. The paper has α = 1 and 2 steps; with a short budget, larger steps learn more.

    Args:
        n_context: numbers in φ.
        inner_lr: α.
        inner_steps: steps while training.
        inner_steps_test: steps when adapting to new classes.
        first_order: drop second derivatives.
    """

    n_context: int = 100
    inner_lr: float = 10.0
    inner_steps: int = 3
    inner_steps_test: int = 3
    first_order: bool = False

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights and the linear map are meta-learned; φ starts at zero and is adapted."""
        model = MetaModel(network)
        parameters = dict(model.named_parameters())
        n_modulated = len(flatten({name: parameters[name] for name in modulated(model)}))
        generator = torch.Generator().manual_seed(child_seed(0, "cavia", "film"))
        film = torch.empty(self.n_context, n_modulated)
        nn.init.uniform_(film, -1 / math.sqrt(self.n_context), 1 / math.sqrt(self.n_context), generator=generator)
        model.extra = nn.ParameterDict({"film": film})
        return model

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend in φ; return the weights that it makes of ``parameters``."""
        names = modulated(model)
        before = {name: parameters[name] for name in names}

        def in_context(context: Parameters) -> Parameters:
            shift = unflatten(context[CONTEXT] @ parameters[FILM], like=before)
            return {**parameters, **{name: before[name] + shift[name] for name in names}}

        loss = fit_loss(model, images, labels)
        nothing = {CONTEXT: parameters[FILM].new_zeros(self.n_context)}
        found = descend(
            lambda context: loss(in_context(context)),
            nothing,
            lr=self.inner_lr,
            steps=steps,
            first_order=self.first_order,
        )
        return in_context(found)


def modulated(model: MetaModel) -> list[str]:
    """Names of the parameters that the context moves."""
    network: Any = model.network
    modules = {path: module for path, module in network.named_modules(prefix="network") if module is not network.head}
    norms = {path: module for path, module in modules.items() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)}
    kinds = ("weight", "bias") if norms else ("bias",)
    places = [(path, module, kind) for path, module in (norms or modules).items() for kind in kinds]
    return [f"{path}.{kind}" for path, module, kind in places if getattr(module, kind, None) is not None]
