"""Matching networks: attention over the support set."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from metantk_nas.learners.base import MetaModel, Parameters, one_hot
from metantk_nas.learners.features import (
    INITIAL_SCALE,
    AbstractFeatureLearner,
    Head,
    positive,
    positive_parameters,
    same_start,
)

State = tuple[Tensor, Tensor]
"""Output and memory of an LSTM."""


@final
@dataclass(frozen=True)
class MatchingNet(AbstractFeatureLearner):
    """Matching networks (Vinyals et al., NeurIPS 2016, arXiv 1606.04080).

    ``P(y | x) = Σ_i a(x, x_i) [y_i = y]`` with ``a = softmax_i(γ cos(f(x), g(x_i)))`` (equation 1); logits are its
    logarithm. The paper has γ = 1, which bounds how sure a prediction can be; here γ is learnt.

    With full-context embeddings (its appendix A) g reads the support set with a bidirectional LSTM, one image after
    the other, so predictions depend on the order of the support images; f looks at g for some steps of an LSTM with
    attention, from h₀ = the feature on. They are as wide as the features and start alike in every run.

    Args:
        full_context: embed images in the context of the support set.
        read_steps: looks of f at the support set.
    """

    full_context: bool = False
    read_steps: int = 5

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features, γ and the LSTMs are meta-learned."""
        extra: Any = positive_parameters(scale=INITIAL_SCALE)
        if self.full_context:
            width: Any = network.n_features
            with same_start("matching_net"):
                extra.forwards, extra.backwards = nn.LSTMCell(width, width), nn.LSTMCell(width, width)
                extra.reader = nn.LSTMCell(2 * width, width)
        return MetaModel(network, extra)

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Embed the support set."""
        support = in_context(parameters, features) if self.full_context else features
        members = one_hot(labels, n_way, like=features).bool()
        keys = normalize(support)

        def attend(query: Tensor) -> Tensor:
            read = self._read(parameters, query, support) if self.full_context else query
            attention = (positive(parameters, "scale") * normalize(read) @ keys.mT).log_softmax(1)
            return attention[:, :, None].masked_fill(~members, -torch.inf).logsumexp(1)

        return attend

    def _read(self, parameters: Parameters, query: Tensor, support: Tensor) -> Tensor:
        """``f(x, S)``: ``h_k = LSTM(x, [h_{k−1}, r_{k−1}]) + x``, ``r_k = softmax(h_k · g(S)) g(S)`` (3–6)."""
        hidden, memory = query, torch.zeros_like(query)
        for _ in range(self.read_steps):
            looked_at = (hidden @ support.mT).softmax(1) @ support
            output, memory = lstm_step(parameters, "reader", torch.cat([query, looked_at], dim=1), (hidden, memory))
            hidden = output + query
        return hidden


def in_context(parameters: Parameters, features: Tensor) -> Tensor:
    """``g(x_i, S)``: outputs of an LSTM over the support set in each direction, plus the feature (appendix A.2)."""
    there = _outputs(parameters, "forwards", features)
    back = _outputs(parameters, "backwards", features.flip(0)).flip(0)
    return there + back + features


def _outputs(parameters: Parameters, cell: str, rows: Tensor) -> Tensor:
    state = torch.zeros_like(rows[:1]), torch.zeros_like(rows[:1])
    found = []
    for row in rows.split(1):
        state = lstm_step(parameters, cell, row, state)
        found.append(state[0])
    return torch.cat(found)


def lstm_step(parameters: Parameters, cell: str, rows: Tensor, state: State) -> State:
    """One step of an LSTM, whose weights go by the name ``cell``, on rows ``[row, feature]``."""
    weights = [parameters[f"extra.{cell}.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return torch.lstm_cell(rows, state, *weights)
