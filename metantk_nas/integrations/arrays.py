"""Arrays of scikit-learn as images: rows of numbers have to be given a shape, and images their size and channels."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.nn.functional import interpolate, pad

from metantk_nas.errors import DataError
from metantk_nas.experiment.prediction import LUMINANCE

Shape = tuple[int, int, int]
"""Height, width and channels."""


def read_labelled(estimator: Any, array: Any, labels: Any, **checks: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Check what an estimator is fitted to, as scikit-learn wants it; gives the estimator its ``classes_``.

    Args:
        estimator: is being fitted.
        array: images, or rows.
        labels: of any kind.
        checks: further arguments of ``sklearn.utils.validation.validate_data``.

    Returns:
        Rows ``[image, number]``, and the place of each label in ``classes_``.

    Raises:
        ValueError: these are no rows with a class each, or there is one class only.
    """
    rows, labels = validate_data(estimator, flat(array), labels, **checks)
    check_classification_targets(labels)
    estimator.classes_, places = np.unique(labels, return_inverse=True)
    if len(estimator.classes_) < 2:
        raise DataError("there is one class only; expected images of two or more classes.")
    return rows, places


def seed_of(random_state: Any) -> int:
    """Seed of this package for scikit-learn's ``random_state``; a whole number is itself."""
    return int(random_state if isinstance(random_state, Integral) else check_random_state(random_state).randint(2**31))


def flat(array: Any) -> Any:
    """Lay images ``[image, height, width, channel]`` out as rows; all else is left as it is."""
    shape: tuple[int, ...] = getattr(array, "shape", ())
    return np.reshape(np.asarray(array), (shape[0], math.prod(shape[1:]))) if len(shape) == 4 else array


def shape_of(array: Any, n_features: int, given: Sequence[int] | None) -> Shape:
    """Say what images the rows of an array are.

    Args:
        array: images, or rows.
        n_features: numbers of a row.
        given: height, width and channels; where None they are those of the images, and rows are square images: grey,
            or with three channels where that fits better, the smallest that hold the row.

    Raises:
        DataError: ``given`` has another number of pixels.
    """
    if given is None and len(getattr(array, "shape", ())) == 4:
        given = array.shape[1:]
    if given is None:
        side, coloured = math.isqrt(n_features - 1) + 1, math.isqrt(n_features // 3)
        three = coloured > 1 and 3 * coloured**2 == n_features != side**2
        return (coloured, coloured, 3) if three else (side, side, 1)
    height, width, channels = given if len(given) == 3 else (0, 0, 0)
    if height * width * channels != n_features:
        raise DataError(
            f"image_shape is {tuple(given)}, but there are {n_features} numbers an image; expected (height, width, "
            "channels) whose product they are."
        )
    return height, width, channels


def to_images(rows: NDArray[Any], shape: Shape, size: int, n_channels: int | None = None) -> Tensor:
    """Make square images of rows.

    Args:
        rows: ``[image, number]``; zeros are appended where the shape has more pixels.
        shape: height, width and channels of a row.
        size: height and width that images are resized to, in pixels.
        n_channels: channels that are wanted; as they are where None.

    Returns:
        float64 ``[image, channel, size, size]``, in the units of ``rows``.

    Raises:
        DataError: the channels are neither those wanted nor grey or colours.
    """
    found = torch.from_numpy(np.array(rows, dtype=np.float64))
    images = pad(found, (0, math.prod(shape) - found.shape[1])).reshape(len(found), *shape).movedim(-1, 1)
    if n_channels == 1 and shape[2] == 3:
        images = torch.einsum("nchw,c->nhw", images, torch.from_numpy(LUMINANCE))[:, None]
    elif n_channels not in (None, shape[2]):
        if shape[2] != 1:
            raise DataError(f"images have {shape[2]} channels; expected {n_channels}, or grey images.")
        images = images.expand(-1, n_channels, -1, -1)
    if shape[:2] != (size, size):
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images.clone(memory_format=torch.contiguous_format)  # one channel counts as last and as first otherwise


def to_bytes(images: Tensor, *, ready: bool) -> NDArray[np.uint8]:
    """Round images ``[image, channel, height, width]`` to 256 levels, ``[image, height, width, channel]``.

    Args:
        images: any numbers.
        ready: they are 0 … 255 already; otherwise the smallest becomes 0 and the largest 255.
    """
    low, high = (0.0, 255.0) if ready else (float(images.min()), float(images.max()))
    levels = (images - low) * (255 / (high - low if high > low else 1.0))
    return levels.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
