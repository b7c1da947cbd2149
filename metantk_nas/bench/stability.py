"""How many repeats make a ranking that other repeats would make, too?

The repeats of a run are divided in two sets of equal size that have none in common. Each makes a ranking of its own,
from its own initialisations and episodes, and the two are held against each other by Spearman's ρ.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from math import comb
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from metantk_nas.bench.agreement import Array
from metantk_nas.errors import RunError, UsageError
from metantk_nas.ordering import average, combine
from metantk_nas.results import repeat_table
from metantk_nas.rng import python_generator
from metantk_nas.scorers.registry import OPPOSITE
from metantk_nas.types import RankRule, Score

Division: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def read_repeats(store: Path) -> pd.DataFrame:
    """Read the scores of a run, repeat by repeat; the run may be another version's, and is not touched.

    Args:
        store: ``scores.sqlite`` of a run.

    Returns:
        Frame indexed by ``(key, repeat)`` with ``seconds`` and one column a metric; metrics are NaN where a repeat
        could not be scored.

    Raises:
        RunError: there is no intact store, or a live run holds it.
    """
    table = repeat_table(_scores(store))
    metrics = [name for name in table.columns if name not in ("status", "reason", "seconds")]
    table.loc[table["status"] != "ok", metrics] = np.nan
    return table[["seconds", *metrics]]


def stability(table: pd.DataFrame, rule: RankRule, *, n_divisions: int = 50, seed: int = 0) -> pd.DataFrame:
    """Agreement of two rankings of the same architectures from different repeats, by the number of repeats of each.

    Args:
        table: indexed by ``(key, repeat)``, with a column for every metric of the rule. A key that lacks a value in
            any repeat is left out.
        rule: how to rank.
        n_divisions: how many divisions are drawn, or all there are if they are fewer.
        seed: seed of the divisions.

    Returns:
        One row a number of repeats, from 1 to half of what there is: ``repeats``, ``spearman`` (mean over divisions),
        ``spearman_sd``, ``spearman_min``, ``divisions`` and ``keys``.

    Raises:
        UsageError: there are fewer than two repeats, or fewer than three keys have all values.
    """
    columns = [metric.name.removeprefix(OPPOSITE) for metric in rule.metrics]
    keys, repeats = (table.index.get_level_values(level).unique() for level in ("key", "repeat"))
    measured = table[columns].reindex(pd.MultiIndex.from_product([keys, repeats])).to_numpy(float)
    values = measured.reshape(len(keys), len(repeats), len(columns)).transpose(2, 0, 1)
    values = values[:, np.isfinite(values).all(axis=(0, 2))]
    _, n_keys, n_repeats = values.shape
    if n_repeats < 2 or n_keys < 3:
        raise UsageError(
            f"{n_keys} keys have all values of {rule.name} in {n_repeats} repeats; expected at least 3 keys and 2 "
            "repeats, to compare the rankings that they make."
        )
    rows = []
    for size in range(1, n_repeats // 2 + 1):
        divisions = _divisions(n_repeats, size, n_divisions, seed)
        halves = [part for division in divisions for part in division]
        scores = combine(np.stack([average(values[:, :, part], rule.metrics) for part in halves], axis=1), rule)
        found = pd.Series(_spearman(scores[::2], scores[1::2]))
        facts = {"spearman": found.mean(), "spearman_sd": found.std(), "spearman_min": found.min()}
        rows.append({"repeats": size, **facts, "divisions": len(divisions), "keys": n_keys})
    return pd.DataFrame(rows)


def _scores(store: Path) -> Iterator[Score]:
    query = "SELECT key, repeat, scorer, metric_values, status, reason, seconds FROM score ORDER BY key, repeat, scorer"
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            for key, repeat, scorer, values, status, reason, seconds in database.execute(query):
                metrics = {name: float(value) for name, value in json.loads(values).items()}
                yield Score(key, repeat, scorer, metrics, status, reason, seconds)
    except sqlite3.Error as error:
        raise RunError(f"cannot read the scores in {store} ({error}); is it a run's, and is the run over?") from error


def _divisions(n_repeats: int, size: int, n_divisions: int, seed: int) -> list[Division]:
    """Draw different pairs of disjoint sets of repeats."""
    rng = python_generator(seed, "stability", size)
    possible = comb(n_repeats, size) * comb(n_repeats - size, size) // 2
    found: set[Division] = set()
    while len(found) < min(n_divisions, possible):
        drawn = rng.sample(range(n_repeats), 2 * size)
        one, other = sorted((tuple(sorted(drawn[:size])), tuple(sorted(drawn[size:]))))
        found.add((one, other))
    return sorted(found)


def _spearman(one: Array, other: Array) -> Array:
    """Correlate ranks row by row."""
    ranks = [rankdata(scores, axis=1) for scores in (one, other)]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    lengths = [np.sqrt(np.square(each).sum(axis=1)) for each in centred]
    with np.errstate(invalid="ignore"):  # a constant ranking has no correlation
        correlation: Array = (centred[0] * centred[1]).sum(axis=1) / (lengths[0] * lengths[1])
    return correlation
