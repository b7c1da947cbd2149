import pytest

from metantk_nas.errors import UsageError
from metantk_nas.learners.maml import Maml
from metantk_nas.learners.registry import LEARNERS, learner_name, make_learner, make_train_settings


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_built_by_its_name_and_knows_it(name: str) -> None:
    info = LEARNERS[name]
    assert learner_name(make_learner(name, **info.settings)) == name
    assert "arXiv" in info.paper
    assert info.description


def test_settings_reach_the_learner_and_the_outer_loop() -> None:
    assert make_learner("maml", first_order=True, inner_lr=0.01) == Maml(first_order=True, inner_lr=0.01)
    assert make_train_settings("rfs", train_budget=7).optimiser == "sgd"
    assert make_train_settings("rfs", optimiser="adam").optimiser == "adam"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_learner("protonets"), "learner 'protonets' not found.*Did you mean 'protonet'"),
        (lambda: make_learner("maml", inner_rl=0.1), "setting of learner 'maml': 'inner_rl'.*Did you mean 'inner_lr'"),
        (lambda: make_train_settings("maml", train_buget=3), "training setting 'train_buget'.*'train_budget'"),
        (lambda: make_train_settings("mamll"), "Did you mean 'maml'"),
    ],
)
def test_unknown_names_come_with_the_near_miss(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()  # type: ignore[operator]  # a callable among the parameters


@pytest.mark.parametrize(("name", "setting"), [("fomaml", {"inner_steps": 3}), ("boil", {"inner_lr": 0.3})])
def test_a_learner_with_other_settings_keeps_its_name(name: str, setting: dict[str, float]) -> None:
    assert learner_name(make_learner(name, **setting)) == name
