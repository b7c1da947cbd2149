import pytest
import torch

from metantk_nas.errors import UsageError
from metantk_nas.learners.base import meta_parameters
from metantk_nas.learners.gradients import meta_gradients, task_weights
from metantk_nas.learners.registry import make_learner, make_train_settings
from metantk_nas.learners.trainer import train
from tests.contracts.learner import episodes, make_model


def test_agreement_favours_tasks_that_pull_the_same_way() -> None:
    gradients = {"w": torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.3]]), "scale": torch.tensor([0.5, 0.5, -0.5])}
    weights = task_weights(gradients, "agreement", temperature=0.5)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights > 0).all()
    assert weights[:2].min() > 2 * weights[2]


def test_agreement_equals_the_formula() -> None:
    gradients = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = gradients.mean(0)
    cosines = torch.stack([g @ mean / (g.norm() * mean.norm()) for g in gradients])
    expected = (cosines / 0.2).exp() / (cosines / 0.2).exp().sum()
    found = task_weights({"a": gradients[:, :2], "b": gradients[:, 2:].reshape(4, 2, 2)}, "agreement", temperature=0.2)
    torch.testing.assert_close(found, expected)


def test_agreement_ignores_the_length_of_equal_directions_and_high_temperature_is_the_mean() -> None:
    gradients = {"w": torch.tensor([[2.0, 1.0], [4.0, 2.0], [0.5, 0.25]])}
    torch.testing.assert_close(task_weights(gradients, "agreement", temperature=0.1), torch.full((3,), 1 / 3))
    other = {"w": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])}
    torch.testing.assert_close(
        task_weights(other, "agreement", temperature=1e6), task_weights(other, "none", temperature=1.0)
    )


def test_an_unknown_weighting_names_the_near_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'agreement'"):
        task_weights({"w": torch.ones(2, 2)}, "agrement", temperature=1.0)  # type: ignore[arg-type]  # the point


def test_running_statistics_cannot_be_vectorised() -> None:
    learner = make_learner("protonet")
    model = make_model(learner)
    with pytest.raises(UsageError, match="keeps running statistics"):
        meta_gradients(learner, model, meta_parameters(learner, model), [episodes("base")(0)], vectorise=True)
    meta_gradients(learner, model.eval(), meta_parameters(learner, model), [episodes("base")(0)], vectorise=True)


@pytest.mark.parametrize("settings", [{"task_weighting": "agreement"}, {"vectorise": True}])
def test_the_trainer_uses_it(settings: dict[str, object]) -> None:
    learner = make_learner("anil")
    plain, other = make_model(learner), make_model(learner)
    for model, extra in ((plain, {}), (other, settings)):
        run = make_train_settings("anil", train_budget=8, optimiser="sgd", outer_lr=0.01, **extra)
        train(learner, model, episodes("base"), None, run)
    same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert same is ("vectorise" in settings)
