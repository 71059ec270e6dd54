"""Sufficient sets: units of an image that alone keep the target's score, and not without any one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Annotated, Literal

from torch import Tensor

from .._check import Range
from ..baseline import Choice, choose
from ..errors import InputError
from ..passes import Baseline
from ..probe import Probe
from .exhaustive import minimal_sets
from .sets import Scored, children, holds, patches
from .units import Edges, Kind, Units, lay_out

Search = Literal["beam", "exhaustive"]

Stop = Literal["no set left", "max_sets", "max_scores"]
"""Why a search ended; only after "no set left" may nothing of its own reach be missing."""

KEEPS = 0.5
"""Share of the full score that the baseline may keep before it no longer stands for nothing seen."""


@dataclass(frozen=True, eq=False)
class Sufficient:
    """Sufficient sets of one image, smallest first, with the score of each, and how they were found.

    `full` is the score of the whole image, `kept` that of the baseline alone, where everything is hidden; `score` goes
    on giving scores of sets.
    """

    sets: tuple[int, ...]
    scores: tuple[float, ...]
    full: float
    kept: float
    threshold: float
    units: Units
    baseline: Baseline
    score: Scored
    stop: Stop

    @property
    def patches(self) -> tuple[tuple[int, ...], ...]:
        """The units of each set."""
        return tuple(map(patches, self.sets))

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with it, by name, as in an Explanation."""
        return ("baseline_keeps_target",) if self.kept > KEEPS * self.full else ()


def sufficient(
    probe: Probe,
    *,
    guide: Tensor | None = None,
    regions: Kind = "grid",
    grid: Annotated[int, Range(2, 14)] = 7,
    segments: Annotated[int, Range(2, 200)] = 50,
    edges: Edges = "hard",
    baseline: Choice = "auto",
    threshold: Annotated[float, Range(0.01, 1.0)] = 0.9,
    search: Search = "beam",
    beam: Annotated[int, Range(1)] = 3,
    candidates: Annotated[int, Range(1)] = 15,
    max_sets: Annotated[int, Range(1)] = 10,
    max_scores: Annotated[int, Range(1)] = 10_000,
    seed: int = 0,
) -> tuple[Sufficient, ...]:
    """Sets of units that alone keep more than `threshold` of the target's probability, and not without any one unit.

    One result per image, each searched alone. `regions` are `grid` x `grid` cells, the "tokens" of a net that has
    them, or about so many `segments` of "slic". `guide` are maps ``(N, C, h, w)``, HIGH where to look first; without
    them every unit is tried. `baseline` fills what is hidden.

    The beam search starts with nothing shown. Each level adds to each of `beam` sets one of the `candidates` units that
    the guide ranks highest; all that is new is scored in one call. What is enough loses units again, those first whose
    removal leaves most, until none is left that could go; the best of the rest are the next beam. It ends with
    `max_sets` sets, when no set is left, or when `max_scores` were computed, beyond which no level and no removal is
    begun. "exhaustive" scores every set, of at most 16 units.

    Raises InputError where a score is not above 0: no share of it can be kept.

    Source: Shitole, Li, Kahng, Tadepalli, Fern 2021, arXiv:2011.06733; Li et al. 2021, Applied AI Letters, section
    4.1.   Differs: a set reached by several ways counts once and the beam holds `beam` sets; one that holds a found set
    is not followed; the cells' edges are hard and the baseline is validated (theirs: edges="soft", baseline="black").
    """
    if probe.frames.ndim != 4:
        raise InputError(f"sufficient: only images have regions to show. Got rows {tuple(probe.frames.shape)}.")
    if guide is not None and (guide.ndim != 4 or len(guide) != len(probe)):
        raise InputError(f"sufficient: guide must be maps ({len(probe)}, C, h, w). Got {tuple(guide.shape)}.")
    found = []
    for n in range(len(probe)):
        alone = probe.alone(n)
        units = lay_out(alone, regions, grid=grid, segments=segments, edges=edges, seed=seed)
        filled = choose(alone, baseline, seed=seed)
        score = units.scored(alone, filled)
        order = None if guide is None else _order(units.values(guide[n : n + 1]))
        limits = Limits(beam, None if order is None else candidates, max_sets, max_scores)
        with score.held():
            kept, full = _ends(score, units.count)
            stop: Stop = "no set left"
            if search == "exhaustive":
                sets = minimal_sets(score, units.count, threshold * full)
            else:
                sets, stop = beam_search(score, units.count, threshold * full, order=order, limits=limits)
        sets = tuple(sorted(sets, key=lambda members: (members.bit_count(), -score.known[members], members)))
        scores = tuple(score.known[members] for members in sets)
        found.append(Sufficient(sets, scores, full, kept, threshold, units, filled, score, stop))
    return tuple(found)


def _ends(score: Scored, units: int) -> list[float]:
    """The scores of nothing and of everything."""
    ends = score([0, 2**units - 1])
    if not ends[1] > 0:
        raise InputError(
            "sufficient: a set keeps a share of the target's score, so that of the whole image must be above 0. Got "
            f"{ends[1]:.3g}. Give a target function that is positive, such as a probability."
        )
    return ends


def _order(values: Tensor) -> list[int]:
    """Units from the highest value to the lowest, equal ones in their own order."""
    order: list[int] = values.argsort(descending=True, stable=True).tolist()
    return order


# ---- the search ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """How wide and how long a beam search goes; None is without a limit."""

    beam: int | None = None
    candidates: int | None = None
    sets: int | None = None
    scores: int | None = None

    def full(self, found: Sequence[int]) -> bool:
        """Whether no further set is wanted."""
        return self.sets is not None and len(found) >= self.sets

    def spent(self, score: Scored) -> bool:
        """Whether no further score is to be computed."""
        return self.scores is not None and score.scored >= self.scores


def beam_search(
    score: Scored, units: int, threshold: float, *, order: Sequence[int] | None = None, limits: Limits | None = None
) -> tuple[tuple[int, ...], Stop]:
    """Sets whose score is above `threshold` and falls to it or below with any one unit less, and why the search ended.

    `order` are units from the most to the least likely. No set returned holds another. Without limits these are all
    sets that are enough while none of their proper subsets is.
    """
    limits, order = limits or Limits(), list(range(units)) if order is None else order
    found: list[int] = [0] if score([0])[0] > threshold else []
    frontier = [] if found else [0]
    while frontier:
        if limits.spent(score):
            return tuple(found), "max_scores"
        near = [new for members in frontier for new in _next(members, order, limits.candidates)]
        open_ = {members for members in set(near) if not holds(members, found)}
        level = [members for members in near if members in open_]
        scores = dict(zip(level, score(level), strict=True))
        ranked = sorted(scores, key=lambda members: -scores[members])  # equal ones stay in the order of the guide
        hits = [members for members in ranked if scores[members] > threshold]
        while hits and not limits.full(found):
            if limits.spent(score):
                return tuple(found), "max_scores"
            now, hits = hits[: limits.beam], hits[limits.beam or len(hits) :]
            for members in pruned(score, now, threshold):
                if not holds(members, found) and not limits.full(found):
                    found = [*(other for other in found if not holds(other, [members])), members]
            hits = [members for members in hits if not holds(members, found)]
        if limits.full(found):
            return tuple(found), "max_sets"
        frontier = [m for m in ranked if scores[m] <= threshold and not holds(m, found)][: limits.beam]
    return tuple(found), "no set left"


def pruned(score: Scored, sets: Sequence[int], threshold: float) -> list[int]:
    """Each set without the units that could go, those first whose removal leaves most.

    A round scores every single removal of all sets in one call. Of the units that could go alone it then takes all, or
    the better half of them, or the better half of these, ...: the most that can go together. A set ends when none of
    its units can go.
    """
    made = list(sets)
    open_ = [i for i, members in enumerate(made) if members]
    while open_:
        score([child for i in open_ for child in children(made[i])])
        tries = {i: _fewer(made[i], score, threshold) for i in open_}
        score([members for own in tries.values() for members in own])
        open_ = [i for i, own in tries.items() if own]
        for i in open_:
            made[i] = next(members for members in tries[i] if score.known[members] > threshold)
    return made


def _fewer(members: int, score: Scored, threshold: float) -> list[int]:
    """The set without all units that could go alone, without the better half of them, ..., without the best one."""
    going = [child for child in children(members) if score.known[child] > threshold]
    going.sort(key=lambda child: (-score.known[child], child))
    tries, count = [], len(going)
    while going:
        tries.append(reduce(and_, going[:count]))
        if count == 1:
            break
        count = -(-count // 2)
    return tries


def _next(members: int, order: Sequence[int], candidates: int | None) -> list[int]:
    """The set with one unit more: each of the first `candidates` units in order that it has not."""
    free = [unit for unit in order if not members >> unit & 1]
    return [members | 1 << unit for unit in free[:candidates]]
