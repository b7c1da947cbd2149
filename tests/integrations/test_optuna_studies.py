"""Optuna: scores as objectives, budgets as constraints, and a ranking as the start of a study of accuracies."""

import pickle
import subprocess
import sys
import textwrap

import pytest

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.results import Ranking
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.spaces.flat import encode
from metantk_nas.spaces.load import load_space
from tests.small_search import SMALL

optuna = pytest.importorskip("optuna", reason="optuna is in the extra 'optuna'")
adapter = pytest.importorskip("metantk_nas.integrations.optuna")

SPACE = load_space("nas_bench_201")
NO_PATH = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
STEM = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
optuna.logging.set_verbosity(optuna.logging.WARNING)


def spec(**more) -> SearchSpec:
    return SearchSpec(**{**SMALL, "device": "cpu", "repeats": 1, **more})


def sampler():
    return optuna.samplers.RandomSampler(seed=0)


@pytest.fixture(scope="module")
def ranking(tmp_path_factory) -> Ranking:
    return metantk_nas.search(**SMALL, device="cpu", out=tmp_path_factory.mktemp("search") / "run")


def test_a_study_of_several_metrics_has_the_values_and_directions_of_the_ranking():
    objective = adapter.objective(spec(), ["condition_number", "naswot", "params"])
    assert objective.directions == ["minimize", "maximize", "minimize"]
    study = optuna.create_study(directions=objective.directions, sampler=sampler())
    study.enqueue_trial(encode(SPACE, SPACE.parse(STEM)))
    study.optimize(objective, n_trials=4)
    first, scorer = study.trials[0], ArchitectureScorer(spec(metrics="naswot"))
    row = scorer(STEM)
    assert first.values == [row["condition_number"], row["naswot"], row["params"]]
    assert first.user_attrs["arch"] == STEM
    assert (first.user_attrs["status"], first.user_attrs["macs"]) == ("ok", row["macs"])
    assert study.best_trials


def test_the_metrics_are_those_that_rank_unless_others_are_named():
    assert adapter.objective(spec()).directions == ["minimize", "maximize", "minimize"]
    assert [metric.name for metric in adapter.objective(spec(rank_by="naswot")).metrics] == ["naswot"]
    again = adapter.objective(ArchitectureScorer(spec(metrics="naswot")), ["trace"])
    assert again.scorer.spec.metrics == "trace,naswot"
    with pytest.raises(UsageError, match=r"'conditon_number' not found.*Did you mean 'condition_number'"):
        adapter.objective(spec(), ["conditon_number"])
    with pytest.raises(UsageError, match="twice"):
        adapter.objective(spec(), ["trace", "trace"])


def test_over_budget_is_a_constraint_and_costs_no_kernel(monkeypatch):
    scored = []
    compute = KernelScorer.score
    monkeypatch.setattr(KernelScorer, "score", lambda self, *a: scored.append(a) or compute(self, *a))
    limit = int(ArchitectureScorer(spec()).cost(STEM)["params"])
    objective = adapter.objective(spec(max_params=limit, max_macs=10**9))
    study = optuna.create_study(directions=objective.directions, sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial(encode(SPACE, SPACE.parse(STEM)))
    study.optimize(objective, n_trials=14)
    over = [trial for trial in study.trials if trial.user_attrs["params"] > limit]
    within = [trial for trial in study.trials if trial.user_attrs["params"] <= limit]
    assert over
    assert within
    for trial in over:
        assert trial.state.name == "PRUNED"
        assert trial.constraints["max_params"] == trial.user_attrs["params"] - limit
        assert "status" not in trial.user_attrs
    assert all(trial.constraints["max_params"] <= 0 and trial.constraints["max_macs"] < 0 for trial in within)
    assert len(scored) == len(within)
    assert all(trial.user_attrs["params"] <= limit for trial in study.best_trials)


def test_what_cannot_be_scored_is_pruned_with_its_reason():
    objective = adapter.objective(spec())
    study = optuna.create_study(directions=objective.directions)
    study.enqueue_trial(encode(SPACE, SPACE.parse(NO_PATH)))
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert (trial.state.name, trial.user_attrs["status"], trial.values) == ("PRUNED", "no_signal", None)
    assert trial.user_attrs["reason"]


def test_an_objective_travels():
    objective = pickle.loads(pickle.dumps(adapter.objective(spec(), ["condition_number"])))
    study = optuna.create_study(directions=objective.directions)
    study.enqueue_trial(encode(SPACE, SPACE.parse(STEM)))
    study.optimize(objective, n_trials=1)
    assert study.best_value == ArchitectureScorer(spec())(STEM)["condition_number"]


def test_a_ranking_starts_a_study_and_tells_it_nothing(ranking):
    study = optuna.create_study(direction="maximize", sampler=sampler())
    archs = adapter.enqueue_top(study, ranking, 3)
    assert archs == list(ranking.top(3).frame["arch"])
    assert [trial.state.name for trial in study.trials] == ["WAITING"] * 3
    assert all(trial.values is None and not trial.intermediate_values for trial in study.trials)
    proposed = []
    study.optimize(lambda trial: float(len(proposed.append(adapter.suggest(trial, SPACE)) or proposed)), n_trials=5)
    assert [SPACE.format(genotype) for genotype in proposed[:3]] == archs
    assert [trial.user_attrs.get("rank") for trial in study.trials] == [*ranking.top(3).frame["rank"], None, None]
    assert len({SPACE.key(genotype) for genotype in proposed[:3]}) == 3


def test_a_ranking_is_read_from_its_run_from_its_file_and_as_a_frame(ranking, tmp_path):
    ranking.save(tmp_path / "alone.csv")
    (tmp_path / "run").mkdir()
    ranking.save(tmp_path / "run" / "ranking.csv")
    (tmp_path / "run" / "manifest.json").write_text('{"schema_version": 1, "spec": {"space": "nas_bench_201"}}')
    run = tmp_path / "run"
    expected = list(ranking.top(2).frame["arch"])
    for source, more in (
        (run, {}),
        (str(run / "ranking.csv"), {}),
        (tmp_path / "alone.csv", {"space": "nas_bench_201"}),
        (ranking.frame, {"space": SPACE}),
    ):
        assert adapter.enqueue_top(optuna.create_study(), source, 2, **more) == expected
    with pytest.raises(UsageError, match="which search space"):
        adapter.enqueue_top(optuna.create_study(), ranking.frame, 2)
    with pytest.raises(UsageError, match="top\\(0\\)"):
        adapter.enqueue_top(optuna.create_study(), ranking, 0)


FIRST_HALF = """
    import os, sys, optuna
    from metantk_nas.integrations.optuna import enqueue_top, suggest
    from metantk_nas.spaces.load import load_space
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    space, (journal, ranking) = load_space("nas_bench_201"), sys.argv[1:]
    study = optuna.create_study(
        study_name="accuracy", storage=JournalStorage(JournalFileBackend(journal)), direction="maximize"
    )
    enqueue_top(study, ranking, 3, space=space)

    def accuracy(trial):
        if trial.number == 2:
            os._exit(9)  # as if it were killed: nothing is tidied up
        return float(space.format(suggest(trial, space)).count("conv"))

    study.optimize(accuracy, n_trials=10)
"""


def test_a_journal_resumes_a_study_that_was_killed(ranking, tmp_path):
    journal, file = tmp_path / "study.log", tmp_path / "ranking.csv"
    ranking.save(file)
    code = textwrap.dedent(FIRST_HALF)
    done = subprocess.run([sys.executable, "-c", code, journal, file], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    storage = optuna.storages.journal.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.create_study(study_name="accuracy", storage=storage, direction="maximize", load_if_exists=True)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    adapter.enqueue_top(study, file, 4, space=SPACE)  # the same ranking, one more of it
    study.optimize(lambda trial: float(SPACE.format(adapter.suggest(trial, SPACE)).count("conv")), n_trials=3)
    assert len(study.trials) == 6
    best = list(ranking.top(4).frame["arch"])
    assert [trial.user_attrs.get("arch") for trial in study.trials] == [*best, None, None]
    assert study.trials[3].value == best[3].count("conv")


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "metantk_nas.integrations.optuna")
    with pytest.raises(UsageError, match=r"needs optuna.*pip install 'metantk-nas\[optuna\]'"):
        __import__("metantk_nas.integrations.optuna")
