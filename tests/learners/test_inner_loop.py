from typing import Any

import pytest
import torch

from metantk_nas.errors import UsageError
from metantk_nas.learners.anil import Anil
from metantk_nas.learners.inner_loop import descend, flatten, unflatten, zero_with_gradient
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.reptile import Reptile


def parabola(p: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum((value**2).sum() for value in p.values()) / 2


def test_descent_on_a_parabola_is_geometric() -> None:
    start = {"x": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    torch.testing.assert_close(descend(parabola, start, lr=0.1, steps=7)["x"], start["x"] * 0.9**7)
    assert descend(parabola, start, lr=0.1, steps=0) is start


def test_each_parameter_may_have_a_rate_of_its_own() -> None:
    start = {"x": torch.ones(2), "y": torch.ones(3)}
    end = descend(parabola, start, lr={"x": torch.tensor([0.5, 0.0]), "y": torch.tensor(1.0)}, steps=2)
    torch.testing.assert_close(end, {"x": torch.tensor([0.25, 1.0]), "y": torch.zeros(3)})


@pytest.mark.parametrize("first_order", [False, True])
def test_first_order_descent_is_a_shift_seen_from_outside(first_order: bool) -> None:
    start = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    end = descend(parabola, {"x": start}, lr=0.1, steps=2, first_order=first_order)["x"]
    end.sum().backward()
    assert end.item() == pytest.approx(3 * 0.81)
    assert start.grad is not None
    assert start.grad.item() == pytest.approx(1.0 if first_order else 0.81)


def test_first_order_descent_hides_whatever_else_the_loss_depends_on() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    start = torch.tensor([3.0], requires_grad=True)
    end = descend(lambda p: scale * parabola(p), {"x": start}, lr=0.1, steps=2, first_order=True)["x"]
    slopes = torch.autograd.grad(end.sum(), [start, scale], materialize_grads=True)
    assert [slope.item() for slope in slopes] == [1, 0]


def test_a_vector_is_cut_as_it_was_laid_end_to_end() -> None:
    tree = {
        "a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "b": torch.randn(()),
        "c": torch.ones(7),
    }
    torch.testing.assert_close(unflatten(flatten(tree), like=tree), tree)


def test_a_zero_with_a_gradient_alters_the_gradient_of_a_loss_alone() -> None:
    weight = torch.tensor([2.0, 5.0], requires_grad=True)
    loss = weight.prod() + zero_with_gradient({"w": torch.tensor([10.0, 20.0])}, {"w": weight})
    loss.backward()
    assert loss.item() == 10
    assert weight.grad is not None
    assert weight.grad.tolist() == [15.0, 22.0]


@pytest.mark.parametrize("learner", [Maml, Anil, Reptile])
@pytest.mark.parametrize("name", ["inner_steps", "inner_steps_test"])
def test_fewer_than_no_steps_are_refused(learner: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is -1; expected at least 0 steps"):
        learner(**{name: -1})
