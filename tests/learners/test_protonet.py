import torch

from metantk_nas.learners.base import meta_parameters, outputs
from metantk_nas.learners.features import INITIAL_SCALE
from metantk_nas.learners.protonet import ProtoNet, class_means, mean_squared_distance, prototype_logits
from tests.contracts.learner import LearnerContract, make_model


class TestProtoNet(LearnerContract):
    name = "protonet"


def test_logits_equal_the_linear_form() -> None:
    """−‖q − c‖² = 2 c·q − ‖c‖² − ‖q‖², and the last term is the same for all classes (Snell et al., section 2.4)."""
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (12, 9))
    labels = torch.tensor([0, 2, 1, 1, 2, 0, 0, 2, 2, 1, 0, 2])
    prototypes = torch.stack([support[labels == k].mean(0) for k in range(3)])
    linear = 2 * query @ prototypes.T - prototypes.square().sum(1)
    logits = prototype_logits(class_means(support, labels, 3), query)
    torch.testing.assert_close(logits, linear - query.square().sum(1, keepdim=True))
    torch.testing.assert_close(logits.log_softmax(1), linear.log_softmax(1))


def test_the_head_is_not_learnt() -> None:
    learner = ProtoNet()
    names = meta_parameters(learner, make_model(learner)).keys()
    assert names
    assert not any("head" in name for name in names)


def test_a_query_image_is_judged_by_itself() -> None:
    """With running statistics a prediction does not depend on the other query images."""
    learner = ProtoNet()
    model = make_model(learner).eval()
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    predictor = learner.adapt(model, meta_parameters(learner, model), images[:5], torch.arange(5), 5)
    torch.testing.assert_close(predictor(images[5:])[:1], predictor(images[5:6]), rtol=1e-4, atol=1e-4)


def test_mean_squared_distance_is_over_pairs() -> None:
    points = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [(a - b).square().sum() for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
    torch.testing.assert_close(mean_squared_distance(points), torch.stack(pairs).mean())
    assert mean_squared_distance(torch.ones(2, 3)) > 0


def test_the_learnt_scale_multiplies_the_papers_logits_and_receives_a_gradient() -> None:
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    scaled, plain = ProtoNet(), ProtoNet(learn_scale=False)
    model = make_model(scaled).eval()
    parameters = meta_parameters(scaled, model)
    logits = scaled.adapt(model, parameters, images[:5], labels, 5)(images[5:])
    papers = plain.adapt(model, parameters, images[:5], labels, 5)(images[5:])
    unit = mean_squared_distance(outputs(model, parameters, images[:5]).features)
    torch.testing.assert_close(logits, papers * INITIAL_SCALE / unit)
    (gradient,) = torch.autograd.grad(logits.square().sum(), parameters["extra.log_scale"])
    assert gradient > 0
    assert "extra.log_scale" not in meta_parameters(plain, make_model(plain))


def test_logits_do_not_depend_on_the_unit_of_the_features() -> None:
    """Wide and narrow networks start from logits of the same size."""
    features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def logits(scale: float) -> torch.Tensor:
        prototypes, query = scale * features[:5], scale * features[5:]
        return prototype_logits(prototypes, query) / mean_squared_distance(prototypes)

    torch.testing.assert_close(logits(1.0), logits(100.0))
