import pytest
import torch
from torch import Tensor

from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.features import INITIAL_SCALE
from metantk_nas.learners.relation_net import RelationNet, relation_loss
from tests.contracts.features import FeatureCase, feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, make_model, predict


class TestRelationNet(LearnerContract):
    name = "relation_net"


def drawn_case(n_shot: int = 2) -> FeatureCase:
    """With a relation module that is no longer where it started."""
    case = feature_case(RelationNet(), n_shot=n_shot)
    with torch.no_grad():
        for index, parameter in enumerate(case.model.extra.parameters()):
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    return case


def head_logits(case: FeatureCase, support: Tensor, query: Tensor, labels: Tensor) -> Tensor:
    learner = RelationNet()
    return learner.make_head(meta_parameters(learner, case.model), support, labels, 5)(query).detach()


def root_mean_squared_distance(points: list[Tensor]) -> Tensor:
    pairs = [(a - b).square().sum() for a in points for b in points if a is not b]
    return torch.stack(pairs).mean().sqrt()


def test_logits_are_the_relation_modules_of_each_pair() -> None:
    case = drawn_case()
    compare, score = case.model.extra["compare"], case.model.extra["score"]
    means = [case.support[case.episode.support_labels == label].mean(0) for label in range(5)]
    unit = root_mean_squared_distance(means)
    rows = [[score(compare(torch.cat([mean, row]) / unit).relu())[0] for mean in means] for row in case.query]
    expected = torch.stack([torch.stack(row) for row in rows]).detach()
    torch.testing.assert_close(predict(RelationNet(), case.model, case.episode), expected)


def test_at_the_start_it_is_a_distance() -> None:
    """Nothing is closer to a class than its mean; class and query may change places; the unit is a distance's."""
    case = feature_case(RelationNet(), n_shot=1)
    labels = case.episode.support_labels
    among_classes = head_logits(case, case.support, case.support, labels)
    torch.testing.assert_close(among_classes, among_classes.T)
    torch.testing.assert_close(among_classes.diagonal(), torch.full((5,), 2.0, dtype=torch.float64))
    assert (among_classes < 2 + 1e-12).all()
    ways = case.model.extra["compare"].weight.detach()[:32, : case.support.shape[1]]
    apart = (case.support[:, None] - case.support).detach() / root_mean_squared_distance(list(case.support))
    expected = 2 - INITIAL_SCALE / 64 * (apart @ ways.T).abs().sum(2)
    torch.testing.assert_close(among_classes, expected)


def test_the_start_is_the_same_in_every_run_and_leaves_other_draws_alone() -> None:
    network = make_model(RelationNet()).network
    torch.manual_seed(1)
    first, drawn = RelationNet().make_model(network), torch.rand(1)
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, torch.rand(1))
    second = RelationNet().make_model(network)
    for one, other in zip(first.extra.parameters(), second.extra.parameters(), strict=True):
        assert torch.equal(one, other)


def test_neither_the_unit_of_features_nor_the_number_of_equal_shots_matters() -> None:
    case = drawn_case()
    labels = case.episode.support_labels
    before = head_logits(case, case.support, case.query, labels)
    torch.testing.assert_close(head_logits(case, 50 * case.support, 50 * case.query, labels), before)
    twice = head_logits(case, case.support.repeat(2, 1), case.query, labels.repeat(2))
    torch.testing.assert_close(twice, before)


@pytest.mark.parametrize("new_label", [(2, 0, 4, 1, 3), (1, 2, 3, 4, 0)])
def test_scores_of_a_class_follow_it_to_its_new_label_exactly(new_label: tuple[int, ...]) -> None:
    case = drawn_case()
    labels = case.episode.support_labels
    renamed = head_logits(case, case.support, case.query, torch.tensor(new_label)[labels])
    torch.testing.assert_close(renamed[:, new_label], head_logits(case, case.support, case.query, labels))


def test_the_loss_is_the_squared_error_of_relation_scores() -> None:
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1, 1])
    scores = 1 / (1 + (-logits).exp())
    errors = [(scores[i, k] - float(labels[i] == k)) ** 2 for i in range(4) for k in range(3)]
    torch.testing.assert_close(relation_loss(logits, labels), torch.stack(errors).mean())


def test_the_outer_gradient_flows_through_the_comparison() -> None:
    learner = RelationNet()
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))
