"""scikit-learn: both estimators keep its contract, and do what they say on images."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import metantk_nas
from metantk_nas.errors import DataError, GenotypeError, UsageError
from metantk_nas.integrations.sklearn import FewShotClassifier, MetaNTKSearch
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, save_learner

ARCH = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
SMALL = {"init_channels": 4, "n_cells": 3, "device": "cpu"}


@parametrize_with_checks([FewShotClassifier(device="cpu"), MetaNTKSearch(device="cpu")])
def test_the_contract_of_scikit_learn_holds(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Five drawings of each digit to learn from, and 200 others; images ``[image, 8, 8, 1]`` of 0 … 16."""
    images, labels = load_digits(return_X_y=True)
    first = np.concatenate([np.flatnonzero(labels == digit)[:5] for digit in range(10)])
    others = np.setdiff1d(np.arange(len(labels)), first)[:200]
    images = images.reshape(-1, 8, 8, 1)
    return images[first], labels[first], images[others], labels[others]


@pytest.fixture
def photos():
    """Thirty noisy colour images ``[30, 16, 16, 3]`` of bytes, six classes of a colour each."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"class{index}" for index in range(6)], 5)
    colours = rng.integers(40, 216, size=(6, 3))[np.repeat(np.arange(6), 5)]
    noise = rng.normal(0, 30, size=(30, 16, 16, 3))
    return np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("learner", ["r2d2", "protonet", "kernel", "rfs"])
def test_digits_are_told_apart_by_a_network_that_was_never_trained(digits, learner):
    images, labels, others, truth = digits
    classifier = FewShotClassifier(learner=learner, device="cpu").fit(images, labels)
    assert classifier.score(others, truth) > 0.6


def test_images_and_their_rows_are_the_same(digits, photos):
    for images, labels in (digits[:2], photos):
        rows = images.reshape(len(images), -1)
        by_image, by_row = (FewShotClassifier(device="cpu").fit(each, labels) for each in (images, rows))
        assert by_image.image_shape_ == by_row.image_shape_ == images.shape[1:]
        assert np.array_equal(by_image.predict_proba(images), by_row.predict_proba(rows))


def test_labels_may_be_anything_and_fitted_ones_travel(digits):
    images, labels, others, _ = digits
    names = np.array([f"digit {label}" for label in labels])
    classifier = FewShotClassifier(ARCH, **SMALL).fit(images, names)
    there = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(there.predict_proba(others), classifier.predict_proba(others))
    assert set(there.predict(others)) <= set(names)


def test_scikit_learn_chooses_an_architecture(digits):
    images, labels, *_ = digits
    rows = images.reshape(len(images), -1)
    pipeline = make_pipeline(StandardScaler(), FewShotClassifier(**SMALL))
    name = "fewshotclassifier__arch"
    found = GridSearchCV(pipeline, {name: [ARCH, "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"]}, cv=2)
    assert found.fit(rows, labels).best_params_[name] == ARCH


@pytest.fixture
def saved(tmp_path):
    """A learner as it is saved after training, of grey images of 16 pixels."""
    learner = make_learner("protonet")
    network = NetworkSpec("conv4", None, 1, 1, 16)
    trained = TrainedLearner(learner, learner.make_model(network.build("batch")).eval(), network, (0.4,), (0.2,))
    save_learner(trained, tmp_path / "model.pt")
    return trained, tmp_path / "model.pt"


def test_a_trained_learner_is_used_as_it_was_saved(saved, photos):
    trained, path = saved
    grey = photos[0][..., :1]
    of_bytes, of_shares = (FewShotClassifier(model=path, device="cpu").fit(x, photos[1]) for x in (grey, grey / 255))
    images = trained.normalise(torch.from_numpy(grey / np.float32(255)).movedim(-1, 1))
    labels = torch.from_numpy(np.unique(photos[1], return_inverse=True)[1])
    expected = trained.adapt(images, labels, 6)(images).softmax(1).numpy()  # in 32 bits, ours in 64
    assert of_bytes.predict_proba(grey) == pytest.approx(expected, abs=1e-4)
    assert of_shares.predict_proba(grey / 255) == pytest.approx(of_bytes.predict_proba(grey), abs=1e-9)
    with pytest.raises(DataError, match="pixels are 0 … 16; a trained learner expects"):
        FewShotClassifier(model=path).fit(np.linspace(0, 16, 256).reshape(2, 128), [0, 1])


def test_colours_become_grey_where_the_network_is_grey(saved, photos):
    images, labels = photos
    grey = images @ np.array([0.299, 0.587, 0.114])
    coloured = FewShotClassifier(model=saved[1], device="cpu").fit(images, labels)
    expected = FewShotClassifier(model=saved[1], device="cpu").fit(grey[..., None] / 255, labels)
    assert coloured.predict_proba(images) == pytest.approx(expected.predict_proba(grey[..., None] / 255), abs=1e-9)


def test_what_cannot_be_done_is_said(photos):
    images, labels = photos
    with pytest.raises(DataError, match=r"image_shape is \(4, 4, 3\), but there are 768 numbers"):
        FewShotClassifier(image_shape=(4, 4, 3)).fit(images.reshape(30, -1), labels)
    with pytest.raises(DataError, match=r"images are \(8, 32, 3\); this classifier was fitted to \(16, 16, 3\)"):
        FewShotClassifier(device="cpu").fit(images, labels).predict(images.reshape(30, 8, 32, 3))
    with pytest.raises(UsageError, match="learner 'protonets' not found"):
        FewShotClassifier(learner="protonets").fit(images, labels)
    with pytest.raises(GenotypeError):
        FewShotClassifier("|nor_conv_9x9~0|").fit(images, labels)
    with pytest.raises(DataError, match="one class only"):
        MetaNTKSearch().fit(images, np.zeros(30))
    with pytest.raises(UsageError, match="setting of a search on arrays 'devices' not found"):
        MetaNTKSearch(settings={"devices": "cpu,cpu"}).fit(images, labels)
    with pytest.raises(DataError, match="0 of the classes have the 2 images"):
        MetaNTKSearch().fit(images[::5], labels[::5])
    with pytest.raises(DataError, match="no architecture could be scored"):
        MetaNTKSearch(device="cpu").fit(np.zeros_like(images), labels)


def test_a_search_on_arrays_is_the_search_on_their_files(photos, tmp_path):
    images, labels = photos
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / label / f"{index:02}.png")
    (tmp_path / "photos" / "base.txt").write_text("\n".join(dict.fromkeys(labels)))
    for name in ("validation", "novel"):
        (tmp_path / "photos" / f"{name}.txt").write_text("")
    settings = {"space": "nas_bench_201", "budget": 5, "n_way": 4, "repeats": 2, **SMALL}
    files = metantk_nas.search(data=str(tmp_path / "photos"), image_size=16, out=tmp_path / "run", **settings).frame
    search = MetaNTKSearch(**settings).fit(images, labels)
    arrays = search.ranking_.frame
    assert list(arrays["arch"]) == list(files["arch"])
    for name in ("condition_number", "trace", "params", "rank"):
        assert list(arrays[name]) == pytest.approx(list(files[name]), nan_ok=True, rel=1e-6), name
    assert search.best_arch_ == files["arch"][0]
    assert search.best_estimator_.arch == search.best_arch_
    assert np.array_equal(search.predict(images), search.best_estimator_.predict(images))
    assert search.score(images, labels) > 0.6  # chance: 0.17


def test_a_search_takes_the_settings_of_a_search(photos):
    images, labels = photos
    search = MetaNTKSearch(settings={"max_params": 8_000, "metrics": "naswot"}, **SMALL).fit(images, labels)
    assert (search.ranking_.frame["params"] <= 8_000).all()
    assert search.ranking_.frame["naswot"].notna().any()
    assert search.n_features_in_ == 768


def test_a_class_with_one_image_is_not_searched_on_but_recognised(photos):
    images, labels = photos
    search = MetaNTKSearch(n_way=9, learner="protonet", device="cpu").fit(images[:11], labels[:11])
    assert list(search.classes_) == ["class0", "class1", "class2"]
    assert search.predict(images[10:11]) == ["class2"]
