import torch
from torch.nn.functional import cross_entropy

from metantk_nas.learners.anil import Anil
from metantk_nas.learners.base import HEAD_BIAS, HEAD_WEIGHT, meta_parameters, outputs
from tests.contracts.gradients import check_meta_gradient, smooth_case
from tests.contracts.learner import LearnerContract, episodes, in_double, make_model, predict


class TestAnil(LearnerContract):
    name = "anil"


def test_only_the_head_adapts() -> None:
    """Predictions are those of a linear layer, trained by plain autograd on frozen features."""
    learner = Anil(inner_lr=0.2, inner_steps_test=4)
    model, episode = in_double(make_model(learner), episodes("novel", n_shot=2)(0))
    parameters = meta_parameters(learner, model)
    support, query = (
        outputs(model, parameters, x).features.detach() for x in (episode.support_images, episode.query_images)
    )
    weight, bias = (parameters[name].detach().clone().requires_grad_() for name in (HEAD_WEIGHT, HEAD_BIAS))
    optimiser = torch.optim.SGD([weight, bias], lr=0.2)
    for _ in range(4):
        optimiser.zero_grad()
        cross_entropy(support @ weight.T + bias, episode.support_labels).backward()
        optimiser.step()
    torch.testing.assert_close(predict(learner, model, episode), (query @ weight.T + bias).detach())


def test_the_outer_gradient_flows_through_the_inner_loop() -> None:
    learner = Anil(inner_lr=0.2, inner_steps=3)
    check_meta_gradient(learner, *smooth_case(learner))
