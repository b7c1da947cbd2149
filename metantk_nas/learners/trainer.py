"""The outer loop, once for all learners: meta-batches, validation, early stop, checkpoints, learning curve."""

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from metantk_nas.errors import MetaNTKError, UsageError, unknown_name
from metantk_nas.evaluation import Evaluation, accuracy, evaluate, measure_of
from metantk_nas.learners.base import AbstractLearner, MetaModel, bind, meta_parameters
from metantk_nas.learners.checkpoint import Checkpoint, CurvePoint, read_checkpoint, write_checkpoint
from metantk_nas.learners.gradients import TaskWeighting, meta_gradients, task_weights
from metantk_nas.learners.precision import Precision, pick_precision
from metantk_nas.learners.sources import Source
from metantk_nas.rng import child_seed


class TrainingDivergedError(MetaNTKError):
    """A training loss that is not finite."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the outer loop; a learner's ``train_defaults`` replace these defaults.

    Args:
        train_budget: episodes to train on; batches of images for learners that train on images. The default
            gives a first verdict on a CPU in minutes; papers train on a hundred times as many.
        max_seconds: stop at the next step after this time, interruptions not counted; None for no limit. A run
            that a time limit ends is not reproducible.
        meta_batch_size: episodes per outer step.
        optimiser: ``"adam"``, or ``"sgd"`` with momentum 0.9.
        outer_lr: β, the initial outer learning rate. The papers take 1e-3 and long budgets; with a cosine over some
            thousand episodes 3e-3 got further with maml, anil and kernel on Omniglot.
        weight_decay: L2 penalty on all meta-parameters.
        schedule: ``"cosine"``, half a cosine from ``outer_lr`` to 0 over the budget; or ``"constant"``.
        drop_path_prob: final drop-path probability; it grows linearly from 0 over the budget.
        task_weighting: see `metantk_nas.learners.gradients.task_weights`.
        weighting_temperature: T of the task weighting.
        vectorise: see `metantk_nas.learners.gradients.meta_gradients`.
        precision: in which networks compute while training; ``"bfloat16"`` is faster where the processor has it
            (one core of an AMD EPYC, batches of 128 images of 32 pixels: Conv-4 2.8×, cells of NAS-Bench-201 and
            few-shot DARTS 1.5×, of DARTS 1.9×), and ``"auto"`` takes it there and nowhere else.
        validate_every: episodes between validations; None for a tenth of the budget, at least 250.
        n_validation_episodes: episodes of each validation, always the same ones.
        patience: stop after this many validations without a new best; None never stops early.
        seed: seed of whatever chance is in the network, such as drop-path.

    Raises:
        UsageError: a number is out of range.
    """

    train_budget: int = 500
    max_seconds: float | None = None
    meta_batch_size: int = 4
    optimiser: Literal["adam", "sgd"] = "adam"
    outer_lr: float = 3e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    drop_path_prob: float = 0.0
    task_weighting: TaskWeighting = "none"
    weighting_temperature: float = 0.1
    vectorise: bool = False
    precision: Precision = "float32"
    validate_every: int | None = None
    n_validation_episodes: int = 100
    patience: int | None = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise UsageError(f"{name} is {value}; expected at least {low}.")
        if not self.weighting_temperature > 0 or not 0 <= self.drop_path_prob < 1:
            raise UsageError(
                f"expected weighting_temperature > 0 and 0 <= drop_path_prob < 1; got {self.weighting_temperature} "
                f"and {self.drop_path_prob}."
            )

        if self.precision not in get_args(Precision):
            raise unknown_name("precision", self.precision, get_args(Precision))

    @property
    def validation_interval(self) -> int:
        """Episodes between validations."""
        return self.validate_every or max(250, self.train_budget // 10)


_LEAST = {"train_budget": 1, "meta_batch_size": 1, "outer_lr": 0, "weight_decay": 0, "validate_every": 1}
_LEAST |= {"n_validation_episodes": 2, "patience": 1}


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for progress bars.

    Args:
        episode: training episodes so far.
        budget: episodes in all.
        loss: mean loss of the last meta-batch.
        curve: rows so far.
    """

    episode: int
    budget: int
    loss: float
    curve: tuple[CurvePoint, ...]


def train(
    learner: AbstractLearner,
    model: MetaModel,
    episodes: Source,
    validation: Source | None,
    settings: TrainSettings,
    *,
    device: torch.device | str = "cpu",
    directory: Path | None = None,
    data: str = "",
    on_step: Callable[[Progress], None] | None = None,
) -> list[CurvePoint]:
    """Train a model in place; it ends with the weights of the best validation, in evaluation mode.

    Step ``i`` depends on nothing but the weights and ``i``, so a run that was interrupted and called again with the
    same arguments ends with the weights of an undisturbed one.

    Args:
        learner: the method.
        model: from ``learner.make_model``; moved to ``device``.
        episodes: what to learn from (`metantk_nas.learners.sources.training_source`).
        validation: episodes of validation classes; None keeps the last weights.
        settings: the outer loop.
        device: where to train.
        directory: where ``checkpoint.pt`` and ``curve.csv`` go at every validation, and are continued from;
            None keeps everything in memory.
        data: identity of the data, so that a checkpoint of other data is refused.
        on_step: called after every outer step.

    Returns:
        The learning curve, one row a validation.

    Raises:
        TrainingDivergedError: the loss is not finite.
        RunError: ``directory`` holds another run.
    """
    run = _Run(learner, model.to(device), settings, torch.device(device), data)
    if directory is not None:
        run.restore(read_checkpoint(directory, run.fingerprint))
    while not run.done:
        loss = run.step(episodes)
        if run.validation_due:
            run.validate(validation)
            if directory is not None:
                write_checkpoint(directory, run.checkpoint())
        if on_step is not None:
            on_step(Progress(run.episode, settings.train_budget, loss, tuple(run.curve)))
    model.load_state_dict(run.best_model)
    model.eval()
    return run.curve


class _Run:
    """State of a training run between two outer steps."""

    def __init__(
        self, learner: AbstractLearner, model: MetaModel, settings: TrainSettings, device: torch.device, data: str
    ) -> None:
        self.learner, self.model, self.settings, self.device = learner, model, settings, device
        model.precision = pick_precision(settings.precision, self.device) if learner.half_precision else "float32"
        self.fingerprint = _fingerprint(learner, settings, model, data)
        self.parameters = meta_parameters(learner, model)
        self.optimiser = _make_optimiser(settings, list(self.parameters.values()))
        self.best_model = copy.deepcopy(model.state_dict())
        self.curve: list[CurvePoint] = []
        self.episode = 0
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._spent, self._since = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent so far, over all sittings."""
        return self._spent + time.perf_counter() - self._since

    @property
    def out_of_time(self) -> bool:
        return self.settings.max_seconds is not None and self.seconds >= self.settings.max_seconds

    @property
    def validation_due(self) -> bool:
        last = self.curve[-1].episode if self.curve else 0
        every = self.settings.validation_interval
        return self.episode // every > last // every or self.episode >= self.settings.train_budget or self.out_of_time

    @property
    def done(self) -> bool:
        validated = bool(self.curve) and self.curve[-1].episode == self.episode
        return validated and (self.episode >= self.settings.train_budget or self.out_of_time or self._out_of_patience)

    @property
    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and len(self.curve) - 1 - self._best_row >= patience

    @property
    def _best_row(self) -> int:
        """Index of the best validation, the first of equals; the last row where nothing was validated."""
        qualities = [-point.validation_error if self._regresses else point.validation_accuracy for point in self.curve]
        if math.isnan(qualities[-1]):
            return len(qualities) - 1
        return qualities.index(max(qualities))

    @property
    def _regresses(self) -> bool:
        return not math.isnan(self.curve[-1].validation_error)

    def step(self, episodes: Source) -> float:
        """Take one outer step; return its mean loss."""
        settings, start = self.settings, self.episode
        stop = min(start + settings.meta_batch_size, settings.train_budget)
        batch = [episodes(index).to(self.device) for index in range(start, stop)]
        self._apply_schedules()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(child_seed(settings.seed, "train", start))
            found = meta_gradients(self.learner, self.model, self.parameters, batch, vectorise=settings.vectorise)
        loss = float(found.losses.mean())
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is {loss} after {start} episodes; expected a finite number. Lower outer_lr "
                f"({settings.outer_lr}) or, if the learner has one, inner_lr: {self.learner}."
            )
        weights = task_weights(found.gradients, settings.task_weighting, temperature=settings.weighting_temperature)
        for name, parameter in self.parameters.items():
            parameter.grad = torch.tensordot(weights, found.gradients[name], dims=1)
        self.optimiser.step()
        self.episode = stop
        self.learner.after_step(self.model, {name: value.grad for name, value in self.parameters.items()})  # type: ignore[misc]
        self._losses += found.losses.tolist()
        for logits, episode in zip(found.logits, batch, strict=True):
            counted = measure_of(episode.query_labels) == "accuracy"
            self._accuracies.append(accuracy(logits, episode.query_labels) if counted else math.nan)
        return loss

    def validate(self, validation: Source | None) -> None:
        """Add a row to the curve and remember the weights if they are the best so far."""
        found = self._validated(validation)
        self.curve.append(
            CurvePoint(
                episode=self.episode,
                train_loss=sum(self._losses) / len(self._losses),
                train_accuracy=sum(self._accuracies) / len(self._accuracies),
                validation_accuracy=found.mean if found and found.measure == "accuracy" else math.nan,
                validation_error=found.mean if found and found.measure == "mse" else math.nan,
                validation_ci=found.ci95 if found else math.nan,
                seconds=self.seconds,
            )
        )
        self._losses, self._accuracies = [], []
        if self._best_row == len(self.curve) - 1:
            self.best_model = copy.deepcopy(self.model.state_dict())

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from here."""
        return Checkpoint(
            self.fingerprint, self.model.state_dict(), self.optimiser.state_dict(), self.best_model, self.curve
        )

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint, if there is one."""
        if checkpoint is None:
            return
        self.model.load_state_dict(checkpoint.model)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.best_model, self.curve = checkpoint.best_model, checkpoint.curve
        self.episode, self._spent = self.curve[-1].episode, self.curve[-1].seconds

    def _validated(self, validation: Source | None) -> Evaluation | None:
        if validation is None:
            return None
        self.model.eval()
        n_episodes = self.settings.n_validation_episodes
        found = evaluate(bind(self.learner, self.model), validation, n_episodes, device=self.device)
        self.model.train()
        return found

    def _apply_schedules(self) -> None:
        """Set learning rate and drop-path by the share of the budget, or of the time, that is spent."""
        self.model.train()
        settings = self.settings
        progress = self.episode / settings.train_budget
        if settings.max_seconds is not None:
            progress = min(1.0, max(progress, self.seconds / settings.max_seconds))
        factor = (1 + math.cos(math.pi * progress)) / 2 if settings.schedule == "cosine" else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = settings.outer_lr * factor * self.learner.lr_factor(self.model)
        self.model.progress = progress
        network: Any = self.model.network
        network.drop_path_prob = settings.drop_path_prob * progress


def _make_optimiser(settings: TrainSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, settings.outer_lr, momentum=0.9, weight_decay=settings.weight_decay)
    return torch.optim.Adam(parameters, settings.outer_lr, weight_decay=settings.weight_decay)


def _fingerprint(learner: AbstractLearner, settings: TrainSettings, model: MetaModel, data: str) -> str:
    """Name a run by all it depends on: method, settings, initial weights (so architecture and seed), data."""
    digest = hashlib.blake2b(f"{learner!r}/{settings!r}/{data}".encode(), digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()
