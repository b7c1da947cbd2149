"""Pareto fronts and crowding distances by plain loops, written from NSGA-II (Deb et al. 2002)."""

import math

Point = tuple[float, ...]


def dominates(first: Point, second: Point) -> bool:
    """Nowhere higher and somewhere lower."""
    return all(a <= b for a, b in zip(first, second, strict=True)) and first != second


def peeled_fronts(points: list[Point]) -> list[int]:
    """Set aside those that nobody dominates, again and again."""
    numbers = [0] * len(points)
    number = 0
    while 0 in numbers:
        number += 1
        left = [index for index, known in enumerate(numbers) if known == 0]
        for index in [i for i in left if not any(dominates(points[j], points[i]) for j in left)]:
            numbers[index] = number
    return numbers


def crowding(points: list[Point]) -> list[float]:
    """Gaps between neighbours in each objective, in parts of its range; the ends are infinitely far."""
    distances = [0.0] * len(points)
    for objective in zip(*points, strict=True):
        low, high = min(objective), max(objective)
        if low == high:
            continue
        order = sorted(range(len(points)), key=objective.__getitem__)
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, index, after in zip(order, order[1:], order[2:], strict=False):
            distances[index] += (objective[after] - objective[before]) / (high - low)
    return distances
