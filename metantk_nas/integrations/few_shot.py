"""A few-shot learner as a classifier of scikit-learn, on arrays of images; see `metantk_nas.integrations.sklearn`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from metantk_nas.errors import DataError, UsageError
from metantk_nas.experiment.prediction import BATCH
from metantk_nas.experiment.workbench import pick_device
from metantk_nas.integrations.adapted import Adapted
from metantk_nas.integrations.arrays import Shape, flat, read_labelled, seed_of, shape_of, to_images
from metantk_nas.learners.base import n_outputs
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner
from metantk_nas.networks.build import MLP, resize
from metantk_nas.networks.conv4 import CONV4, conv4_variant
from metantk_nas.spaces.load import load_space

MIN_SIZE = 16
"""Height and width that smaller images are resized to: Conv-4 halves them four times."""


def size_of(shape: Shape, asked: int | None) -> int:
    """Height and width of the images that a network sees: what is asked, else their larger side."""
    return max(*shape[:2], MIN_SIZE) if asked is None else asked


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Adapts a few-shot learner to labelled images, all of them in one pass: a few hundred, say.

    Without ``model`` nothing has been trained: the learner (by default ridge regression) works on features of the
    network as it is initialised. With ``model`` architecture, learner and image size are those of the file.

    Args:
        arch: architecture text, or ``"conv4"``.
        space: name or path of its search space.
        learner: name of a learner (``metantk-nas learners``).
        model: path of a trained learner, such as ``results/RUN/models/rank1-protonet-5way-1shot.pt``. It wants whole
            numbers from 0 to 255, or real ones from 0 to 1; without it pixels may be in any unit.
        image_shape: (height, width, channels) of rows; see `metantk_nas.integrations.arrays.shape_of`.
        image_size: height and width that images are resized to; None for the larger side, 16 at least.
        init_channels: channels of the first cells; the space's own where None.
        n_cells: stacked cells; the space's own where None.
        random_state: seed of the weights.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
    """

    def __init__(
        self,
        arch: str = CONV4,
        *,
        space: str = "nas_bench_201",
        learner: str = "r2d2",
        model: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        image_size: int | None = None,
        init_channels: int | None = None,
        n_cells: int | None = None,
        random_state: Any = 0,
        device: str = "auto",
    ) -> None:
        self.arch = arch
        self.space = space
        self.learner = learner
        self.model = model
        self.image_shape = image_shape
        self.image_size = image_size
        self.init_channels = init_channels
        self.n_cells = n_cells
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":  # noqa: N803 - scikit-learn's name
        """Adapt to images and their labels, the support set.

        Raises:
            ValueError: one class only, or arrays that are no images (`UsageError`, or what scikit-learn raises).
        """
        rows, labels = read_labelled(self, X, y)
        self.image_shape_ = shape_of(X, rows.shape[1], self.image_shape)
        place = pick_device(self.device)
        trained = self._untrained(rows) if self.model is None else load_learner(Path(self.model))
        if trained.network.arch == MLP:
            raise UsageError(f"{self.model} was trained on sine waves and labels no images; expected one of images.")
        trained.model.to(place, torch.float64)
        support = self._images(trained, rows)
        self.adapted_ = Adapted(trained, support, torch.from_numpy(labels).to(place), len(self.classes_))
        _ = self.adapted_.predictor  # so that fit raises what a learner has against the support set
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Probabilities ``[image, class]``, in the order of ``classes_``."""
        check_is_fitted(self)
        rows = validate_data(self, flat(X), reset=False)
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) == 4 and shape[1:] != self.image_shape_:
            raise DataError(f"images are {shape[1:]}; this classifier was fitted to {self.image_shape_}.")
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        logits = [self.adapted_.predictor(self._images(self.adapted_.trained, part)) for part in parts]
        found: NDArray[np.float64] = torch.cat(logits).softmax(1).cpu().numpy()
        return found

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Labels ``[image]``."""
        best = self.predict_proba(X).argmax(1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def _untrained(self, rows: NDArray[Any]) -> TrainedLearner:
        """A learner on a network that is as it was initialised."""
        learner, size = make_learner(self.learner), size_of(self.image_shape_, self.image_size)
        images, n_way = to_images(rows, self.image_shape_, size), len(self.classes_)
        std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
        space = None
        if conv4_variant(self.arch) is None:
            space = resize(load_space(self.space), init_channels=self.init_channels, n_cells=self.n_cells)
        network = NetworkSpec(
            self.arch, space, n_outputs(learner, n_way=n_way, n_base_classes=n_way), images.shape[1], size
        )
        model = learner.make_model(network.build(learner.norm, seed=seed_of(self.random_state))).eval()
        std = torch.where(std > 0, std, 1.0)
        return TrainedLearner(learner, model, network, tuple(mean.tolist()), tuple(std.tolist()))

    def _images(self, trained: TrainedLearner, rows: NDArray[Any]) -> Tensor:
        """Rows as the network wants them."""
        network = trained.network
        highest = 255 if rows.dtype.kind in "iu" else 1
        if self.model is not None and not 0 <= rows.min() <= rows.max() <= highest:
            raise DataError(
                f"pixels are {rows.min():.4g} … {rows.max():.4g}; a trained learner expects whole numbers from 0 to "
                "255, or real ones from 0 to 1."
            )
        images = to_images(rows, self.image_shape_, network.image_size, network.in_channels)
        images = images.to(next(trained.model.parameters()).device)
        return trained.normalise(images if self.model is None else images / highest)
