"""Label images with a trained learner, from a handful of labelled ones: no training, one adaptation."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk_nas.episodes.decode import decode_classes, is_image
from metantk_nas.episodes.folder import images_by_directory
from metantk_nas.episodes.request import LoadRequest, Progress
from metantk_nas.episodes.tree import AbstractTree, open_tree
from metantk_nas.errors import DataError, UsageError
from metantk_nas.experiment.workbench import pick_device
from metantk_nas.learners.base import Predictor
from metantk_nas.learners.saved import TrainedLearner, load_learner
from metantk_nas.networks.build import MLP

BATCH = 256
"""Query images that are decoded and classified at once."""

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601), as Pillow has them."""


def predict(
    model: Path, support: Path, query: Path, *, device: str = "auto", progress: Progress | None = None
) -> pd.DataFrame:
    """Adapt a trained learner to labelled images and classify others.

    Args:
        model: file of a trained learner, such as ``models/rank1-protonet-5way-1shot.pt`` of a run.
        support: folder or zip of labelled images, one directory a class.
        query: folder or zip of images to label, at any depth.
        device: where to compute.
        progress: told how far the work is.

    Returns:
        One row a query image, sorted by name: ``file``, ``label``, ``probability`` of the label, ``p_<class>`` of each
        class, and ``reason``, which says why an image could not be read (its other cells are then empty).

    Raises:
        RunError: ``model`` is no trained learner.
        DataError: no readable images in a class, or none to label.
        UsageError: the learner was trained for another number of classes, or for no images at all.
    """
    place = pick_device(device)
    trained = load_learner(model, device=place)
    if trained.network.arch == MLP:
        raise UsageError(f"{model} was trained on sine waves and labels no images; expected a learner of images.")
    classes = _read_support(trained, support, progress)
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(images) for images in classes.values()]))
    predictor = trained.adapt(torch.cat([*classes.values()]).to(place), labels.to(place), len(classes))
    tree = open_tree(query)
    names = [name for name in tree.names() if is_image(name)]
    if not names:
        raise DataError(f"{query} holds no images to label; expected files such as photo.jpg, at any depth.")
    rows: list[dict[str, object]] = []
    for start in range(0, len(names), BATCH):
        rows += _label(trained, predictor, tree, names[start : start + BATCH], list(classes))
        if progress is not None:
            progress("labelling", len(rows), len(names))
    return pd.DataFrame(rows)


def _read_support(trained: TrainedLearner, path: Path, progress: Progress | None) -> Mapping[str, Tensor]:
    """Normalised images of each class, ``[image, channel, height, width]``."""
    tree = open_tree(path)
    _, files, _ = images_by_directory(tree)
    request = LoadRequest(trained.network.image_size, progress=progress)
    bank = decode_classes(tree, dict(sorted(files.items())), "reading labelled images", request)
    for label, images in bank.images.items():
        if not len(images):
            raise DataError(f"no image of class {label!r} in {path} can be read; the first: {bank.skipped[0].reason}.")
    if len(files) < 2:
        raise DataError(f"{path} has one class only; expected a directory for each of two or more classes.")
    return {label: _tensor(trained, images) for label, images in bank.images.items()}


def _label(
    trained: TrainedLearner, predictor: Predictor, tree: AbstractTree, names: Sequence[str], classes: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yield the rows of some query images."""
    bank = decode_classes(tree, {"": names}, "", LoadRequest(trained.network.image_size))
    reasons = {skipped.path: skipped.reason for skipped in bank.skipped}
    probabilities: Iterator[list[float]] = iter(())
    if len(bank.images[""]):
        images = _tensor(trained, bank.images[""]).to(next(trained.model.parameters()).device)
        probabilities = iter(predictor(images).double().softmax(1).tolist())
    for name in names:
        if name in reasons:
            yield {"file": name, "label": None, "probability": None, "reason": reasons[name]}
            continue
        found = next(probabilities)
        best = max(range(len(classes)), key=found.__getitem__)
        each = {f"p_{label}": share for label, share in zip(classes, found, strict=True)}
        yield {"file": name, "label": classes[best], "probability": found[best], **each, "reason": ""}


def _tensor(trained: TrainedLearner, images: np.ndarray) -> Tensor:
    """Images ``[image, height, width, channel]`` with the channels of the network, normalised as in training."""
    n_channels = trained.network.in_channels
    if images.shape[-1] == 3 and n_channels == 1:
        images = (images @ LUMINANCE).round()[..., None]
    scaled = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32) / 255).movedim(-1, 1)
    return trained.normalise(scaled.expand(-1, n_channels, -1, -1))
