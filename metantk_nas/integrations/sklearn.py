"""scikit-learn: an architecture search and a few-shot classifier as estimators, on arrays of images.

Images are arrays ``[image, height, width, channel]``, or rows ``[image, number]`` with an ``image_shape``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.errors import DataError, unknown_name
from metantk_nas.experiment.scoring import rank_proposals, searcher_of
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench, pick_device
from metantk_nas.integrations.arrays import Shape, read_labelled, seed_of, shape_of, to_bytes, to_images
from metantk_nas.integrations.few_shot import FewShotClassifier, size_of

__all__ = ["FewShotClassifier", "MetaNTKSearch"]

NOT_FOR_ARRAYS = ("data", "data_root", "rotations", "devices", "fidelity")
"""Settings of a search that load images by name, in this process or in workers."""


class MetaNTKSearch(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Ranks architectures on labelled images, and classifies with the best.

    The search sees the images rounded to 256 levels, and the classes with enough of them for an episode. Its defaults
    are small: a few architectures on a thin network, scored once.

    Args:
        space: name or path of a search space.
        searcher: name of a searcher.
        budget: most architectures to score.
        rank_by: a ranking preset, or comma-separated metrics; ``~trace`` is the trace against its direction.
        repeats: re-initialisations, each with episodes of its own.
        n_way: classes of an episode; fewer where the images have fewer.
        learner: what ``best_estimator_`` classifies with, see `FewShotClassifier`.
        image_shape: (height, width, channels) of rows; see `metantk_nas.integrations.arrays.shape_of`.
        image_size: height and width that images are resized to; None for the larger side, 16 at least.
        init_channels: channels of the first cells; the space's own where None.
        n_cells: stacked cells; the space's own where None.
        random_state: seed of everything.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        settings: further fields of `metantk_nas.experiment.spec.SearchSpec`, such as ``{"max_params": 100_000}``.

    Attributes:
        best_arch_: text of the best architecture.
        ranking_: all candidates, best first (`metantk_nas.results.Ranking`; ``.frame`` is a data frame).
        best_estimator_: a `FewShotClassifier` of the best architecture, fitted to the same images.
        classes_: labels, sorted.
    """

    def __init__(
        self,
        space: str = "nas_bench_201",
        *,
        searcher: str = "random",
        budget: int | None = 8,
        rank_by: str = "few-shot",
        repeats: int = 1,
        n_way: int = 5,
        learner: str = "r2d2",
        image_shape: Sequence[int] | None = None,
        image_size: int | None = None,
        init_channels: int | None = 16,
        n_cells: int | None = 3,
        random_state: Any = 0,
        device: str = "auto",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.space = space
        self.searcher = searcher
        self.budget = budget
        self.rank_by = rank_by
        self.repeats = repeats
        self.n_way = n_way
        self.learner = learner
        self.image_shape = image_shape
        self.image_size = image_size
        self.init_channels = init_channels
        self.n_cells = n_cells
        self.random_state = random_state
        self.device = device
        self.settings = settings

    def fit(self, X: Any, y: Any) -> "MetaNTKSearch":  # noqa: N803 - scikit-learn's name
        """Search on the images of the classes, then adapt to them with the best architecture.

        Raises:
            ValueError: arrays that are no images of two or more classes, or no architecture that could be scored.
        """
        rows, labels = read_labelled(self, X, y, ensure_min_features=2)  # normalisation leaves nothing of one pixel
        shape = shape_of(X, rows.shape[1], self.image_shape)
        spec = self._spec(size_of(shape, self.image_size))
        dataset = _dataset(rows, labels, shape, spec)
        spec = replace(spec, n_way=min(spec.n_way, len(dataset.base.classes)))
        bench = Workbench(spec, spec.load_space(), dataset, pick_device(self.device))
        with TemporaryDirectory() as folder:
            self.ranking_ = rank_proposals(bench, searcher_of(bench), Path(folder) / "scores.sqlite")
        best = self.ranking_.frame.iloc[0]
        if best["status"] != "ok":
            raise DataError(f"no architecture could be scored on these images; the first: {best['reason']}.")
        self.best_arch_: str = best["arch"]
        own = {name: value for name, value in self.get_params().items() if name in FewShotClassifier().get_params()}
        self.best_estimator_ = FewShotClassifier(self.best_arch_, **own).fit(X, y)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Probabilities ``[image, class]`` by ``best_estimator_``, in the order of ``classes_``."""
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(X)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Labels ``[image]`` by ``best_estimator_``."""
        check_is_fitted(self)
        return self.best_estimator_.predict(X)

    def _spec(self, image_size: int) -> SearchSpec:
        """What is searched."""
        own = self.get_params()
        further = dict(own.pop("settings") or {})
        every = {field.name for field in fields(SearchSpec)}
        free = every - {*NOT_FOR_ARRAYS, *own, "seed"}
        for name in further:
            if name not in free:
                raise unknown_name("setting of a search on arrays", name, free)
        known = {name: value for name, value in own.items() if name in every}
        decided = {"data": "arrays", "image_size": image_size, "seed": seed_of(self.random_state)}
        return SearchSpec(**{**known, **further, **decided})


def _dataset(rows: NDArray[Any], labels: NDArray[np.int64], shape: Shape, spec: SearchSpec) -> FewShotDataset:
    """The images of each class that has enough for an episode, as base classes.

    Raises:
        DataError: fewer than two classes have enough.
    """
    needed = spec.n_shot + spec.n_query
    levels = to_bytes(to_images(rows, shape, spec.image_size), ready=rows.dtype == np.uint8)
    classes = {str(label): levels[labels == label] for label in np.flatnonzero(np.bincount(labels) >= needed)}
    if len(classes) < 2:
        raise DataError(f"{len(classes)} of the classes have the {needed} images of an episode; expected 2 at least.")
    return make_dataset("arrays", {"base": classes, "validation": {}, "novel": {}})
