"""What methods with an inner loop share: gradient descent inside an episode, differentiable from outside."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import grad

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError
from metantk_nas.learners.base import (
    AbstractLearner,
    EpisodeLoss,
    MetaModel,
    Parameters,
    Predictor,
    check_head,
    outputs,
    task_loss,
)
from metantk_nas.networks.norms import NormKind

Loss = Callable[[Parameters], Tensor]
"""Scalar loss of some parameters."""

NOTHING: Parameters = {}


class AbstractInnerLoop(AbstractLearner):
    """Interface of learners that predict with the network itself, its weights adapted to the support set.

    What is said here of `make_model` and `episode_loss` is MAML's way; methods that differ say their own.

    Attributes:
        inner_steps: gradient steps while training, where there are any.
        inner_steps_test: gradient steps when adapting to new classes.

    Raises:
        UsageError: fewer than no steps.
    """

    inner_steps: int
    inner_steps_test: int

    regresses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("inner_steps", "inner_steps_test"):
            steps = getattr(self, name, 0)  # one takes none in training
            if steps < 0:
                raise UsageError(f"{name} is {steps}; expected at least 0 steps.")

    @property
    def norm(self) -> NormKind:
        """Statistics of the images at hand, as in the code of MAML: transductive."""
        return "batch_stats"

    def make_model(self, network: nn.Module) -> MetaModel:
        """All weights of the network are meta-learned."""
        return MetaModel(network)

    @abstractmethod
    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Return the parameters after ``steps`` steps on a support set."""

    def episode_loss(self, model: MetaModel, parameters: Parameters, episode: Episode) -> EpisodeLoss:
        """Compute the loss of the query set after ``inner_steps`` steps on the support set."""
        adapted = self.adapted(
            model, parameters, episode.support_images, episode.support_labels, steps=self.inner_steps
        )
        return query_loss(model, adapted, episode)

    def adapt(
        self, model: MetaModel, parameters: Parameters, support_images: Tensor, support_labels: Tensor, n_way: int
    ) -> Predictor:
        """Take ``inner_steps_test`` steps on the support set; ``n_way`` is what the head was built for."""
        check_head(model, n_way)
        adapted = self.adapted(model, parameters, support_images, support_labels, steps=self.inner_steps_test)
        return lambda query_images: outputs(model, adapted, query_images).logits


def descend(
    loss: Loss,
    parameters: Parameters,
    *,
    lr: float | Tensor | Parameters,
    steps: int,
    first_order: bool = False,
) -> Parameters:
    """Take ``steps`` steps of gradient descent, ``θ ← θ − α ∇L(θ)``.

    Args:
        loss: scalar loss of the parameters.
        parameters: where to start; left as they are.
        lr: α, the inner learning rate: one for all, or one tensor for each parameter, by name.
        steps: number of steps; 0 returns the start.
        first_order: treat ∇L as a constant, so that no second derivative is taken from outside.
    """
    for _ in range(steps):
        gradients = grad(loss)(detached(parameters) if first_order else dict(parameters))
        gradients = detached(gradients) if first_order else gradients
        rates = lr if isinstance(lr, Mapping) else dict.fromkeys(parameters, lr)
        parameters = {name: value - rates[name] * gradients[name] for name, value in parameters.items()}
    return parameters


def fit_loss(model: MetaModel, images: Tensor, labels: Tensor, *, frozen: Parameters = NOTHING) -> Loss:
    """Return the loss on some rows as a function of the weights that move; ``frozen`` has the others."""
    return lambda fast: task_loss(outputs(model, {**frozen, **fast}, images).logits, labels)


def query_loss(model: MetaModel, adapted: Parameters, episode: Episode) -> EpisodeLoss:
    """Judge adapted parameters on the query set."""
    logits = outputs(model, adapted, episode.query_images).logits
    return EpisodeLoss(task_loss(logits, episode.query_labels), logits)


def zero_with_gradient(gradients: Parameters, parameters: Parameters) -> Tensor:
    """Return 0 as a function of ``parameters`` with the gradient ``gradients``; added to a loss it alters only that."""
    inner = torch.stack([(parameters[name] * part.detach()).sum() for name, part in gradients.items()]).sum()
    return inner - inner.detach()


def weights(parameters: Parameters) -> dict[str, Tensor]:
    """Take the network's own parameters, without those that a learner adds."""
    return {name: value for name, value in parameters.items() if name.startswith("network.")}


def detached(parameters: Parameters) -> dict[str, Tensor]:
    """The same values as constants."""
    return {name: value.detach() for name, value in parameters.items()}


def flatten(parameters: Parameters) -> Tensor:
    """Lay all tensors end to end, in the order of the mapping."""
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def unflatten(vector: Tensor, like: Parameters) -> dict[str, Tensor]:
    """Undo `flatten`: cut a vector into tensors of the shapes of ``like``."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
