"""Diverse sets: the largest choice among sets of units in which no two share much; exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence

OVERLAPS = (0, 1, 2)
"""Numbers of shared units for which explanations are counted."""

JACCARD = 0.2
"""Shared units, as a share of the units of both, up to which two sets count as different explanations."""

Apart = Callable[[int, int], bool]
"""Whether two sets may stand beside each other."""


def by_overlap(most: int) -> Apart:
    """At most so many units in common."""
    return lambda a, b: (a & b).bit_count() <= most


def by_jaccard(most: float) -> Apart:
    """At most this share of the units of both in common: one of two 2-unit sets' three units is a third."""
    return lambda a, b: (a & b).bit_count() <= most * (a | b).bit_count()


def diverse(sets: Sequence[int], scores: Sequence[float], apart: Apart) -> tuple[int, ...]:
    """Positions of the largest choice of sets that are pairwise apart; of equally large ones that of highest scores.

    A maximum clique by branch and bound on bit sets: what is left is split into classes of sets that exclude each
    other, of which a choice can hold one each.
    """
    order = sorted(range(len(sets)), key=lambda i: (-scores[i], i))
    near = [0] * len(order)
    for a, i in enumerate(order):
        for b, j in enumerate(order):
            if a != b and apart(sets[i], sets[j]):
                near[a] |= 1 << b
    weight = [scores[i] for i in order]
    best: tuple[int, float, int] = (0, 0.0, 0)  # how many, their scores, which

    def grow(chosen: int, count: int, total: float, left: int) -> None:
        nonlocal best
        if (count, total) > best[:2]:
            best = (count, total, chosen)
        for place, classes, reach in reversed(_bounds(left, near, weight)):
            if (count + classes, total + reach) <= best[:2]:
                return
            bit = 1 << place
            grow(chosen | bit, count + 1, total + weight[place], left & near[place])
            left ^= bit

    grow(0, 0, 0.0, (1 << len(order)) - 1)
    return tuple(sorted(order[place] for place in range(len(order)) if best[2] >> place & 1))


def _bounds(left: int, near: Sequence[int], weight: Sequence[float]) -> list[tuple[int, int, float]]:
    """What is left class by class: a place, how many classes there are up to it, and the sum of their best scores."""
    found = []
    classes, reach = 0, 0.0
    while left:
        classes, rest, top = classes + 1, left, 0.0
        while rest:
            place = (rest & -rest).bit_length() - 1
            top = max(top, weight[place])
            found.append((place, classes, reach + top))
            left ^= 1 << place
            rest &= ~(1 << place) & ~near[place]
        reach += top
    return found


def counts(sets: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
    """How many explanations there are at 0, 1 and 2 shared units, and by the Jaccard index, whose limit is told."""
    said: dict[str, float] = {f"t{most}": len(diverse(sets, scores, by_overlap(most))) for most in OVERLAPS}
    return {**said, "jaccard": len(diverse(sets, scores, by_jaccard(JACCARD))), "jaccard_limit": JACCARD}
