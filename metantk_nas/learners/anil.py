"""ANIL: MAML whose inner loop touches the head only."""

from dataclasses import dataclass
from typing import final

from torch import Tensor
from torch.nn.functional import linear

from metantk_nas.learners.base import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    MetaModel,
    Parameters,
    outputs,
    task_loss,
)
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend


@final
@dataclass(frozen=True)
class Anil(AbstractInnerLoop):
    """Almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020, arXiv 1909.09157).

    Features ``φ_θ`` are computed once; only the head ``W`` adapts, ``W_i = W − α ∇_W L_S``. The outer loop learns
    ``θ`` and the initial ``W`` through the inner loop, second derivatives included.

    Args:
        inner_lr: α.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    inner_lr: float = 0.1
    inner_steps: int = 5
    inner_steps_test: int = 10

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend in the head, on features that stay."""
        features = outputs(model, parameters, images).features

        def loss(head: Parameters) -> Tensor:
            return task_loss(linear(features, head[HEAD_WEIGHT], head[HEAD_BIAS]), labels)

        head = {name: parameters[name] for name in (HEAD_WEIGHT, HEAD_BIAS)}
        return {**parameters, **descend(loss, head, lr=self.inner_lr, steps=steps)}
