"""Graph of sets: from sufficient sets downwards, one unit less at a time, as far as enough of the score is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .sets import Scored, children, patches


@dataclass(frozen=True)
class Grown:
    """Sets, each once, the roots first; edges as (parent, child, unit) by position; which sets have all children.

    `truncated` says that the limit on sets kept some set from its children.
    """

    sets: tuple[int, ...]
    edges: tuple[tuple[int, int, int], ...]
    expanded: tuple[bool, ...]
    truncated: bool


def grow(score: Scored, roots: Sequence[int], *, least: float, most: int) -> Grown:
    """The graph below the roots: a set has all its children where its own score is at least `least`, or none.

    Level by level, each level's children in one call. Of one level the highest scores come first; a set whose children
    would make more than `most` sets in all stays without.
    """
    place = {members: position for position, members in enumerate(roots)}
    edges: list[tuple[int, int, int]] = []
    expanded: set[int] = set()
    truncated = False
    level = list(place)
    score(level)
    while level:
        chosen: list[int] = []
        new: dict[int, int] = {}
        for members in sorted(level, key=lambda m: (-score.known[m], m)):
            if score.known[members] < least:
                continue
            more = [child for child in children(members) if child not in place and child not in new]
            if len(place) + len(new) + len(more) > most:
                truncated = True
                continue
            new |= {child: len(place) + len(new) + k for k, child in enumerate(more)}
            chosen.append(members)
        score([child for members in chosen for child in children(members)])
        place |= new
        expanded.update(chosen)
        edges += [
            (place[m], place[child], unit) for m in chosen for child, unit in zip(children(m), patches(m), strict=True)
        ]
        level = list(new)
    return Grown(tuple(place), tuple(edges), tuple(members in expanded for members in place), truncated)
