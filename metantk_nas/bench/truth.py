"""The truth: what architectures reach once they are trained, from our tables, any CSV or the official benchmarks.

Architectures that compute the same function share a canonical key. A truth has one row for each thing that was
measured, and averages them: several trainings of one key by their seeds, and in NAS-Bench-201 also the several cells
of one key. Asked by architecture instead, each text stands for itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from metantk_nas.bench.agreement import MIN_ROWS, Estimate, Yardstick
from metantk_nas.bench.build import TABLE_FILE
from metantk_nas.bench.official import is_official, official_table
from metantk_nas.episodes.request import Progress
from metantk_nas.errors import GenotypeError, UsageError, brief_text, unknown_name
from metantk_nas.networks.conv4 import CONV4
from metantk_nas.results import check_width
from metantk_nas.spaces.space import Space

Unit = Literal["key", "arch"]
ARCH_COLUMNS = ("arch", "arch_str")
FAVOURITES = ("accuracy_5shot", "accuracy", "cifar10_test200")
"""Columns that are the truth where none is named, the first that is there."""
NOT_A_TRUTH = {"index", "position", "seed", "params", "macs", "seconds", "epochs"}
KINDS = ("protocol", "data", "dataset", "space")
"""Columns that tell different truths apart; rows of two of them are never averaged."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What trained architectures reach, higher being better.

    Args:
        name: where it comes from.
        column: what was measured.
        rows: one row a measurement: ``key``, ``arch`` (empty where not known), ``truth``, and where known ``ci``,
            ``seed``, ``index`` (place in the official order), ``params`` and ``macs``.
    """

    name: str
    column: str
    rows: pd.DataFrame

    def averaged(self, unit: Unit = "key") -> pd.DataFrame:
        """Average over the rows of one canonical key, or of one architecture text.

        Returns:
            Frame indexed by ``unit``: ``arch`` (the first of the key), ``key``, ``truth``, ``n_rows``, and where known
            ``params``, ``macs`` and ``ci``: the mean of the rows' own half-widths, which an average does not exceed.

        Raises:
            UsageError: architectures are asked for and the truth knows keys only.
        """
        if unit == "arch" and (self.rows["arch"] == "").any():
            raise UsageError(f"{self.name} names keys, not architectures; compare by key.")
        groups = self.rows.groupby(unit)
        numbers = [name for name in ("truth", "ci", "params", "macs") if name in self.rows.columns]
        frame = groups[numbers].mean()
        frame["n_rows"] = groups.size()
        for name in ("arch", "key"):
            frame[name] = groups[name].first()
        return frame

    def seed_agreement(self) -> tuple[Estimate, int] | None:
        """Kendall's τ between the two training seeds that share most keys, and how many they share.

        It says how much of what scores miss is noise: a score that knew the mean over all seeds would agree with one
        training better than another training does, which has noise of its own, but not fully. None where fewer than
        three keys were trained twice.
        """
        if "seed" not in self.rows.columns:
            return None
        by_seed = self.rows.pivot_table(index="key", columns="seed", values="truth")
        common = by_seed.notna().sum().nlargest(2).index
        pairs = by_seed[common].dropna()
        if len(common) < 2 or len(pairs) < MIN_ROWS or pairs.nunique().min() < 2:
            return None
        first, second = pairs.to_numpy(float).T
        return Yardstick(first).measure(second)["kendall"], len(pairs)


@dataclass
class Names:
    """Reads architecture texts of one space; a text that occurs again costs nothing.

    Args:
        space: the space they belong to.
    """

    space: Space
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)

    def read(self, text: str) -> tuple[str, str]:
        """Return the one text that stands for the same genotype, and its canonical key.

        Raises:
            GenotypeError: ``text`` is no architecture of the space.
        """
        if text not in self._known:
            genotype = self.space.parse(text)
            self._known[text] = (self.space.format(genotype), self.space.key(genotype))
        return self._known[text]


def read_truth(
    path: Path,
    space: Space,
    column: str | None = None,
    *,
    where: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Truth:
    """Read a truth.

    Args:
        path: directory of a few-shot table, any CSV with ``arch``, ``arch_str`` or ``key`` and numbers, or an official
            file (see `metantk_nas.bench.official`).
        space: the space that the architectures belong to.
        column: what is the truth, higher being better; where None, ``accuracy_5shot``, ``accuracy`` or
            ``cifar10_test200``, or the only column of numbers. Its half-widths are in ``<column>_ci``.
        where: keep the rows that have these texts in these columns, such as ``{"protocol": "rfs"}``.
        cache_dir: where an official file leaves its small table.
        progress: told how far the reading of an official folder is.

    Raises:
        UsageError: there is no such file or column, rows of two protocols would be averaged, or nothing is left.
    """
    if not path.exists():
        raise UsageError(f"there is no truth at {path}; expected a table's directory, a CSV or an official benchmark.")
    if is_official(path):
        frame = official_table(path, cache_dir, progress)
    else:
        frame = read_csv(path / TABLE_FILE if path.is_dir() else path)
    frame = _select(frame, where or {}, path.name)
    name = _truth_column(frame, column, path.name)
    rows = identify(frame, Names(space), path.name)
    frame = frame.loc[rows.index]
    rows["truth"] = _numbers(frame[name])
    for known in ("seed", "index", "params", "macs"):
        if known in frame.columns:
            rows[known] = _numbers(frame[known])
    if f"{name}_ci" in frame.columns:
        rows["ci"] = _numbers(frame[f"{name}_ci"])
    rows = rows[np.isfinite(rows["truth"])].reset_index(drop=True)
    if rows.empty:
        raise UsageError(f"{path.name} has no finite {brief_text(name)} of any architecture of {space.name}.")
    return Truth(path.name, name, rows)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV in which ``key``, ``arch`` and the kinds of truth are text.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        check_width(path)
        return pd.read_csv(path, dtype=dict.fromkeys((*ARCH_COLUMNS, *KINDS, "key"), str))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as CSV: {brief_text(error)}.") from error


def identify(frame: pd.DataFrame, names: Names, source: str) -> pd.DataFrame:
    """Find ``key`` and ``arch`` of every row; Conv-4, the yardstick in our tables, belongs to no space and is left out.

    Returns:
        Frame with the columns ``key`` and ``arch``, indexed by those rows of ``frame`` that name an architecture.

    Raises:
        UsageError: no column names architectures, or one of them is not in the space.
    """
    column = next((name for name in (*ARCH_COLUMNS, "key") if name in frame.columns), None)
    if column is None:
        raise UsageError(
            f"{source} has the columns {_listed(frame.columns)}; expected one of {', '.join(ARCH_COLUMNS)} or key, "
            "which say whose numbers they are."
        )
    texts = frame[column].dropna()
    texts = texts[texts != CONV4]
    if column == "key":
        return pd.DataFrame({"key": texts, "arch": ""})
    try:
        found = [names.read(text) for text in texts]
    except GenotypeError as error:
        raise UsageError(f"{source} is not about {names.space.name}: {error}") from error
    return pd.DataFrame(found, columns=["arch", "key"], index=texts.index)


def _select(frame: pd.DataFrame, where: Mapping[str, str], source: str) -> pd.DataFrame:
    for column, text in where.items():
        if column not in frame.columns:
            raise unknown_name(f"column of {source}", column, map(str, frame.columns))
        values = frame[column].astype(str)
        if text not in set(values):
            raise unknown_name(f"{column} of {source}", text, set(values))
        frame = frame[values == text]
    for column in KINDS:
        if column in frame.columns and len(frame[column].dropna().unique()) > 1:
            raise UsageError(
                f"{source} has rows of {column} {_listed(frame[column].unique())}, which are different truths; "
                f"choose one, as in --where {column}={frame[column].iloc[0]}."
            )
    return frame


def _truth_column(frame: pd.DataFrame, column: str | None, source: str) -> str:
    numeric = [str(name) for name in frame.select_dtypes("number").columns]
    choices = [name for name in numeric if name not in NOT_A_TRUTH and not name.endswith("_ci")]
    if column is not None and column not in numeric:
        raise unknown_name(f"column of numbers in {source}", column, choices)
    favourites = [name for name in FAVOURITES if name in choices]
    found = column or next(iter(favourites or (choices if len(choices) == 1 else [])), None)
    if found is None:
        raise UsageError(f"{source} has the columns of numbers {_listed(choices)}; name the one that is the truth.")
    return found


def _numbers(column: "pd.Series[float]") -> "pd.Series[float]":
    return pd.to_numeric(column, errors="coerce").astype(float)


def _listed(names: Sequence[object] | pd.Index | np.ndarray) -> str:
    return brief_text(", ".join(str(name) for name in names)) or "(none)"
