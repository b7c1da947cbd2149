"""Few-shot accuracy of features as easily said: one image and one episode at a time, float64."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from tests.reference.dense_ntk import Array

Episode = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of the support images and rows of the query images."""


def unit_features(network: nn.Module, images: Tensor) -> Array:
    """Features of one image at a time, centred by the mean of all and scaled to unit length."""
    with torch.no_grad():
        features = np.concatenate([network.features(image[None]).double().numpy() for image in images])
    features = features - features.mean(axis=0)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def prototype_accuracy(features: Array, labels: NDArray[np.int64], episodes: Iterable[Episode]) -> float:
    """Share of query images whose class has the nearest mean; scikit-learn's does not take classes of one image."""
    right = []
    for support, query in episodes:
        classes = np.unique(labels[support])
        means = [features[support][labels[support] == label].mean(axis=0) for label in classes]
        for row in query:
            distances = [np.linalg.norm(features[row] - mean) for mean in means]
            right.append(classes[int(np.argmin(distances))] == labels[row])
    return float(np.mean(right))


def ridge_accuracy(features: Array, labels: NDArray[np.int64], episodes: Iterable[Episode], *, ridge: float) -> float:
    """Class with the highest output of ridge regression on one-hot labels minus their mean."""
    right = []
    for support, query in episodes:
        classes = np.unique(labels[support])
        targets = (labels[support][:, None] == classes) - 1 / len(classes)
        head = Ridge(alpha=ridge * len(support), fit_intercept=False).fit(features[support], targets)
        right.append(classes[head.predict(features[query]).argmax(axis=1)] == labels[query])
    return float(np.mean(right))


def leave_one_out_loss(features: Array, labels: NDArray[np.int64], *, ridge: float) -> float:
    """Squared error on each row of a head fitted to all the others, over that of the mean label."""
    one_hot = np.eye(labels.max() + 1)[labels]
    targets = one_hot - one_hot.mean(axis=0)
    error = 0.0
    for row in range(len(labels)):
        others = np.delete(np.arange(len(labels)), row)
        head = Ridge(alpha=ridge * len(labels), fit_intercept=False).fit(features[others], targets[others])
        error += float(((head.predict(features[row : row + 1])[0] - targets[row]) ** 2).sum())
    return error / float((targets**2).sum())


def effective_rank(features: Array) -> float:
    """exp of the entropy of the squared singular values, as shares of their sum."""
    weights = np.linalg.svd(features, compute_uv=False) ** 2
    weights = weights[weights > 0] / weights.sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))
