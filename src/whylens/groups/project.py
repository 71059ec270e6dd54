"""Project: vectors reduced by PCA in one pass over them, and laid out in two dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COMPONENTS = 50
"""Axes that are kept, fewer where the data have fewer."""

LANDMARKS = 100_000
"""Points that t-SNE lays out; where there are more, the rest is placed among these."""

PERPLEXITY = 30

NEIGHBOURS = 5
"""Landmarks that place another point."""

_BLOCK = 8192
_MANY = 5000  # points from which t-SNE interpolates on a grid, with approximate neighbours and several threads
_JUDGED = 2000  # points that say how faithful a picture is: the comparison is of all with all


@dataclass(frozen=True)
class Pca:
    """`mean` ``(K,)``, `axes` ``(d, K)`` and the share `explained` ``(d,)`` of the variance that lies along each."""

    mean: Array
    axes: Array
    explained: Array

    def reduced(self, vectors: Array) -> Array:
        """Vectors ``(P, K)`` along the axes ``(P, d)``, float32."""
        found = np.empty((len(vectors), len(self.axes)), np.float32)
        for rows in _blocks(len(vectors)):
            found[rows] = (vectors[rows] - self.mean) @ self.axes.T
        return found


@dataclass(frozen=True)
class Layout:
    """Points in the plane ``(P, 2)``; `placed` ``(P,)`` is True where neighbours placed it, not t-SNE.

    `trust` is trustworthiness (Venna and Kaski 2001): 1 where no two are close in the plane that are far apart.
    """

    at: Array
    placed: Array
    trust: float


def normalised(vectors: Array) -> Array:
    """Rows ``(P, K)`` of length 1, float32; rows of zeros stay."""
    found = np.empty(vectors.shape, np.float32)
    for rows in _blocks(len(vectors)):
        length = np.linalg.norm(vectors[rows], axis=1, keepdims=True)
        found[rows] = vectors[rows] / np.where(length > 0, length, 1)
    return found


def pca(vectors: Array, components: int = COMPONENTS) -> Pca:
    """Principal axes of vectors ``(P, K)``, from their sum and ``X^T X`` in float64: one pass, memory ``K * K``.

    An axis points where its largest weight is positive. Axes without variance are left out.
    """
    count, width = vectors.shape
    total, square = np.zeros(width), np.zeros((width, width))
    for rows in _blocks(count):
        block = vectors[rows].astype(np.float64)
        total += block.sum(0)
        square += block.T @ block
    mean = total / max(1, count)
    spread = square / max(1, count) - np.outer(mean, mean)
    values, axes = np.linalg.eigh(spread)
    values, axes = values[::-1], axes[:, ::-1].T
    real = int((values > 1e-10 * max(values[0], 1e-30)).sum()) if values[0] > 1e-12 else 0
    kept = max(1, min(components, real, count - 1))
    axes = axes[:kept]
    axes = axes * np.sign(axes[np.arange(kept), np.abs(axes).argmax(1)])[:, None]
    return Pca(
        mean.astype(np.float32), axes.astype(np.float32), np.clip(values[:kept], 0, None) / max(values.sum(), 1e-30)
    )


def layout(reduced: Array, *, seed: int = 0, strata: Array | None = None, landmarks: int = LANDMARKS) -> Layout:
    """Points ``(P, d)`` in the plane by t-SNE, from their first two axes; the same seed, the same picture.

    Above `landmarks` points so many of them are laid out, drawn from every stratum ``(P,)`` alike, and each other
    one is placed at the mean of its nearest, weighed by nearness.
    """
    count = len(reduced)
    chosen = _landmarks(count, strata, landmarks, seed)
    at = np.zeros((count, 2), np.float32)
    at[chosen] = _tsne(reduced[chosen], seed)
    placed = np.ones(count, np.bool_)
    placed[chosen] = False
    rest = placed.nonzero()[0]
    if len(rest):
        at[rest] = _among(reduced[rest], reduced[chosen], at[chosen])
    return Layout(at, placed, trustworthiness(reduced, at, seed=seed))


def trustworthiness(reduced: Array, at: Array, *, seed: int = 0, neighbours: int = 10) -> float:
    """Trustworthiness of a picture ``(P, 2)`` of points ``(P, d)``, on at most 2,000 of them; NaN where too few."""
    from sklearn.manifold import trustworthiness as judged

    rows = np.random.default_rng(seed).permutation(len(at))[:_JUDGED]
    if len(rows) < 4 * neighbours or not np.ptp(reduced, axis=0).any():
        return float("nan")
    return float(judged(reduced[rows], at[rows], n_neighbors=neighbours))


def _tsne(points: Array, seed: int) -> Array:
    from openTSNE import TSNE

    count = len(points)
    plane = np.zeros((count, 2), np.float32)
    plane[:, : points.shape[1]] = points[:, :2]
    if count < 8 or not np.ptp(points, axis=0).any():
        return plane  # too few, or all equal: nothing to unfold
    start = plane / max(float(plane[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    many = count > _MANY
    made = TSNE(
        perplexity=perplexity,
        initialization=start,
        random_state=seed,
        metric="euclidean",
        neighbors="auto" if many else "exact",
        negative_gradient_method="fft" if many else "bh",
        n_jobs=-1 if many else 1,  # for few points threads only wait for each other
    )
    return np.asarray(made.fit(np.ascontiguousarray(points, np.float32)), np.float32)


def _landmarks(count: int, strata: Array | None, most: int, seed: int) -> Array:
    """Numbers of the points to lay out, in order: all of them, or the same share of every stratum."""
    if count <= most:
        return np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    strata = np.zeros(count, np.int64) if strata is None else strata
    order = order[np.argsort(strata[order], kind="stable")]
    return np.sort(order[np.linspace(0, count - 1, most).round().astype(np.int64)])  # evenly along all strata


def _among(points: Array, known: Array, at: Array) -> Array:
    """Places ``(P, 2)`` of points: the mean of their nearest known ones, weighed by nearness."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known)), algorithm="brute").fit(known)
    found = np.empty((len(points), 2), np.float32)
    for rows in _blocks(len(points), 1024):
        away, which = near.kneighbors(points[rows])
        weight = 1 / (away + 1e-6)
        found[rows] = (at[which] * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)
    return found


def _blocks(count: int, size: int = _BLOCK) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
