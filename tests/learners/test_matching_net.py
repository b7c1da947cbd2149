import math

import pytest
import torch
from torch import Tensor, nn

from metantk_nas.learners.base import MetaModel, meta_parameters
from metantk_nas.learners.matching_net import MatchingNet
from tests.contracts.features import FeatureCase, feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, in_double, make_model, predict
from tests.contracts.learner import episodes as some_episodes
from tests.devices import OtherDevice
from tests.simulated_device import simulated_device


class TestMatchingNet(LearnerContract):
    name = "matching_net"


class TestFullContext(LearnerContract):
    name = "matching_net"
    settings = {"full_context": True}  # noqa: RUF012 (a constant of the test)

    def test_a_device_finds_what_the_processor_finds(self, other_device: OtherDevice) -> None:
        if other_device is simulated_device:
            pytest.skip("PyTorch has an LSTM of its own for GPUs, which a simulated one cannot have")
        super().test_a_device_finds_what_the_processor_finds(other_device)

    def test_the_order_of_support_images_does_not_matter(self) -> None:  # type: ignore[override]  # of other tests
        """It does: an LSTM reads them in turn, forwards and backwards. Read from the other end, both change places."""
        learner = self.learner
        model, episode = in_double(make_model(learner), some_episodes("novel")(0))
        before = predict(learner, model, episode)
        turned = type(episode)(
            episode.support_images.flip(0), episode.support_labels.flip(0), episode.query_images,
            episode.query_labels, episode.n_way, (),
        )  # fmt: skip
        assert not torch.allclose(predict(learner, model, turned), before, atol=1e-4)
        model.extra["forwards"], model.extra["backwards"] = model.extra["backwards"], model.extra["forwards"]
        torch.testing.assert_close(predict(learner, model, turned), before)


def attention(rows: Tensor, keys: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Log probabilities, one query, one support image at a time (equation 1)."""
    found = []
    for row in rows:
        weights = [math.exp(scale * float(row @ key) / float(row.norm() * key.norm())) for key in keys]
        shares = [sum(w for w, label in zip(weights, labels, strict=True) if label == k) for k in range(5)]
        found.append([math.log(share / sum(weights)) for share in shares])
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_predictions_are_softmax_attention_over_cosines(scale: float) -> None:
    learner = MatchingNet()
    case = feature_case(learner)
    with torch.no_grad():
        case.model.extra["log_scale"].fill_(math.log(scale))
    expected = attention(case.query, case.support, case.episode.support_labels, scale)
    found = predict(learner, case.model, case.episode)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(found), dtype=torch.float64))


def test_the_length_of_features_does_not_matter() -> None:
    learner = MatchingNet()
    case = feature_case(learner)
    parameters, labels = meta_parameters(learner, case.model), case.episode.support_labels
    expected = learner.make_head(parameters, case.support, labels, 5)(case.query)
    longer = torch.linspace(0.1, 9, len(case.support))[:, None] * case.support
    torch.testing.assert_close(learner.make_head(parameters, longer, labels, 5)(3 * case.query), expected)


def embed_support(model: MetaModel, support: Tensor) -> Tensor:
    """``g``: PyTorch's own bidirectional LSTM with the learner's weights, plus the features."""
    width = support.shape[1]
    lstm = nn.LSTM(width, width, bidirectional=True).double()
    for cell, suffix in (("forwards", "l0"), ("backwards", "l0_reverse")):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(lstm, f"{kind}_{suffix}").data = getattr(model.extra[cell], kind).data
    there, back = lstm(support)[0].split(width, dim=1)
    return there + back + support


def embed_query(model: MetaModel, case: FeatureCase, support: Tensor, n_steps: int) -> Tensor:
    """``f``, one query at a time (equations 3 to 6); h starts at the feature, r is what h looks at."""
    reader: nn.LSTMCell = model.extra["reader"]
    found = []
    for row in case.query:
        hidden, memory = row, torch.zeros_like(row)
        for _ in range(n_steps):
            looks = torch.softmax(torch.stack([hidden @ key for key in support]), 0)
            read = sum(look * key for look, key in zip(looks, support, strict=True))
            output, memory = reader(torch.cat([row, read]), (hidden, memory))
            hidden = output + row
        found.append(hidden)
    return torch.stack(found)


def test_full_context_embeddings_are_those_of_pytorchs_lstm() -> None:
    learner = MatchingNet(full_context=True, read_steps=3)
    case = feature_case(learner, n_shot=2)
    with torch.no_grad():
        support = embed_support(case.model, case.support)
        query = embed_query(case.model, case, support, n_steps=3)
    expected = attention(query, support, case.episode.support_labels, scale=10.0)
    torch.testing.assert_close(predict(learner, case.model, case.episode), expected)


@pytest.mark.parametrize("full_context", [False, True])
def test_the_outer_gradient_flows_through_the_attention(full_context: bool) -> None:
    learner = MatchingNet(full_context=full_context, read_steps=2)
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))
