import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metantk_nas.report import html
from metantk_nas.report.html import write_report
from metantk_nas.results import JSON_SCHEMA_VERSION
from metantk_nas.rng import numpy_generator, python_generator
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

RULE = {
    "name": "metantk",
    "combine": "rank_sum",
    "metrics": [
        {"name": "condition_number", "higher_is_better": False, "description": "λmax/λmin of the MetaNTK."},
        {"name": "trace", "higher_is_better": True, "description": "Sum of its eigenvalues."},
    ],
}
MakeRun = Callable[..., Path]


def make_run(folder: Path, space: Space, n_candidates: int = 120, *, trained: bool = True, seed: int = 0) -> Path:
    """A run as the search leaves it behind: plausible scores, some failures, and trained winners if asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = python_generator(seed, "genotypes")
    archs = sorted({space.format(space.sample(rng)) for _ in range(n_candidates)})
    ranking = _rank(pd.DataFrame([_candidate(arch, space, seed) for arch in archs]))
    ranking.to_csv(folder / "ranking.csv", index=False)
    command = ["metantk-nas", "search", "--space", space.name, "--data", "omniglot", "--out", f"results/{folder.name}"]
    manifest = {
        "command": command,
        "spec": {"space": space.name, "data": "omniglot", "n_way": 5, "n_shot": 1, "inner_time": "inf", "repeats": 3},
        "rank_rule": RULE,
        "metrics": {
            "adaptation_loss": {"description": "query loss after adaptation", "higher_is_better": False, "unit": ""}
        },
        "seed": seed,
        "versions": {"python": "3.12.4", "torch": "2.13.0", "numpy": "2.3.0"},
        "device": "cpu",
        "git_commit": "0123456789abcdef",
        "seconds": 321.5,
        "dataset": {"name": "omniglot", "skipped": []},
    }
    write_manifest(folder, manifest)
    if trained:
        _train(folder, ranking.drop_duplicates("key").head(3), seed)
    return folder


def write_manifest(folder: Path, manifest: dict[str, object]) -> None:
    text = json.dumps({**manifest, "schema_version": JSON_SCHEMA_VERSION})
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _candidate(arch: str, space: Space, seed: int) -> dict[str, object]:
    """One row; all chance depends on the canonical key, as in a run."""
    key = space.key(space.parse(arch))
    level, spread, failure = numpy_generator(seed, key).normal(size=3)
    status, reason = "ok", ""
    values = {
        "condition_number": math.exp(4 + 1.5 * level) + 1,
        "condition_number_sd": math.exp(2 + level),
        "trace": math.exp(7 - level + spread),
        "trace_sd": math.exp(4 - level),
        "adaptation_loss": 0.8 + 0.1 * level,
        "n_linear_regions": round(500 - 80 * level),
    }
    if failure < -2.2:
        status, reason = "no_path", "no path leads from the input to the output"
        values = dict.fromkeys(values, math.nan)
    elif failure < -1.8:
        status, reason = "singular", f"λmin is {math.exp(-40 + level):.1e}, below the rounding error"
        values.update(condition_number=math.inf, condition_number_sd=math.nan)
    params = 60_000 + 40_000 * arch.count("conv")
    shared = {"params": params, "macs": 55 * params, "seconds": 0.07, "seed": seed}
    return {"arch": arch, "key": key, "status": status, "reason": reason, **values, **shared}


def _rank(frame: pd.DataFrame) -> pd.DataFrame:
    ok = frame["status"] == "ok"
    scored = frame[ok]
    frame["score"] = scored["condition_number"].rank() + scored["trace"].rank(ascending=False)
    frame["rank"] = frame["score"].rank(method="min").fillna(ok.sum() + 1).astype(int)
    reach = 1 + frame["rank"] // 3
    low, high = (frame["rank"] - reach).clip(lower=1), (frame["rank"] + reach).clip(upper=int(ok.sum()))
    frame["rank_low"], frame["rank_high"] = low.where(ok).astype("Int64"), high.where(ok).astype("Int64")
    head = ["rank", "arch", "key", "status", "reason", "score", "rank_low", "rank_high"]
    return frame.sort_values(["rank", "key", "arch"])[[*head, *frame.columns.difference(head, sort=False)]]


def _train(folder: Path, top: pd.DataFrame, seed: int) -> None:
    (folder / "curves").mkdir()
    rows = []
    for row in top.to_dict("records"):
        rng = numpy_generator(seed, "train", row["key"])
        episodes = pd.Series(range(100, 3100, 100))
        progress = 1 - np.exp(-episodes / 900)
        noise = rng.normal(size=(2, len(episodes)))
        accuracy = 0.2 + (0.76 + rng.normal() / 80) * progress + noise[0] / 150
        loss = 1.6 * (1 - progress) + 0.1 + noise[1] / 60
        curve = pd.DataFrame({"episode": episodes, "train_loss": loss, "train_accuracy": accuracy + 0.01})
        curve["validation_accuracy"] = accuracy.where(episodes % 500 == 0)
        curve["validation_ci"], curve["seconds"] = 0.012, episodes / 12
        curve.to_csv(folder / "curves" / f"rank{row['rank']}-anil.csv", index=False)
        shared = {name: row[name] for name in ("rank", "arch", "key", "params", "macs")}
        for n_shot, bonus in ((1, 0.0), (5, 0.025)):
            task = {"learner": "anil", "n_way": 5, "n_shot": n_shot, "n_episodes": 600}
            result = {
                "accuracy": accuracy.iloc[-1] + bonus,
                "ci95": 0.0043 - bonus / 20,
                "seconds": 260.0,
                "seed": seed,
            }
            rows.append({**shared, **task, **result})
    pd.DataFrame(rows).to_csv(folder / "evaluation.csv", index=False)


@pytest.fixture(scope="session", params=["nas_bench_201", "darts", "darts_fewshot"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Space]:
    """A finished run of each shipped space, with its report."""
    space = load_space(request.param)
    folder = make_run(tmp_path_factory.mktemp("results") / f"{space.name}-omniglot-seed0", space)
    write_report(folder, space)
    return folder, space


@pytest.fixture(scope="session")
def cells() -> Space:
    return load_space("nas_bench_201")


@pytest.fixture
def new_run(tmp_path: Path) -> MakeRun:
    """Make a run of one's own to spoil: ``new_run(space, n_candidates, trained=...)``."""
    return lambda space, *args, **options: make_run(tmp_path / "run", space, *args, **options)


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots out, for tests of the words of a page."""
    monkeypatch.setattr(html, "draw_plots", lambda tables: [])
