"""The module that takes an architecture as text works in skorch as it is."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from metantk_nas.networks.build import ArchNetwork

skorch = pytest.importorskip("skorch", reason="skorch is in the extra 'test'")

CONV = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
NO_PATH = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture
def stripes():
    """Images ``[40, 3, 8, 8]`` with stripes that lie or stand."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.3, size=(40, 3, 8, 8)).astype(np.float32)
    images[:20, :, ::2] += 1
    images[20:, :, :, ::2] += 1
    order = rng.permutation(40)
    return images[order], np.repeat([0, 1], 20)[order]


def classifier(**more):
    torch.manual_seed(0)
    module = {"space": "nas_bench_201", "n_outputs": 2, "init_channels": 4, "n_cells": 3}
    return skorch.NeuralNetClassifier(
        ArchNetwork,
        **{f"module__{name}": value for name, value in module.items()},
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        batch_size=10,
        max_epochs=8,
        verbose=0,
        **more,
    )


def test_it_is_trained(stripes):
    images, labels = stripes
    net = classifier(module__arch=CONV, train_split=None).fit(images, labels)
    assert net.score(images, labels) > 0.9
    assert net.predict_proba(images[:3]).sum(1) == pytest.approx(np.ones(3), abs=1e-6)


def test_scikit_learn_chooses_between_architectures(stripes):
    found = GridSearchCV(classifier(train_split=None), {"module__arch": [NO_PATH, CONV]}, cv=2, scoring="accuracy")
    assert found.fit(*stripes).best_params_ == {"module__arch": CONV}
