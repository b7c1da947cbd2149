"""Measured latencies: known once and for all, a limit before any kernel, and no part of an order that did not ask."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment.latency import Latencies
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.networks.latency import TIMINGS, WARM_UP, Latency, latency
from metantk_nas.results import Ranking, read_json
from metantk_nas.searchers.evolution import EvolutionSearcher
from metantk_nas.store import ScoreStore
from tests.small_search import SMALL

TINY = {**SMALL, "budget": 5, "repeats": 2, "n_episodes": 1, "device": "cpu"}


class Sleeper(nn.Module):
    """Takes what it is told, in seconds, one pass after the other."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds, self.n_passes = seconds, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.n_passes += 1
        return images


def test_the_median_and_the_spread_of_passes_after_the_warm_up_is_told(monkeypatch):
    half = TIMINGS // 2
    slow_start, passes = [9.0] * WARM_UP, [0.002] * (half + 1) + [0.004] * (TIMINGS - half - 2) + [5.0]
    durations = iter(slow_start + passes)
    ticks = (tick for duration in durations for tick in (0.0, duration))
    monkeypatch.setattr("metantk_nas.networks.latency._now", lambda _: next(ticks))
    sleeper = Sleeper([])
    found = latency(sleeper, (2, 3, 8, 8), torch.device("cpu"))
    assert found.ms == pytest.approx(2.0)
    assert found.sd == pytest.approx(1000 * np.std(passes, ddof=1))
    assert sleeper.n_passes == WARM_UP + TIMINGS


def test_a_latency_is_measured_once_and_kept(tmp_path):
    clock = iter([Latency(7.0, 0.5), Latency(8.0, 0.25), Latency(9.0, 0.0)])
    latencies = Latencies(str, lambda _: next(clock))
    assert latencies("a") == 7.0
    with ScoreStore(tmp_path / "scores.sqlite", {}) as store:
        latencies.keep_in(store)
        assert [latencies("b"), latencies("a"), latencies("b")] == [8.0, 7.0, 8.0]
    again = Latencies(str, lambda _: pytest.fail("measured again"))
    with ScoreStore(tmp_path / "scores.sqlite", {}) as store:
        again.keep_in(store)
    assert [again("a"), again("b")] == [7.0, 8.0]
    assert again.columns("b") == {"latency_ms": 8.0, "latency_ms_sd": 0.25}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranking]:
    run = tmp_path_factory.mktemp("runs") / "timed"
    return run, metantk_nas.search(out=run, **TINY, metrics="latency_ms", latency_batch=2)


def test_the_column_is_measured_and_the_manifest_says_how(timed):
    run, ranking = timed
    assert (ranking.frame["latency_ms"] > 0).all()
    facts = read_json(run / "manifest.json")["latency"]
    assert (facts["device"], facts["batch"], facts["threads"]) == ("cpu", 2, torch.get_num_threads())
    assert (facts["statistic"], facts["warm_up"], facts["timings"]) == ("median", WARM_UP, TIMINGS)


def test_its_spread_is_that_of_the_timings(timed):
    run, ranking = timed
    assert (ranking.frame["latency_ms_sd"] > 0).all()
    assert "latency_ms_sd_sd" not in ranking.frame.columns
    with ScoreStore(run / "scores.sqlite", Workbench.of(SearchSpec(**TINY)).fingerprint) as store:
        measured = [score.values for score in store.scores() if score.scorer == "latency"]
    assert set(ranking.frame["latency_ms_sd"]) == {values["latency_ms_sd"] for values in measured}


def test_it_does_not_order_unless_it_is_asked(timed, tmp_path):
    run, ranking = timed
    plain = metantk_nas.search(out=tmp_path / "plain", **TINY).frame
    assert "latency_ms" not in plain.columns
    assert list(plain["arch"]) == list(ranking.frame["arch"])
    np.testing.assert_allclose(plain["score"], ranking.frame["score"])
    shutil.copytree(run, tmp_path / "by_latency")
    again = metantk_nas.search(out=tmp_path / "by_latency", **TINY, rank_by="latency_ms", latency_batch=2).frame
    assert again.query("status == 'ok'")["latency_ms"].is_monotonic_increasing
    before = ranking.frame.set_index("arch")["latency_ms"]
    assert again.set_index("arch")["latency_ms"].to_dict() == before.to_dict(), "a resumed run has the same values"


def test_a_limit_comes_before_kernels_and_a_resumed_run_keeps_it(tmp_path, monkeypatch):
    def by_size(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> Latency:
        asked.append(sum(parameter.numel() for parameter in network.parameters()))
        return Latency(asked[-1] / 1000, 0.0)

    asked: list[int] = []
    monkeypatch.setattr("metantk_nas.experiment.workbench.latency", by_size)
    limited = {**TINY, "max_latency": 8.0, "out": tmp_path / "run"}
    frame = metantk_nas.search(**limited).frame
    assert len(frame) == TINY["budget"]
    assert (frame["latency_ms"] <= 8).all()
    assert max(asked) > 8000, "some were too slow"
    with ScoreStore(tmp_path / "run" / "scores.sqlite", fingerprint(limited)) as store:
        slow = {score.key for score in store.scores() if score.values.get("latency_ms", 0) > 8}
        assert slow
        assert not [score for score in store.scores(slow) if score.scorer != "latency"], "no kernel for what is slow"
    asked.clear()
    assert list(metantk_nas.search(**limited).frame["arch"]) == list(frame["arch"])
    assert not asked


def fingerprint(settings: dict) -> dict:
    spec = SearchSpec(**{name: value for name, value in settings.items() if name != "out"})
    return Workbench.of(spec).fingerprint


def test_evolution_may_weigh_latency_against_the_score(tmp_path, monkeypatch):
    told: list[np.ndarray | None] = []
    tell = EvolutionSearcher.tell

    def listen(self: EvolutionSearcher, architecture: Any, found: Any) -> None:
        told.append(found)
        tell(self, architecture, found)

    monkeypatch.setattr(EvolutionSearcher, "tell", listen)
    evolving = {
        **TINY,
        "budget": 8,
        "searcher": "evolution",
        "searcher_settings": {"population": 3, "tournament": 2, "generation": 2},
    }
    ranking = metantk_nas.search(out=tmp_path, **evolving, pareto="latency_ms,score")
    heard = [found for found in told if found is not None]
    assert len(heard) == (ranking.frame["status"] == "ok").sum()
    assert all(found.shape == (5, 2) and found[-1, 0] == found[-1, 1] > 0 for found in heard), (
        "one latency, two repeats"
    )
    front = ranking.front().frame
    assert front["latency_ms"].min() == ranking.frame["latency_ms"].min()
    assert front["score"].min() == ranking.frame["score"].min()


def test_one_architecture_at_a_time_is_timed_too():
    scorer = ArchitectureScorer(SearchSpec(**{**TINY, "repeats": 1}, metrics="latency_ms"))
    arch = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    assert scorer(arch)["latency_ms"] == scorer(arch)["latency_ms"] > 0
    assert scorer(arch)["latency_ms_sd"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_latency": 0}, "--max-latency is 0; expected milliseconds"),
        ({"latency_batch": 0}, "--latency-batch is 0"),
        ({"searcher": "pruning", "max_latency": 3.0}, "cannot keep --max-latency"),
        ({"searcher": "pruning", "rank_by": "latency_ms,trace"}, "leave it out of --rank-by"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        SearchSpec(**settings)
