"""Sets of units as whole numbers, bit k for unit k, and their scores, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from ..errors import InputError

Score = Callable[[Sequence[int]], Sequence[float]]
"""Distinct sets → the score of each, when nothing but its units is shown."""


def patches(members: int) -> tuple[int, ...]:
    """The units in a set, ascending."""
    found = []
    while members:
        lowest = members & -members
        found.append(lowest.bit_length() - 1)
        members ^= lowest
    return tuple(found)


def bitmask(units: Iterable[int], count: int) -> int:
    """The set of these units of `count`; raises InputError for one that is not there."""
    members = 0
    for unit in units:
        if not 0 <= int(unit) < count:
            raise InputError(f"patches: they are counted from 0 to {count - 1}. Got {unit}.")
        members |= 1 << int(unit)
    return members


def children(members: int) -> list[int]:
    """The set with one unit less, for each of its units ascending."""
    return [members ^ 1 << unit for unit in patches(members)]


def holds(members: int, others: Iterable[int]) -> bool:
    """Whether the set holds all units of one of the others."""
    for other in others:  # noqa: SIM110 - twice as quick, and a search asks this of every set it meets
        if other & members == other:
            return True
    return False


class Scored:
    """Scores of sets: what was computed once is looked up from then on; what is new is computed in one call.

    `asked` counts the scores that were wanted, `scored` those that were computed. `held` makes the model ready for
    many calls, as `Probe.held`.
    """

    def __init__(self, score: Score, held: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._score, self.held = score, held
        self.known: dict[int, float] = {}
        self.asked = 0

    @property
    def scored(self) -> int:
        """How many were computed."""
        return len(self.known)

    def __call__(self, sets: Sequence[int]) -> list[float]:
        """The score of each of these sets."""
        self.asked += len(sets)
        new = [members for members in dict.fromkeys(sets) if members not in self.known]
        if new:
            self.known.update(zip(new, self._score(new), strict=True))
        return [self.known[members] for members in sets]
