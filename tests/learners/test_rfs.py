import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info
from torch.nn.functional import normalize

from metantk_nas.learners.augment import crop_and_flip
from metantk_nas.learners.base import meta_parameters, outputs
from metantk_nas.learners.rfs import Rfs
from metantk_nas.learners.sources import ImageBatches
from tests.contracts.learner import LearnerContract, episodes, in_double, make_model, patterns, predict


class TestRfs(LearnerContract):
    name = "rfs"


@pytest.mark.parametrize("n_way", [2, 5])
def test_predictions_are_those_of_logistic_regression_on_unit_features(n_way: int) -> None:
    learner = Rfs()
    model, episode = in_double(make_model(learner), episodes("novel", n_shot=3)(0))
    parameters = meta_parameters(learner, model)
    chosen = episode.support_labels < n_way
    images, labels = episode.support_images[chosen], episode.support_labels[chosen]
    with torch.no_grad():
        support, query = (normalize(outputs(model, parameters, x).features) for x in (images, episode.query_images))
        found = learner.adapt(model, parameters, images, labels, n_way)(episode.query_images)
    regression = LogisticRegression(max_iter=1000).fit(support.numpy(), labels.numpy())
    expected = torch.from_numpy(regression.predict_log_proba(query.numpy()))
    torch.testing.assert_close(found.log_softmax(1), expected, rtol=1e-6, atol=1e-6)


def test_colour_support_images_are_augmented_and_grey_ones_are_not() -> None:
    for n_channels, helps in ((1, False), (3, True)):
        model, episode = in_double(
            make_model(Rfs(), n_channels=n_channels), episodes("novel", n_channels=n_channels)(0)
        )
        one, five = (predict(Rfs(n_copies=n), model, episode) for n in (1, 5))
        assert torch.equal(one, five) is not helps


def test_a_crop_is_a_shift_and_a_flip_mirrors() -> None:
    image = torch.arange(1.0, 65).view(1, 1, 8, 8)
    seen = set()
    for seed in range(60):
        out = crop_and_flip(image, torch.Generator().manual_seed(seed))[0, 0]
        rows, columns = out.nonzero(as_tuple=True)
        centre = out[2:6, 2:6]
        step_down, step_right = (centre[1, 0] - centre[0, 0]).item(), (centre[0, 1] - centre[0, 0]).item()
        assert step_down == 8
        seen.add((step_right, 64 - len(rows)))
        assert out[rows, columns].unique().numel() == len(rows)
    uncovered = {0, 8, 15}  # nothing; a row or a column; both
    assert seen == {(step, n) for step in (1, -1) for n in uncovered}


def test_images_are_augmented_apart_unless_asked_alike() -> None:
    images = torch.randn(1, 3, 16, 16).expand(20, -1, -1, -1)
    apart = crop_and_flip(images, torch.Generator().manual_seed(0))
    alike = crop_and_flip(images, torch.Generator().manual_seed(0), alike=True)
    assert len(apart.unique(dim=0)) > 10
    assert len(alike.unique(dim=0)) == 1


def test_image_batches_visit_every_image_once_an_epoch_in_a_new_order() -> None:
    batches = ImageBatches(patterns(), batch_size=60, seed=0)
    epochs = [torch.cat([batches(6 * epoch + i).query_images for i in range(6)]) for epoch in range(2)]
    assert len(epochs[0]) == patterns().base.n_images
    assert torch.equal(epochs[0].unique(dim=0), epochs[1].unique(dim=0))
    assert not torch.equal(*epochs)
    assert torch.equal(batches(8).query_labels, ImageBatches(patterns(), batch_size=60, seed=0)(8).query_labels)


def test_image_batches_pair_images_with_their_labels() -> None:
    dataset = patterns()
    batch = ImageBatches(dataset, batch_size=7, seed=3)(2)
    for image, label in zip(batch.query_images, batch.query_labels, strict=True):
        assert any(torch.equal(image, own) for own in dataset.to_tensor(dataset.base.images[label]))


def test_the_regression_has_one_thread_and_others_have_theirs_back(monkeypatch):
    def blas_threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    fit, seen = LogisticRegression.fit, []

    def watched(self, *given):
        seen.extend(blas_threads())
        return fit(self, *given)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    before = blas_threads()
    learner = Rfs()
    model, episode = make_model(learner), episodes("novel")(0)
    predict(learner, model, episode)
    assert seen == [1] * len(before)
    assert before
    assert blas_threads() == before
