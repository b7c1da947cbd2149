"""Rankings by plain loops, written from the words in the documentation; slow, and imports nothing from the package."""

import math
from typing import Any


def six_digits(value: float) -> float:
    return float(f"{value:.5e}")


def average_rank(value: float, values: list[float], higher_is_better: bool) -> float:
    """1 + how many are better + half of how many others are equal."""
    better = sum(other > value if higher_is_better else other < value for other in values)
    return 1 + better + (sum(other == value for other in values) - 1) / 2


def dense_scores(rows: list[dict[str, Any]], rule: list[tuple[str, bool]], combine: str) -> list[float | None]:
    """Score of every row, None where it is not ok; ``rule`` holds pairs of metric and higher-is-better."""
    distinct = []
    for row in rows:
        values = (row["key"], *(six_digits(row[name]) for name, _ in rule)) if row["status"] == "ok" else None
        if values is not None and values not in distinct:
            distinct.append(values)
    scores: list[float | None] = []
    for row in rows:
        if row["status"] != "ok":
            scores.append(None)
            continue
        total = 0.0
        for column, (name, higher_is_better) in enumerate(rule, start=1):
            pool = [values[column] for values in distinct]
            rank = average_rank(six_digits(row[name]), pool, higher_is_better)
            total += rank if combine == "rank_sum" else -math.log((len(distinct) + 1 - rank) / len(distinct))
        scores.append(total)
    return scores


def dense_ranks(scores: list[float | None]) -> list[int]:
    """Competition ranks; what is not ok shares the rank after all that is."""
    n_ok = sum(score is not None for score in scores)
    return [
        n_ok + 1 if score is None else 1 + sum(other is not None and other < score - 1e-9 for other in scores)
        for score in scores
    ]
