"""What every learner promises; a learner's own test file inherits this and names the learner."""

import copy
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.episodes.episode import Episode, EpisodeSampler
from metantk_nas.errors import UsageError
from metantk_nas.evaluation import evaluate
from metantk_nas.kernels.precision import exact_float32
from metantk_nas.learners.base import AbstractLearner, MetaModel, bind, meta_parameters, n_outputs
from metantk_nas.learners.gradients import meta_gradients
from metantk_nas.learners.registry import make_learner, make_train_settings
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner, save_learner
from metantk_nas.learners.sources import Source, training_source
from metantk_nas.learners.trainer import TrainSettings, train
from metantk_nas.networks.build import resize
from metantk_nas.networks.conv4 import Conv4
from metantk_nas.networks.init import initialise
from metantk_nas.networks.norms import NormKind
from metantk_nas.rng import numpy_generator
from metantk_nas.spaces.load import load_space
from tests.devices import OtherDevice

N_WAY, IMAGE_SIZE = 5, 16
DARTS_CELL = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('conv_3x3', 1), ('max_pool_3x3BN', 2), "
    "('conv_1x5_5x1', 0), ('dil_conv_3x3', 3)], normal_concat=range(2, 5), "
    "reduce=[('avg_pool_3x3BN', 0), ('conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 2), "
    "('conv_3x3', 1), ('skip_connect', 3)], reduce_concat=range(2, 5))"
)


@lru_cache(maxsize=2)
def patterns(n_channels: int = 1) -> FewShotDataset:
    """Each class is a coarse random pattern; its images are shifted by a pixel and drown in noise."""

    def images(split: str, index: int) -> np.ndarray:
        rng = numpy_generator(0, "patterns", split, index)
        coarse = rng.choice([60.0, 190.0], (4, 4, n_channels))
        pattern = coarse.repeat(4, axis=0).repeat(4, axis=1)
        shifted = [np.roll(pattern, rng.integers(-1, 2, 2), axis=(0, 1)) for _ in range(12)]
        return np.clip(np.stack(shifted) + 50 * rng.standard_normal((12, *pattern.shape)), 0, 255).astype(np.uint8)

    sizes = {"base": 30, "validation": 8, "novel": 10}
    return make_dataset(
        "patterns", {split: {f"{split}{i}": images(split, i) for i in range(n)} for split, n in sizes.items()}
    )


def make_model(
    learner: AbstractLearner, *, n_channels: int = 1, width: int = 16, seed: int = 0, norm: NormKind | None = None
) -> MetaModel:
    """A narrow Conv-4 for `patterns`, with the learner's normalisation or another."""
    n_logits = n_outputs(learner, n_way=N_WAY, n_base_classes=len(patterns(n_channels).base.classes))
    network = Conv4(n_channels, n_logits, width=width, image_size=IMAGE_SIZE, norm=norm or learner.norm)
    initialise(network, seed, kaiming_head=False)
    return learner.make_model(network)


def episodes(split: str, *, n_channels: int = 1, n_shot: int = 1, n_query: int = 5) -> EpisodeSampler:
    return EpisodeSampler(patterns(n_channels), split, n_way=N_WAY, n_shot=n_shot, n_query=n_query, seed=0, name="test")


def source(learner: AbstractLearner, *, n_channels: int = 1, n_shot: int = 1) -> Source:
    return training_source(learner, patterns(n_channels), n_way=N_WAY, n_shot=n_shot, n_query=3, batch_size=30, seed=0)


def in_double(model: MetaModel, episode: Episode) -> tuple[MetaModel, Episode]:
    double = Episode(
        episode.support_images.double(),
        episode.support_labels,
        episode.query_images.double(),
        episode.query_labels,
        episode.n_way,
        episode.class_names,
    )
    return copy.deepcopy(model).double().eval(), double


def predict(learner: AbstractLearner, model: MetaModel, episode: Episode) -> Tensor:
    with torch.no_grad():
        return bind(learner, model)(episode.support_images, episode.support_labels, episode.n_way)(episode.query_images)


class LearnerContract:
    """Inherit, name the learner, and say how far a few seconds of training should bring it."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    n_train: ClassVar[int] = 80
    least_accuracy: ClassVar[float] = 0.6  # of 5 classes; chance is 0.2
    not_learnt: ClassVar[frozenset[str]] = frozenset()  # parameters that the outer loop leaves as they are

    @property
    def learner(self) -> AbstractLearner:
        return make_learner(self.name, **self.settings)

    def train_settings(self, **settings: Any) -> TrainSettings:
        defaults = {
            "train_budget": self.n_train,
            "validate_every": 10,
            "n_validation_episodes": 4,
            "patience": None,
            "drop_path_prob": 0.0,
            "schedule": "constant",
        }
        return make_train_settings(self.name, **{**defaults, **settings})

    def trained(self, **settings: Any) -> tuple[MetaModel, list[Any]]:
        model = make_model(self.learner)
        run = self.train_settings(**settings)
        return model, train(self.learner, model, source(self.learner), episodes("validation"), run)

    def test_it_learns(self) -> None:
        model, curve = self.trained(validate_every=self.n_train // 4)
        assert curve[-1].train_loss < curve[0].train_loss
        found, untrained = (
            evaluate(bind(self.learner, some.eval()), episodes("novel"), n_episodes)
            for some, n_episodes in ((model, 60), (make_model(self.learner), 20))
        )
        assert found.mean - found.ci95 > max(untrained.mean, self.least_accuracy)

    def test_a_device_finds_what_the_processor_finds(self, other_device: OtherDevice) -> None:
        def found(device: torch.device) -> list[float]:
            model = make_model(self.learner, width=4)
            settings = self.train_settings(train_budget=2, meta_batch_size=1, validate_every=1, n_validation_episodes=2)
            curve = train(self.learner, model, source(self.learner), episodes("validation"), settings, device=device)
            novel = evaluate(bind(self.learner, model), episodes("novel"), 2, device=device)
            return [novel.mean, *(value for point in curve for value in (point.train_loss, point.validation_accuracy))]

        with exact_float32():
            with other_device() as device:
                on_device = found(device)
            assert on_device == pytest.approx(found(torch.device("cpu")), rel=1e-4)

    def test_it_trains_in_bfloat16_or_says_that_it_does_not(self) -> None:
        if not self.learner.half_precision:
            with pytest.raises(UsageError, match="expected precision float32 or auto"):
                self.trained(precision="bfloat16", train_budget=4)
            assert self.trained(precision="auto", train_budget=4)[0].precision == "float32"
            return
        (half, at_first), (_, expected) = (
            self.trained(precision=precision, train_budget=4) for precision in ("bfloat16", "float32")
        )
        assert half.precision == "bfloat16"
        assert at_first[0].train_loss == pytest.approx(expected[0].train_loss, rel=0.25)

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        states = [self.trained(train_budget=8)[0].state_dict() for _ in range(2)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_a_run_that_is_interrupted_twice_ends_with_the_same_weights(self, tmp_path: Path) -> None:
        undisturbed, curve = self.trained(train_budget=16, validate_every=4, schedule="cosine")
        settings = self.train_settings(train_budget=16, validate_every=4, schedule="cosine")
        seen: list[int] = []

        def run(crash_after: float) -> tuple[MetaModel, list[Any]]:
            def watch(progress: Any) -> None:
                seen.append(progress.episode)
                if progress.episode >= crash_after:
                    raise KeyboardInterrupt

            model = make_model(self.learner)
            validation = episodes("validation")
            return model, train(
                self.learner, model, source(self.learner), validation, settings, directory=tmp_path, on_step=watch
            )

        for crash_after in (5, 9):
            with pytest.raises(KeyboardInterrupt):
                run(crash_after)
        n_before = len(seen)
        model, resumed = run(np.inf)
        assert seen[n_before] > 8
        assert [point.train_loss for point in resumed] == [point.train_loss for point in curve]
        assert [point.validation_accuracy for point in resumed] == [point.validation_accuracy for point in curve]
        for name, value in undisturbed.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name

    def test_a_saved_learner_predicts_the_same(self, tmp_path: Path) -> None:
        learner = self.learner
        spec = NetworkSpec("conv4", None, n_outputs(learner, n_way=N_WAY, n_base_classes=30), 1, IMAGE_SIZE)
        model = learner.make_model(spec.build(learner.norm, seed=3)).eval()
        for value in model.state_dict().values():
            value.add_(1 if value.dtype == torch.int64 else 0.01)  # as training would, running statistics included
        save_learner(TrainedLearner(learner, model, spec, (0.5,), (0.25,)), tmp_path / "learner.pt")
        loaded = load_learner(tmp_path / "learner.pt")
        episode = episodes("novel")(0)
        before = predict(learner, model, episode)
        after = loaded.adapt(episode.support_images, episode.support_labels, N_WAY)(episode.query_images)
        assert torch.equal(before, after)
        assert (loaded.learner, loaded.network, loaded.mean, loaded.std) == (learner, spec, (0.5,), (0.25,))

    @pytest.mark.parametrize("n_channels", [1, 3])
    @pytest.mark.parametrize("n_shot", [1, 5])
    def test_the_order_of_support_images_does_not_matter(self, n_channels: int, n_shot: int) -> None:
        episode = episodes("novel", n_channels=n_channels, n_shot=n_shot)(0)
        model, episode = in_double(make_model(self.learner, n_channels=n_channels), episode)
        order = torch.randperm(len(episode.support_labels), generator=torch.Generator().manual_seed(0))
        shuffled = Episode(
            episode.support_images[order], episode.support_labels[order], episode.query_images, episode.query_labels,
            N_WAY, (),
        )  # fmt: skip
        before = predict(self.learner, model, episode)
        assert before.shape == (N_WAY * 5, N_WAY)
        torch.testing.assert_close(predict(self.learner, model, shuffled), before, rtol=1e-3, atol=1e-3)
        assert (before.argmax(1) == predict(self.learner, model, shuffled).argmax(1)).all()

    def test_permuting_class_labels_permutes_predictions(self) -> None:
        """Learners whose initial head knows the labels have its rows permuted along."""
        learner = self.learner
        model, episode = in_double(make_model(learner), episodes("novel", n_shot=2)(0))
        torch.nn.init.normal_(model.network.head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        before = predict(learner, model, episode)
        new_label = torch.tensor([2, 0, 4, 1, 3])
        if learner.head == "way":
            head = model.network.head
            for parameter in (head.weight, head.bias):
                parameter.data[new_label] = parameter.data.clone()
        renamed = Episode(
            episode.support_images, new_label[episode.support_labels], episode.query_images, episode.query_labels,
            N_WAY, (),
        )  # fmt: skip
        after = predict(learner, model, renamed)
        torch.testing.assert_close(after[:, new_label], before, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(after, before, atol=1e-3)

    def test_adapting_changes_nothing_in_the_model(self) -> None:
        model = make_model(self.learner).eval()
        before = copy.deepcopy(model.state_dict())
        predict(self.learner, model, episodes("novel")(0))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_every_meta_parameter_has_a_gradient(self) -> None:
        """Biases in front of a batch normalisation have none, whatever the learner."""
        model = make_model(self.learner)
        torch.nn.init.normal_(model.network.head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        model.progress = 1.0  # late in training, when nothing is held back
        parameters = meta_parameters(self.learner, model)
        found = meta_gradients(self.learner, model, parameters, [source(self.learner)(i) for i in range(2)])
        assert found.gradients.keys() == parameters.keys()
        silent = {name for name, value in found.gradients.items() if not value.any()}
        assert silent >= self.not_learnt
        silent -= self.not_learnt
        assert all(name.startswith("network.blocks") and name.endswith("0.bias") for name in silent)

    def test_episodes_run_together_as_one_by_one(self) -> None:
        """Under vmap, and with the statistics of each batch: running ones depend on the episodes before."""
        learner = self.learner
        norm: NormKind = "batch_stats" if learner.norm == "batch" else learner.norm
        model = make_model(learner, width=4, norm=norm)
        torch.nn.init.normal_(model.network.head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        batch = [in_double(model, source(learner)(index))[1] for index in range(3)]
        model = model.double().train()
        loop, together = (
            meta_gradients(learner, model, meta_parameters(learner, model), batch, vectorise=vectorise)
            for vectorise in (False, True)
        )
        for found, expected in zip(together[1:], loop[1:], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        largest = max(float(value.abs().max()) for value in loop.gradients.values())
        for name, expected in loop.gradients.items():
            torch.testing.assert_close(together.gradients[name], expected, rtol=1e-5, atol=1e-5 * largest)

    def test_it_trains_a_searched_cell(self) -> None:
        learner = self.learner
        space = resize(load_space("darts_fewshot"), init_channels=4, n_cells=3)
        spec = NetworkSpec(DARTS_CELL, space, n_outputs(learner, n_way=N_WAY, n_base_classes=30), 3, IMAGE_SIZE)
        model = learner.make_model(spec.build(learner.norm))
        settings = self.train_settings(train_budget=2, meta_batch_size=1, drop_path_prob=0.2)
        validation = episodes("validation", n_channels=3)
        curve = train(learner, model, source(learner, n_channels=3), validation, settings)
        assert np.isfinite([curve[-1].train_loss, curve[-1].validation_accuracy]).all()
