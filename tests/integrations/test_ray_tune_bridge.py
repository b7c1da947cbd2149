"""Ray Tune: search algorithms see the space, trials report the rows of a search, a ranking says where to begin."""

import random
import subprocess
import sys
from functools import partial

import pytest

import metantk_nas
from metantk_nas.errors import GenotypeError, UsageError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.results import Ranking
from metantk_nas.spaces.flat import decode, encode, parameters
from metantk_nas.spaces.load import load_space
from tests.small_search import SMALL

tune = pytest.importorskip("ray.tune", reason="Ray Tune is in the extra 'ray'")
adapter = pytest.importorskip("metantk_nas.integrations.ray_tune")

SPACE = load_space("nas_bench_201")
SPEC = SearchSpec(**{**SMALL, "device": "cpu", "repeats": 1})


@pytest.fixture(scope="module")
def ranking(tmp_path_factory) -> Ranking:
    return metantk_nas.search(**{**SMALL, "repeats": 1}, device="cpu", out=tmp_path_factory.mktemp("search") / "run")


def fit(folder, trainable, param_space, **config):
    """Run a study quietly; its trials one after the other."""
    tuner = tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(max_concurrent_trials=1, **config),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    return tuner.fit()


@pytest.mark.usefixtures("ray_cluster")
def test_trials_begin_with_the_ranking_and_report_its_rows(tmp_path, ranking):
    points = adapter.points_to_evaluate(ranking, 2)
    first = tune.search.BasicVariantGenerator(points_to_evaluate=points, random_state=0)
    trainable = adapter.trainable(SPEC)
    results = fit(tmp_path, trainable, adapter.param_space(SPACE), search_alg=first, num_samples=3, reuse_actors=True)
    assert not results.errors
    rows = [result.metrics for result in results]
    best = ranking.top(2).frame
    assert [row["config"] for row in rows[:2]] == points
    for row, (_, expected) in zip(rows, best.iterrows(), strict=False):
        assert (row["arch"], row["key"], row["status"]) == (expected["arch"], expected["key"], "ok")
        assert row["condition_number"] == pytest.approx(expected["condition_number"], rel=1e-6)
    assert rows[2]["arch"] == SPACE.format(decode(SPACE, rows[2]["config"]))


@pytest.mark.usefixtures("ray_cluster")
def test_a_searcher_that_learns_finds_its_way_from_the_ranking(tmp_path, ranking):
    """An accuracy study, whose training is pretended."""

    def train(config):
        tune.report({"accuracy": sum(value.startswith("nor_conv") for value in config.values())})

    learns = pytest.importorskip("ray.tune.search.optuna", reason="optuna is in the extra 'optuna'")
    pytest.importorskip("optuna", reason="optuna is in the extra 'optuna'")
    points = adapter.points_to_evaluate(ranking, 2)
    search = learns.OptunaSearch(metric="accuracy", mode="max", points_to_evaluate=points, seed=0)
    results = fit(tmp_path, train, adapter.param_space("nas_bench_201"), search_alg=search, num_samples=4)
    assert not results.errors
    reported = [result.metrics for result in results]
    assert [each["config"] for each in reported[:2]] == points
    assert len({str(each["config"]) for each in reported}) == 4


def test_param_spaces_draw_architectures_and_grids_have_them_all():
    for name in ("nas_bench_201", "darts"):
        space = load_space(name)
        found = adapter.param_space(name)
        assert {key: tuple(domain.categories) for key, domain in found.items()} == parameters(space)
        space.check(decode(space, {key: domain.sample() for key, domain in found.items()}))
    grid = adapter.grid(SPACE, op_0_1="none")
    assert grid.pop("op_0_1") == "none"
    assert grid == {name: {"grid_search": list(SPACE.ops)} for name in parameters(SPACE) if name != "op_0_1"}
    for name, value in (("op_9_9", "none"), ("op_0_1", "nothing")):
        with pytest.raises(UsageError, match=f"{name}='{value}' fixes nothing; expected .*op"):
            adapter.grid(SPACE, **{name: value})


def test_points_need_a_space_that_fits(ranking):
    bare = Ranking(ranking.frame)
    assert adapter.points_to_evaluate(bare, 3, space=SPACE) == adapter.points_to_evaluate(ranking, 3)
    assert adapter.points_to_evaluate(ranking, 1) == [encode(SPACE, SPACE.parse(ranking.frame["arch"].iloc[0]))]
    with pytest.raises(UsageError, match="which search space"):
        adapter.points_to_evaluate(bare, 3)
    with pytest.raises(GenotypeError):
        adapter.points_to_evaluate(ranking, 3, space="darts")


def test_a_packed_scorer_needs_no_data_set(monkeypatch):
    scorer = ArchitectureScorer(SPEC)
    arch = SPACE.format(SPACE.sample(random.Random(1)))
    expected = scorer(arch)
    packed = scorer.packed()
    monkeypatch.setattr("metantk_nas.experiment.workbench.load_dataset", partial(pytest.fail, "it was loaded"))
    assert packed(arch)["trace"] == expected["trace"]
    assert packed == scorer


def test_without_ray_the_extra_is_named():
    code = "import sys; sys.modules['ray'] = None; import metantk_nas.integrations.ray_tune"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError" in done.stderr
    assert "metantk-nas[ray]" in done.stderr
