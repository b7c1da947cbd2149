"""What learners are trained on and judged by."""

import pytest

from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import UsageError
from metantk_nas.experiment.problems import ImageProblem
from metantk_nas.experiment.spec import TrainSpec
from metantk_nas.experiment.training import read_settings


@pytest.fixture(scope="module")
def problem():
    return ImageProblem(load_dataset("glyphs", image_size=12))


def test_training_episodes_may_have_more_classes_than_those_that_judge(problem):
    spec = TrainSpec(learner="protonet", n_way=5, train_way=12, n_query=2)
    learner, _ = read_settings(spec)
    episode = problem.training(learner, spec)(0)
    assert (episode.n_way, len(episode.support_images), len(episode.query_images)) == (12, 12, 24)
    assert problem.episodes("novel", spec, 3)(0).n_way == 5
    assert problem.n_outputs(learner, spec) == 5


@pytest.mark.parametrize("learner", ["maml", "kernel", "rfs"])
def test_a_learner_that_is_bound_to_its_outputs_is_not(learner):
    with pytest.raises(UsageError, match=rf"--train-way is 12, and learner '{learner}'.*protonet"):
        read_settings(TrainSpec(learner=learner, train_way=12))
