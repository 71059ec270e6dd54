"""Exhaustive: every set of a few units is scored, so that nothing can be missed; the reference for searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .sets import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 16
"""Units up to which all their sets are scored: 65,536."""


def minimal_sets(score: Score, units: int, threshold: float) -> tuple[int, ...]:
    """All sets whose score is above `threshold` and none of whose proper subsets' is, ascending.

    Raises InputError for more than `MOST` units.
    """
    if units > MOST:
        raise InputError(
            f"An exhaustive search scores every set, at most {MOST} units. Got {units}. Ask for fewer units, such as "
            "grid=4, or search='beam'."
        )
    enough = np.asarray(score(range(2**units))) > threshold
    below = np.zeros_like(enough)  # whether a proper subset is enough
    for unit in range(units):
        halves = (-1, 2, 2**unit)
        reached = (below | enough).reshape(halves)  # a view of each pair of sets that differ in this unit
        below.reshape(halves)[:, 1] |= reached[:, 0]
    found: NDArray[np.intp] = np.flatnonzero(enough & ~below)
    return tuple(found.tolist())
