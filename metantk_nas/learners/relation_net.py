"""Relation network: a learnt comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss

from metantk_nas.learners.base import MetaModel, Parameters, one_hot
from metantk_nas.learners.features import INITIAL_SCALE, AbstractFeatureLearner, Head, same_start
from metantk_nas.learners.protonet import class_means, mean_squared_distance


def relation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error of relation scores ``σ(logits)``, 1 for the right class and 0 for the others (equation 2)."""
    return mse_loss(logits.sigmoid(), one_hot(labels, logits.shape[1], like=logits))


@final
@dataclass(frozen=True)
class RelationNet(AbstractFeatureLearner):
    """Relation network (Sung et al., CVPR 2018, arXiv 1711.06025).

    A relation module scores the pair of a class and a query, their features side by side. The paper's module
    convolves feature maps; networks here give one vector an image, so it is a perceptron of one hidden layer,
    ``r = σ(vᵀ relu(U [c_k; φ(x)] + u) + v₀)``, trained on the squared error of r (equation 2). It starts as
    random projections of the difference of the two features, a distance, from where it learns far sooner than from
    anywhere; alike in every run. A class is the mean of its support features, where the paper has their sum, which
    would depend on the number of shots, and features are measured in units of the root mean squared distance between
    class means, as in `ProtoNet`. Logits are relation scores before the sigmoid.

    Args:
        hidden: units of the relation module.
    """

    hidden: int = 64

    query_loss: ClassVar[Callable[[Tensor, Tensor], Tensor]] = staticmethod(relation_loss)

    def make_model(self, network: nn.Module) -> MetaModel:
        """Features and the relation module are meta-learned."""
        width: Any = network.n_features
        with same_start("relation_net"):
            compare, score = nn.Linear(2 * width, self.hidden), nn.Linear(self.hidden, 1)
            ways = torch.randn(self.hidden // 2, width)
        with torch.no_grad():
            compare.weight.copy_(torch.cat([torch.cat([ways, -ways]), torch.cat([-ways, ways])], dim=1))
            compare.bias.zero_()
            score.weight.fill_(-INITIAL_SCALE / self.hidden)
            score.bias.fill_(2)
        return MetaModel(network, nn.ModuleDict({"compare": compare, "score": score}))

    def make_head(self, parameters: Parameters, features: Tensor, labels: Tensor, n_way: int) -> Head:
        """Compute the class means."""
        classes = class_means(features, labels, n_way)
        unit = mean_squared_distance(classes).sqrt()

        def relate(query: Tensor) -> Tensor:
            pairs = torch.cat(torch.broadcast_tensors(classes, query[:, None]), dim=2) / unit  # [query, n_way, 2 width]
            hidden = _layer(parameters, "compare", pairs).relu()
            return _layer(parameters, "score", hidden)[..., 0]

        return relate


def _layer(parameters: Parameters, name: str, rows: Tensor) -> Tensor:
    return linear(rows, parameters[f"extra.{name}.weight"], parameters[f"extra.{name}.bias"])
