"""Which few scores should the default ranking add up? Chosen on one half of the cells, measured on the other.

    python benchmarks/choose_preset.py --scores RUN --truth cifar_fs=results/fewshot_bench/TABLE --out choice
    python benchmarks/choose_preset.py --scores anil=RUN1 --scores maml=RUN2 --scores DARTS_RUN \
        --truth cifar_fs=TABLE1:accuracy_5shot --truth omniglot=TABLE2:accuracy_1shot --truth darts=TABLE3 \
        --require condition_number,trace --opposite trace --leave-out effective_rank,ntk_effective_rank \
        --candidate condition_number,trace,prototype_accuracy --combine log_rank_sum --stability --out choice

Scores are runs, rankings or CSV files; with LABEL= before them their columns are called LABEL/metric, params and macs
excepted. A run says which space it is about, and a truth goes with the space in which its architectures can be read.
Columns that are not common to all truths are left out. A truth of shares (0 … 1) is turned into points (0 … 100).

All combinations of up to --max-parts columns (each metric at most once, whichever its run or direction) are compared by
Kendall's τ. On the first half of every division the one with the fewest parts within a standard error of the highest is
chosen; the second half says what it is worth, beside params, macs, naswot, synflow and zen_score (baselines, to be
beaten), condition_number, the ranking presets and every --candidate. `~trace` is the trace against its direction.

Files in --out: summary.txt; held_out.csv (means over divisions), splits.csv and chosen.csv (every division),
combinations.csv and parts.csv (how often chosen), all_cells.csv (the highest on all cells, with bootstrap intervals; of
what these cells have chosen the figures are too good), stability.csv (two disjoint halves of a run's repeats).
"""

import argparse
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from metantk_nas.bench.choose import Cells, Choice, Form, Objective, Search, choose, make_part
from metantk_nas.bench.correlate import RANKING_FILE, SIZES, Scores, correlate, read_scores, recorded_space
from metantk_nas.bench.stability import read_repeats, stability
from metantk_nas.bench.truth import Truth, read_truth
from metantk_nas.bench.validate import CHOSEN, Validation, on_all_cells, summarize, validate
from metantk_nas.errors import MetaNTKError, UsageError, unknown_name
from metantk_nas.results import write_text
from metantk_nas.scorers.registry import OPPOSITE, PRESETS, asked_for, rank_rule
from metantk_nas.spaces.load import load_space
from metantk_nas.types import RankRule

BASELINES = (*SIZES, "naswot", "synflow", "zen_score")
REFERENCES = ("condition_number", *PRESETS)


@dataclass(frozen=True)
class Run:
    """Scores of one space, and what their columns are called after."""

    label: str
    path: Path
    space: str

    def column(self, metric: str) -> str:
        return f"{self.label}/{metric}" if self.label and metric not in SIZES else metric

    def scores(self) -> Scores:
        """All scores but the run's own rank, by the names of their columns."""
        found = read_scores(self.path, load_space(self.space))
        names = {name: self.column(name) for name in found.directions if name != "rank"}
        rows = found.rows[["key", "arch", *names]].rename(columns=names)
        return replace(found, rows=rows, directions={names[name]: found.directions[name] for name in names})

    def repeats(self) -> pd.DataFrame:
        """Scores by key and repeat, with params and macs, which are the same in all repeats."""
        table = read_repeats((self.path.parent if self.path.name == RANKING_FILE else self.path) / "scores.sqlite")
        table = table.drop(columns=[*SIZES], errors="ignore")
        table.columns = [self.column(name) for name in table.columns]
        sizes = self.scores().rows.groupby("key")[[*SIZES]].first()
        return table.join(sizes, on="key")


def read_run(text: str, default_space: str) -> Run:
    """Read ``[LABEL=]PATH``."""
    label, _, path = ("", "", text) if Path(text).exists() else text.rpartition("=")
    return Run(label, Path(path), recorded_space(Path(path)) or default_space)


def read_named_truth(text: str, spaces: Iterable[str]) -> tuple[Truth, str]:
    """Read ``NAME=PATH[:COLUMN]``, in the first space that its architectures belong to; return the space, too."""
    name, equals, rest = text.partition("=")
    path, _, column = (rest, "", "") if Path(rest).exists() else rest.rpartition(":")
    if not equals or not path:
        raise UsageError(f"--truth {text!r} cannot be read; expected NAME=PATH or NAME=PATH:COLUMN, PATH being there.")
    reasons = []
    for space in spaces:
        try:
            return replace(read_truth(Path(path), load_space(space), column or None), name=name), space
        except UsageError as error:
            reasons.append(f"{space}: {error}")
    raise UsageError(f"the truth {name} belongs to none of the spaces that have scores. " + " ".join(reasons))


def read_cells(
    truths: Sequence[str], runs: Sequence[Run], sample: int | None, seed: int
) -> tuple[list[Cells], dict[str, bool]]:
    """Join every truth with the scores of its space; return the cells, and the directions of what is common to all."""
    cells, directions = [], []
    spaces = dict.fromkeys(run.space for run in runs)
    for text in truths:
        truth, space = read_named_truth(text, spaces)
        scores = [run.scores() for run in runs if run.space == space]
        names = [name for each in scores for name in each.directions if name not in SIZES]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{', '.join(twice)} stand in several runs; give them labels, as in --scores anil=RUN.")
        found = correlate(truth, scores, load_space(space), sample=sample, n_resamples=1, seed=seed)
        reached = found.compared["truth"].to_numpy(float)
        cells.append(Cells(truth.name, space, found.scores, reached * (100 if reached.max() <= 1 else 1)))
        directions.append(dict(zip(found.table["score"], found.table["higher_is_better"], strict=True)))
    common = [name for name in cells[0].scores.columns if all(name in each for each in directions)]
    return cells, {name: bool(directions[0][name]) for name in common}


def make_rule(text: str, directions: Mapping[str, bool], form: Form) -> RankRule:
    """Make a rule of column names; a preset has its own form."""
    if text in PRESETS:
        names = [asked_for(metric) for metric in PRESETS[text].metrics]
        return replace(PRESETS[text], metrics=tuple(make_part(name, directions) for name in names))
    names = [name.strip() for name in text.split(",")]
    return RankRule(text, tuple(make_part(name, directions) for name in names), form)


def fixed_rules(names: Sequence[str], directions: Mapping[str, bool]) -> dict[str, RankRule]:
    """Make rules of metrics and presets, once for every label that has their columns."""
    labels = dict.fromkeys(column.rpartition("/")[0] for column in directions)
    rules: dict[tuple[str, ...], RankRule] = {}
    for name in names:
        rule = rank_rule(name)
        signs = [asked_for(metric).removesuffix(metric.name) for metric in rule.metrics]
        for label in labels:
            own = {metric.name: f"{label}/{metric.name}" for metric in rule.metrics}
            columns = tuple(own[each] if own[each] in directions else each for each in own)
            if all(column in directions for column in columns):
                title = f"{label}/{name}" if set(columns) & set(own.values()) else name
                metrics = tuple(make_part(sign + each, directions) for sign, each in zip(signs, columns, strict=True))
                rules.setdefault((name, *columns), replace(rule, name=title, metrics=metrics))
    return {rule.name: rule for rule in rules.values()}


def shown(rule: RankRule) -> str:
    """Name of a rule with the form of its combination."""
    return rule.name if len(rule.metrics) == 1 else f"{rule.name} [{rule.combine}]"


def make_search(arguments: argparse.Namespace, directions: Mapping[str, bool]) -> Search:
    wanted = columns_of(arguments.parts, directions) or {*directions}
    wanted -= columns_of(arguments.leave_out, directions)
    turned = columns_of(arguments.opposite, wanted)
    parts = [column for column in directions if column in wanted]
    parts += [f"{OPPOSITE}{column}" for column in directions if column in turned]
    return Search(
        tuple(make_part(name, directions) for name in parts),
        forms=tuple(arguments.combine),
        required=tuple(listed(arguments.require)),
        max_parts=arguments.max_parts,
        objective=arguments.objective,
        one_setting=arguments.one_setting,
        limit=arguments.limit,
        beam=arguments.beam,
    )


def columns_of(text: str, columns: Collection[str]) -> set[str]:
    """Columns that a comma-separated list names, each by its own name or as a metric under any label."""
    found: set[str] = set()
    for name in listed(text):
        columns_of_name = {column for column in columns if name in (column, column.rpartition("/")[2])}
        if not columns_of_name:
            raise unknown_name("score", name, columns)
        found |= columns_of_name
    return found


def listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def tallies(chosen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """How often combinations and parts were chosen, as shares of the divisions."""
    combinations = chosen.groupby(["rule", "combine"]).agg(
        chosen=("split", "size"), kendall_choosing=("kendall_choosing", "mean")
    )
    parts = chosen["rule"].str.split(", ").explode().value_counts()
    tables = {
        "combinations": combinations.sort_values("chosen", ascending=False, kind="stable").reset_index(),
        "parts": parts.rename("chosen").rename_axis("part").reset_index(),
    }
    for table in tables.values():
        table["share"] = table["chosen"] / len(chosen)
    return tables


def run_stability(runs: Sequence[Run], rules: Iterable[RankRule], seed: int) -> Iterator[pd.DataFrame]:
    """Stability of every rule in every space; ``seconds`` is what the repeats of one set cost for one cell."""
    for space in dict.fromkeys(run.space for run in runs):
        tables = [run.repeats() for run in runs if run.space == space]
        table = pd.concat(tables, axis=1, join="inner")
        table = table.loc[:, ~table.columns.duplicated()]  # params and macs, which every run has
        seconds = sum(each.filter(regex="(^|/)seconds$").to_numpy(float).mean() for each in tables)
        for rule in rules:
            found = stability(table, rule, seed=seed)
            found.insert(0, "rule", shown(rule))
            found.insert(0, "space", space)
            yield found.assign(seconds=found["repeats"] * seconds)


def told(cells: Sequence[Cells], search: Search, choice: Choice, seconds: float) -> Iterator[str]:
    """What was compared and chosen on all cells."""
    for each in cells:
        lacking = int((~each.scored).sum())
        yield f"{each.name}: {len(each)} cells of {each.space}, {lacking} of them without all scores (these come last)"
    yield f"parts: {', '.join(part.name for part in search.parts)}"
    yield f"{choice.n_compared:,} combinations compared on all cells; {seconds:.0f} s altogether"
    yield f"chosen on all cells: {shown(choice.rule)}"
    yield (
        f"  τ {choice.objective:.3f}; the highest, {shown(choice.top[0])}, has {choice.top_objective[0]:.3f} "
        f"(standard error of the difference {choice.standard_error:.3f})"
    )
    yield "  Both are figures of the cells that chose them. What the choice is worth stands under “held out”."


def report(tables: Mapping[str, pd.DataFrame], opening: Iterable[str], out: Path | None) -> None:
    """Print all tables, and write them."""
    short = {name: table for name, table in tables.items() if name not in ("splits", "chosen")}
    sections = [f"== {name.replace('_', ' ')} ==\n{as_text(table)}" for name, table in short.items()]
    text = "\n\n".join(["\n".join(opening), *sections]) + "\n"
    print(text)
    if out is None:
        return
    write_text(out / "summary.txt", text)
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def as_text(table: pd.DataFrame) -> str:
    """A table to be read: an interval beside its figure."""
    text = table.copy()
    for name in [name.removesuffix("_low") for name in table.columns if name.endswith("_low")]:
        ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
        place = list(text.columns).index(name) + 1
        text.insert(place, f"{name}_95%", ["" if np.isnan(low) else f"{low:.3f}…{high:.3f}" for low, high in ends])
        text = text.drop(columns=[f"{name}_low", f"{name}_high"])
    return text.to_string(index=False, na_rep="", float_format="{:.3f}".format)


def study(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    runs = [read_run(text, arguments.space) for text in arguments.scores]
    cells, directions = read_cells(arguments.truth, runs, arguments.sample, arguments.seed)
    search = make_search(arguments, directions)
    baselines = fixed_rules(BASELINES, directions)
    rules = [make_rule(text, directions, form) for text in arguments.candidate for form in arguments.combine]
    candidates = {shown(rule): rule for rule in rules}
    others = {**fixed_rules(REFERENCES, directions), **candidates}
    parts = [*search.parts, *(metric for rule in (*baselines.values(), *others.values()) for metric in rule.metrics)]
    columns = list(dict.fromkeys(part.name.removeprefix(OPPOSITE) for part in parts))
    cells = [replace(each, scores=each.scores[columns]) for each in cells]
    found: Validation = validate(
        cells,
        search,
        baselines,
        others,
        n_splits=arguments.splits,
        seed=arguments.seed,
        progress=tell(arguments.splits),
    )
    choice = choose(cells, search, n_top=arguments.top)
    best = {CHOSEN: choice.rule} | {shown(rule): rule for rule in choice.top} | others
    tables = {
        "held_out": summarize(found.figures, arguments.objective),
        **tallies(found.chosen),
        "all_cells": on_all_cells(cells, best, baselines, seed=arguments.seed),
    }
    if arguments.stability:
        ranked = {shown(rule): rule for rule in (choice.rule, *others.values())}.values()
        tables["stability"] = pd.concat(run_stability(runs, ranked, arguments.seed), ignore_index=True)
    tables |= {"splits": found.figures, "chosen": found.chosen}
    report(tables, told(cells, search, choice, time.perf_counter() - start), arguments.out)


def tell(n_splits: int) -> Callable[[int], None]:
    def progress(done: int) -> None:
        print(f"\rdivision {done} of {n_splits}", end="" if done < n_splits else "\n", file=sys.stderr, flush=True)

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", action="append", required=True, metavar="[LABEL=]PATH")
    parser.add_argument("--truth", action="append", required=True, metavar="NAME=PATH[:COLUMN]")
    parser.add_argument("--space", default="nas_bench_201", help="of scores that are not a run")
    parser.add_argument("--sample", type=int, help="so many cells of each truth, drawn at random")
    parser.add_argument("--parts", default="", help="comma-separated; all common columns where not given")
    parser.add_argument("--leave-out", default="", help="metrics that are no parts")
    parser.add_argument("--opposite", default="", help="metrics that may also stand against their direction")
    parser.add_argument("--require", default="", help="metrics that every combination has")
    parser.add_argument("--max-parts", type=int, default=5)
    parser.add_argument("--combine", type=forms, default="rank_sum,log_rank_sum", help="forms, also of candidates")
    parser.add_argument("--one-setting", action="store_true", help="no combination mixes labels")
    parser.add_argument("--objective", choices=get_args(Objective), default="mean", help="of several truths")
    parser.add_argument("--candidate", action="append", default=[], metavar="LIST", help="a rule that is measured, too")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--top", type=int, default=5, help="how many of the highest on all cells are shown")
    parser.add_argument("--limit", type=int, default=Search.limit, help="combinations of one size; beyond it, a beam")
    parser.add_argument("--beam", type=int, default=Search.beam, help="combinations that are extended then")
    parser.add_argument("--stability", action="store_true", help="also compare rankings of disjoint repeats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write everything here")
    try:
        study(parser.parse_args())
    except MetaNTKError as error:
        raise SystemExit(f"choose_preset: {error}") from error


def forms(text: str) -> list[Form]:
    if strange := [name for name in listed(text) if name not in get_args(Form)]:
        raise argparse.ArgumentTypeError(f"{strange} is no form; expected some of {', '.join(get_args(Form))}")
    return [form for form in get_args(Form) if form in listed(text)]


if __name__ == "__main__":
    main()
