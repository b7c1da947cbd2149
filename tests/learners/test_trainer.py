import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import RunError, UsageError
from metantk_nas.learners.checkpoint import CHECKPOINT_FILE, CURVE_COLUMNS, CURVE_FILE
from metantk_nas.learners.registry import make_learner, make_train_settings
from metantk_nas.learners.trainer import Progress, TrainingDivergedError, TrainSettings, train
from tests.contracts.learner import episodes, make_model

LEARNER = make_learner("protonet")


def settings(**changed: Any) -> TrainSettings:
    return make_train_settings(
        "protonet", **{"train_budget": 12, "validate_every": 3, "n_validation_episodes": 5, **changed}
    )


def test_it_ends_with_the_weights_of_the_best_validation() -> None:
    """From the third validation on every answer is called wrong, so the second must stay the best."""
    n_calls = 0

    def souring(index: int) -> Episode:
        nonlocal n_calls
        n_calls += 1
        episode = episodes("validation")(index)
        return episode if n_calls <= 10 else replace(episode, query_labels=episode.query_labels + 100)

    model, shorter = make_model(LEARNER), make_model(LEARNER)
    run = {"patience": None, "schedule": "constant"}
    curve = train(LEARNER, model, episodes("base"), souring, settings(train_budget=15, **run))
    best = max(curve, key=lambda point: point.validation_accuracy)
    train(LEARNER, shorter, episodes("base"), None, settings(train_budget=best.episode, **run))
    assert [point.validation_accuracy > 0 for point in curve] == [True, True, False, False, False]
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), shorter.parameters(), strict=True))


def test_it_stops_when_patience_runs_out() -> None:
    curve = train(
        LEARNER, make_model(LEARNER), episodes("base"), episodes("validation"),
        settings(outer_lr=0.0, patience=2, train_budget=100),
    )  # fmt: skip
    best = max(range(len(curve)), key=lambda i: (curve[i].validation_accuracy, -i))
    assert len(curve) - 1 - best == 2
    assert curve[-1].episode < 100


def test_it_stops_when_time_runs_out_and_validates_once_more() -> None:
    curve = train(
        LEARNER, make_model(LEARNER), episodes("base"), None,
        settings(train_budget=10**6, validate_every=None, max_seconds=0.5),
    )  # fmt: skip
    assert len(curve) == 1
    assert 0.5 <= curve[0].seconds < 30


def test_a_budget_that_meta_batches_do_not_divide_is_kept_exactly() -> None:
    seen: list[int] = []

    def counted(index: int) -> Episode:
        seen.append(index)
        return episodes("base")(index)

    curve = train(LEARNER, make_model(LEARNER), counted, None, settings(train_budget=10, meta_batch_size=4))
    assert seen == list(range(10))
    assert curve[-1].episode == 10


def test_the_curve_is_written_as_training_goes(tmp_path: Path) -> None:
    rows_seen: list[int] = []

    def look(progress: Progress) -> None:
        rows_seen.append(len((tmp_path / CURVE_FILE).read_text().splitlines()) if progress.curve else 0)

    curve = train(
        LEARNER, make_model(LEARNER), episodes("base"), episodes("validation"), settings(), directory=tmp_path,
        on_step=look,
    )  # fmt: skip
    with (tmp_path / CURVE_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert rows_seen == [0, 0, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5]
    assert tuple(rows[0]) == CURVE_COLUMNS
    assert [int(row["episode"]) for row in rows] == [3, 6, 9, 12]
    assert float(rows[1]["validation_accuracy"]) == curve[1].validation_accuracy


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    steps: list[Progress] = []
    models = [make_model(LEARNER) for _ in range(2)]
    for model in models:
        train(LEARNER, model, episodes("base"), None, settings(), directory=tmp_path, on_step=steps.append)
    assert len(steps) == 12
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize("what", ["settings", "weights", "data"])
def test_the_checkpoint_of_another_run_is_refused(what: str, tmp_path: Path) -> None:
    train(LEARNER, make_model(LEARNER), episodes("base"), None, settings(), directory=tmp_path, data="a")
    other = settings(outer_lr=0.1) if what == "settings" else settings()
    model = make_model(LEARNER, seed=1) if what == "weights" else make_model(LEARNER)
    with pytest.raises(RunError, match=r"belongs to another run.*Choose another directory"):
        train(LEARNER, model, episodes("base"), None, other, directory=tmp_path, data="b" if what == "data" else "a")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"checkpoint\.pt is not a training checkpoint"):
        train(LEARNER, make_model(LEARNER), episodes("base"), None, settings(), directory=tmp_path)


def test_divergence_says_what_to_lower() -> None:
    learner = make_learner("maml", inner_lr=1e30)
    with pytest.raises(TrainingDivergedError, match=r"the loss is (nan|inf) after 0 episodes.*inner_lr"):
        train(learner, make_model(learner), episodes("base"), None, settings())


def test_the_global_random_state_is_left_alone() -> None:
    model, before = make_model(LEARNER), torch.random.get_rng_state()
    train(LEARNER, model, episodes("base"), None, settings())
    assert torch.equal(before, torch.random.get_rng_state())


def test_chance_in_the_network_follows_the_seed_alone() -> None:
    """Dropout gives the same weights whatever state the global generator is in."""
    models = [make_model(LEARNER) for _ in range(3)]
    for seed, model in zip([0, 0, 1], models, strict=True):
        model.network.blocks.append(torch.nn.Dropout2d(0.5))
        torch.rand(7)
        train(LEARNER, model, episodes("base"), None, settings(seed=seed))
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_validation_classes_the_last_weights_are_kept() -> None:
    curve = train(LEARNER, make_model(LEARNER), episodes("base"), None, settings())
    assert len(curve) == 4
    assert all(math.isnan(point.validation_accuracy) for point in curve)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_budget": 0}, "train_budget is 0; expected at least 1"),
        ({"n_validation_episodes": 1}, "expected at least 2"),
        ({"weighting_temperature": 0.0}, "weighting_temperature > 0"),
        ({"outer_lr": math.nan}, "outer_lr is nan"),
        ({"precision": "float16"}, "bfloat16"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainSettings(**wrong)  # type: ignore[arg-type]  # the point of the test


def test_half_precision_keeps_weights_losses_and_predictions_in_full() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = make_model(LEARNER)
        curve = train(LEARNER, model, episodes("base"), None, settings(precision=precision))
        losses[precision] = curve[0].train_loss
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        images = episodes("base")(0).query_images
        torch.testing.assert_close(model(images).features, model.network.features(images), rtol=0, atol=0)
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_a_model_tells_in_which_precision_it_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metantk_nas.learners.precision.has_bfloat16", lambda device: True)
    model = make_model(LEARNER)
    train(LEARNER, model, episodes("base"), None, settings(precision="auto", train_budget=1))
    assert model.precision == "bfloat16"
