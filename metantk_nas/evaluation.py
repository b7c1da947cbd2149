"""How good a learner is on new tasks: accuracy, or squared error, over many fixed episodes with its interval."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError

Measure = Literal["accuracy", "mse"]

DEFAULT_EPISODES = 600
DEFAULT_QUERIES = 15
NORMAL_95 = 1.96


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How one learner did on a row of episodes.

    Args:
        values: float64 ``[episode]``: share of query rows classified correctly, in [0, 1]; or, where targets are real
            numbers, the mean squared error.
        seconds: wall-clock time of all episodes, adaptation included.
        measure: which of the two.
    """

    values: NDArray[np.float64]
    seconds: float
    measure: Measure = "accuracy"

    @property
    def mean(self) -> float:
        """Mean over episodes."""
        return float(self.values.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of the mean, ``1.96 · sd / √n`` with the sample deviation."""
        return NORMAL_95 * float(self.values.std(ddof=1)) / math.sqrt(len(self.values))


def evaluate(
    adapt: Callable[[Tensor, Tensor, int], Callable[[Tensor], Tensor]],
    episodes: Callable[[int], Episode],
    n_episodes: int = DEFAULT_EPISODES,
    *,
    device: torch.device | str = "cpu",
    on_episode: Callable[[int], None] | None = None,
) -> Evaluation:
    """Adapt to the support set of each episode and judge the predictions of its query set.

    Args:
        adapt: from support images, support labels and the number of classes to a predictor, which maps query
            images to logits ``[query, n_way]`` (`metantk_nas.learners.base.bind`). Its model should be in
            evaluation mode.
        episodes: from an index to an episode, for example an `EpisodeSampler` of novel classes with 15 queries.
        n_episodes: episodes number 0 to ``n_episodes - 1`` are used; at least 2, 600 is usual.
        device: where the model lives.
        on_episode: called with the number of episodes done, after each.

    Raises:
        UsageError: fewer than two episodes, which have no deviation.
    """
    if n_episodes < 2:
        raise UsageError(f"a confidence interval needs at least 2 episodes; got {n_episodes} (600 is usual).")
    start = time.perf_counter()
    values = np.empty(n_episodes)
    measure: Measure = "accuracy"
    with torch.no_grad():
        for index in range(n_episodes):
            episode = episodes(index).to(device)
            predict = adapt(episode.support_images, episode.support_labels, episode.n_way)
            measure = measure_of(episode.query_labels)
            judge = accuracy if measure == "accuracy" else squared_error
            values[index] = judge(predict(episode.query_images), episode.query_labels)
            if on_episode is not None:
                on_episode(index + 1)
    return Evaluation(values, time.perf_counter() - start, measure)


@contextmanager
def remembered_features(network: nn.Module) -> Iterator[None]:
    """Let a network compute the features of each image only once, as long as the context lasts.

    Episodes share images: 600 of them ask about four times for each drawing of Omniglot's novel classes. This is
    right only where the features of an image depend on nothing else: weights that stay, evaluation mode, and a
    normalisation that does not look at the images beside it.

    Args:
        network: has ``features(images)``.
    """
    module: Any = network
    compute = module.features
    known: dict[bytes, Tensor] = {}

    def features(images: Tensor) -> Tensor:
        keys = [blake2b(image.tobytes(), digest_size=16).digest() for image in images.detach().cpu().numpy()]
        unseen = {key: row for row, key in enumerate(keys) if key not in known}
        if unseen:
            known.update(zip(unseen, compute(images[list(unseen.values())]), strict=True))
        return torch.stack([known[key] for key in keys])

    module.features = features
    try:
        yield
    finally:
        del module.features


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's, ``[row, n_way]`` and ``[row]``."""
    return float((logits.argmax(1) == labels).double().mean())


def squared_error(predictions: Tensor, targets: Tensor) -> float:
    """Mean squared error of predictions, both ``[row, output]``."""
    return float((predictions - targets).double().square().mean())


def measure_of(targets: Tensor) -> Measure:
    """How predictions of such targets are judged: whole numbers are labels."""
    return "mse" if targets.is_floating_point() else "accuracy"
