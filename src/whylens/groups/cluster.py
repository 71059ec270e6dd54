"""Cluster: which points are one reason. In PCA space, never on the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SMALLEST = 8
"""Points of the smallest group."""

SHARE = 0.05
"""Or this share of what is clustered together, if that is more."""

NEIGHBOURS = 10
"""Nearest points that say which group a point belongs to, and which groups touch."""

TOUCHING = 0.06
"""Groups are one where this share of the nearest neighbours of the smaller one's points lies in the other."""

DRAWS = 5
"""Times that a fifth is left out to see how stable groups are."""

MANY = 20_000
"""Points from which two times are enough: a mean over so many moves in the third digit."""

FAR = 2.0
"""A point belongs to no group where its neighbours are this many times as far as those of the group's own, at most."""


def clusters(reduced: Array, apart: Array, *, smallest: int | None = None, finest: bool = False) -> Array:
    """The group ``(P,)`` of every point ``(P, d)``, numbered by size within each part, or -1.

    Points are only grouped with those of the same number in `apart` ``(P,)``, such as their class. HDBSCAN finds what
    is dense; what lies near a group joins it; groups that touch are merged. `finest`: of what HDBSCAN finds within
    one another, the innermost count, not the most persistent.
    """
    found, first = np.full(len(reduced), -1, np.int64), 0
    for part in np.unique(apart):
        rows = (apart == part).nonzero()[0]
        own = _together(reduced[rows], smallest, finest)
        found[rows[own >= 0]] = own[own >= 0] + first
        first += own.max(initial=-1) + 1
    return found


def agreement(reduced: Array, apart: Array, groups: Array, *, seed: int = 0, finest: bool = False) -> float:
    """How far the groups stay when a fifth of the points is left out: mean adjusted Rand index over five draws, two
    of `MANY` points or more.

    Points that are in no group, in either, count as a group of their own.
    """
    from sklearn.metrics import adjusted_rand_score

    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS if len(reduced) < MANY else 2):
        rows = np.sort(rng.permutation(len(reduced))[: max(2, round(0.8 * len(reduced)))])
        again = clusters(reduced[rows], apart[rows], finest=finest)
        found.append(adjusted_rand_score(groups[rows], again))
    return float(np.mean(found)) if len(reduced) > 1 else float("nan")


def _together(points: Array, smallest: int | None, finest: bool) -> Array:
    """Groups of points that may all be grouped with one another, the largest first."""
    count = len(points)
    size = smallest or max(SMALLEST, round(SHARE * count))
    if count < 2 * size or not np.ptp(points, axis=0).any():
        return np.zeros(count, np.int64)
    import hdbscan

    search = hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=min(size, NEIGHBOURS), cluster_selection_method="leaf" if finest else "eom"
    )
    labels = search.fit_predict(points.astype(np.float64))
    if labels.max(initial=-1) < 1:
        return np.zeros(count, np.int64)
    away, near = _nearest(points)
    return _by_size(_joined(_merged(labels, away, near), away, near, FAR))


def _nearest(points: Array) -> tuple[Array, Array]:
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1)).fit(points)
    away, which = near.kneighbors()
    return away, which


def _merged(labels: Array, away: Array, near: Array) -> Array:
    """Groups that touch as one, the closest pair first, until none do; what lies between counts to the nearer one."""
    labels, spread = labels.copy(), _joined(labels, away, near, np.inf)
    while True:
        names = np.unique(labels[labels >= 0])
        pairs = [(_touch(spread, near, a, b), a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
        closest = max(pairs, default=(0.0, 0, 0))
        if closest[0] < TOUCHING:
            return labels
        for held in (labels, spread):
            held[held == closest[2]] = closest[1]


def _touch(labels: Array, near: Array, a: int, b: int) -> float:
    """The share of neighbours of the smaller group's points, among those in either, that lie in the other.

    No more neighbours of a point are asked than its group can have: the others must lie elsewhere, near or far.
    """
    small, other = (a, b) if (labels == a).sum() <= (labels == b).sum() else (b, a)
    own = labels == small
    theirs = labels[near[own, : max(1, int(own.sum()) - 1)]]
    here, there = (theirs == small).sum(), (theirs == other).sum()
    return float(there / max(1, here + there))


def _joined(labels: Array, away: Array, near: Array, far: float) -> Array:
    """Points of no group in that of most of their neighbours, unless those are far; those with most of them first."""
    labels, distance = labels.copy(), away.mean(1)
    names = np.unique(labels[labels >= 0])
    usual = np.array([np.quantile(distance[labels == g], 0.95) for g in names])
    limit = far * usual if np.isfinite(far) else np.full(len(names), np.inf)
    for least in range(near.shape[1], 0, -1):
        while True:
            loose = (labels < 0).nonzero()[0]
            votes = (labels[near[loose]][:, :, None] == names).sum(1)
            group = votes.argmax(1)
            joins = (votes.max(1, initial=0) >= least) & (distance[loose] <= limit[group])
            if not joins.any():
                break
            labels[loose[joins]] = names[group[joins]]
    return labels


def _by_size(labels: Array) -> Array:
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    order = {int(name): k for k, name in enumerate(names[np.argsort(-sizes, kind="stable")])}
    return np.array([order.get(int(label), -1) for label in labels], np.int64)


def assigned(known: Array, labels: Array, new: Array) -> Array:
    """The group ``(P,)`` of new points ``(P, d)``: that of most of their nearest known ones, unless those are far."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(known) - 1)
    if count < 1 or not len(new):
        return np.full(len(new), labels[0] if len(labels) else -1, np.int64)
    near = NearestNeighbors(n_neighbors=count).fit(known)
    usual = near.kneighbors()[0].mean(1)
    names = np.unique(labels[labels >= 0])
    limit = np.array([FAR * np.quantile(usual[labels == g], 0.95) for g in names])
    away, which = near.kneighbors(new)
    votes = (labels[which][:, :, None] == names).sum(1)
    group = votes.argmax(1)
    joins = (2 * votes.max(1) > count) & (away.mean(1) <= limit[group])
    return np.where(joins, names[group], -1)
