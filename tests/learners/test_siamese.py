import torch
from torch import Tensor

from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.siamese import Siamese, class_scores, pair_scores
from tests.contracts.features import FeatureCase, feature_case
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, in_double, make_model, predict
from tests.contracts.learner import episodes as some_episodes


class TestSiamese(LearnerContract):
    name = "siamese"


def drawn_case(n_shot: int = 3) -> FeatureCase:
    """With features of unlike importance."""
    case = feature_case(Siamese(), n_shot=n_shot)
    with torch.no_grad():
        case.model.extra["importance"].uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    return case


def scores(case: FeatureCase, query: Tensor, support: Tensor) -> Tensor:
    parameters = meta_parameters(Siamese(), case.model)
    return pair_scores(parameters, query, support, case.episode.support_labels, 5).detach()


def test_logits_are_the_mean_weighted_distance_to_each_class() -> None:
    case = drawn_case()
    labels = case.episode.support_labels
    importance, bias = (case.model.extra[name].detach() for name in ("importance", "bias"))
    means = [case.support[labels == label].mean(0) for label in range(5)]
    unit = torch.stack([(a - b).square().sum() for a in means for b in means if a is not b]).mean().sqrt()
    expected = torch.zeros(len(case.query), 5, dtype=torch.float64)
    for i, row in enumerate(case.query):
        for other, label in zip(case.support, labels, strict=True):
            distance = sum(a * abs(x - y) for a, x, y in zip(importance, row, other, strict=True))
            expected[i, label] += (bias - distance / unit) / 3
    torch.testing.assert_close(predict(Siamese(), case.model, case.episode), expected)


def test_a_pair_scores_alike_both_ways_and_nothing_is_more_like_an_image_than_itself() -> None:
    case = drawn_case()
    among = scores(case, case.support, case.support)
    torch.testing.assert_close(among, among.T)
    torch.testing.assert_close(among.diagonal(), case.model.extra["bias"].detach().expand(len(among)))
    off_diagonal = among[~torch.eye(len(among), dtype=torch.bool)]
    assert (off_diagonal < case.model.extra["bias"]).all()


def test_pairs_follow_their_images() -> None:
    case = drawn_case()
    before = scores(case, case.query, case.support)
    order = torch.randperm(len(case.query), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scores(case, case.query[order], case.support), before[order])
    torch.testing.assert_close(scores(case, 50 * case.query, 50 * case.support), before)


def test_a_class_scores_the_mean_of_its_pairs_whatever_their_number() -> None:
    pairs = torch.tensor([[1.0, 2.0, 6.0, 4.0]])
    torch.testing.assert_close(class_scores(pairs, torch.tensor([1, 0, 1, 1]), 2), torch.tensor([[2.0, 11 / 3]]))


def test_the_loss_weighs_pairs_of_one_class_as_much_as_all_others_together() -> None:
    """Against a mean over an even draw: each like pair as often as it takes to have as many of either."""
    learner = Siamese()
    model, episode = in_double(make_model(learner), some_episodes("novel", n_shot=2)(0))
    parameters = meta_parameters(learner, model)
    support, query = (model(images).features for images in (episode.support_images, episode.query_images))
    chances = pair_scores(parameters, query, support, episode.support_labels, 5).sigmoid()
    alike = episode.query_labels[:, None] == episode.support_labels
    like, unlike = -chances[alike].log(), -(1 - chances[~alike]).log()
    assert len(unlike) == 4 * len(like)
    even = torch.cat([like.repeat(4), unlike])
    loss = learner.episode_loss(model, parameters, episode).loss
    torch.testing.assert_close(loss, even.sum() / alike.numel())


def test_the_outer_gradient_flows_through_the_pairs() -> None:
    learner = Siamese()
    model, episode = smooth_case(learner)
    check_meta_gradient(learner, model, episode)
    check_meta_gradient(learner, model, episode, among=lambda name: name.startswith("extra."))
