"""What a learner is trained on and judged by: episodes of images, or of sine waves."""

from dataclasses import dataclass

from metantk_nas.episodes.dataset import FewShotDataset
from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.sine import SINE, SineWaves
from metantk_nas.experiment.spec import TrainSpec
from metantk_nas.learners.base import AbstractLearner, n_outputs
from metantk_nas.learners.sources import Source, training_source


@dataclass(frozen=True, eq=False)
class ImageProblem:
    """Classify images of new classes.

    Args:
        dataset: images by class.
    """

    dataset: FewShotDataset

    @property
    def n_channels(self) -> int:
        """Channels of the images."""
        return self.dataset.n_channels

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.dataset.image_size

    @property
    def fingerprint(self) -> str:
        """Names the data, for checkpoints."""
        return self.dataset.fingerprint

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, what images in [0, 1] are reduced by."""
        return self.dataset.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, what they are then divided by."""
        return self.dataset.std

    def n_outputs(self, learner: AbstractLearner, spec: TrainSpec) -> int:
        """How many outputs the network's head must have."""
        return n_outputs(learner, n_way=spec.n_way, n_base_classes=len(self.dataset.base.classes))

    def training(self, learner: AbstractLearner, spec: TrainSpec) -> Source:
        """What the learner trains on."""
        return training_source(
            learner,
            self.dataset,
            n_way=spec.n_way if spec.train_way is None else spec.train_way,
            n_shot=spec.n_shot,
            n_query=spec.n_query,
            batch_size=spec.batch_size,
            seed=spec.seed,
        )

    def episodes(self, split: str, spec: TrainSpec, n_query: int) -> Source:
        """Episodes that the learner is judged by, always the same ones."""
        return EpisodeSampler(
            self.dataset, split, n_way=spec.n_way, n_shot=spec.n_shot, n_query=n_query, seed=spec.seed, name="evaluate"
        )


@dataclass(frozen=True)
class SineProblem:
    """Continue sine waves from a few points (`metantk_nas.episodes.sine`)."""

    n_channels = 1
    image_size = 1
    fingerprint = SINE
    mean = (0.0,)
    std = (1.0,)

    def n_outputs(self, learner: AbstractLearner, spec: TrainSpec) -> int:  # noqa: ARG002 - as for images
        """One number."""
        return 1

    def training(self, learner: AbstractLearner, spec: TrainSpec) -> Source:  # noqa: ARG002 - as for images
        """Waves to train on."""
        return SineWaves("base", spec.n_shot, spec.n_query, spec.seed, "train")

    def episodes(self, split: str, spec: TrainSpec, n_query: int) -> Source:
        """Waves that the learner is judged by, always the same ones."""
        return SineWaves(split, spec.n_shot, n_query, spec.seed, "evaluate")
