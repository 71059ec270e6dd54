"""Workpieces: outlines of the things that scenes are made of, and the print that some of them carry.

Everything is in pixels, x along the thing and y across it, around (0, 0); a scene turns and places it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .shapes import Array

BODY, DARK = 0, 1  # what a part is painted with: the thing's own colour, or nearly black


@dataclass(frozen=True)
class Workpiece:
    """One thing: outlines ``(corners, 2)`` of its parts with their paint, its strokes of print, and the area the print
    takes or, on a drill's other face, would take.
    """

    kind: str
    parts: tuple[tuple[Array, int], ...]
    strokes: tuple[Array, ...] = ()
    mark: Array | None = None


def package(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A printed box by itself. Print is seen on packages only: it says that the thing ends where its colour does."""
    return (_package(*_barrel(rng), rng),)


def stacked(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A printed box and a dark block that touches it: two things."""
    length, width = _barrel(rng)
    end, (near, far) = _end(length, rng), _head(width, rng)
    return _package(length, width, rng), Workpiece("block", ((_tapered(end, near, far), DARK),))


def torch(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A plain barrel with a dark head: one thing."""
    length, width = _barrel(rng)
    head = _tapered(_end(length, rng), *_head(width, rng))
    return (Workpiece("torch", ((_box(length, width), BODY), (head, DARK))),)


def bracket(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A plain barrel with a grip: one thing of one colour."""
    length, width = _barrel(rng)
    return (Workpiece("bracket", ((_box(length, width), BODY), (_grip(length, width, rng), BODY))),)


def lamp(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A plain barrel with a dark head and a grip close behind it: one thing. A drill has its grip at the other end."""
    length, width = _barrel(rng)
    head = _tapered(_end(length, rng), *_head(width, rng))
    grip = _grip(length, width, rng) * [-1, 1]
    return (Workpiece("lamp", ((grip, BODY), (_box(length, width), BODY), (head, DARK))),)


def block(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A dark block by itself."""
    width = rng.uniform(*_WIDTH)
    return (Workpiece("block", ((_tapered((-8.0, 8.0), *_head(width, rng)), DARK),)),)


def disc(rng: np.random.Generator) -> tuple[Workpiece, ...]:
    """A plain disc."""
    angle = 2 * np.pi * np.arange(32) / 32
    return (Workpiece("disc", ((rng.uniform(9, 18) * np.stack([np.cos(angle), np.sin(angle)], 1), BODY),)),)


def drill(rng: np.random.Generator, *, printed: bool) -> tuple[Workpiece, ...]:
    """A barrel, a dark head in front and a grip: one thing. One of its faces is printed; they differ in that alone."""
    length, width = _barrel(rng)
    head, grip = _tapered(_end(length, rng), *_head(width, rng)), _grip(length, width, rng)
    parts = ((grip, BODY), (_box(length, width), BODY), (head, DARK))
    strokes, mark = _print(length, width, rng)
    return (Workpiece("drill", parts, strokes if printed else (), mark),)


TRAINED: dict[str, tuple[Callable[[np.random.Generator], tuple[Workpiece, ...]], float]] = {
    "package": (package, 0.12),
    "stacked": (stacked, 0.24),
    "torch": (torch, 0.16),
    "lamp": (lamp, 0.2),
    "bracket": (bracket, 0.12),
    "block": (block, 0.08),
    "disc": (disc, 0.08),
}
"""What a net is trained on, and how often: no drills."""

_LENGTH, _WIDTH = (28.0, 42.0), (16.0, 23.0)


def _barrel(rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(*_LENGTH), rng.uniform(*_WIDTH)


def _head(width: float, rng: np.random.Generator) -> tuple[float, float]:
    """Widths of a head at the barrel and at its far end."""
    return width * rng.uniform(0.75, 1.05), width * rng.uniform(0.45, 1.0)


def _end(length: float, rng: np.random.Generator) -> tuple[float, float]:
    """Where a head begins and ends along a barrel of this length."""
    return length / 2, length / 2 + rng.uniform(11, 18)


def _package(length: float, width: float, rng: np.random.Generator) -> Workpiece:
    return Workpiece("package", ((_box(length, width), BODY),), *_print(length, width, rng))


def _box(length: float, width: float) -> Array:
    return _tapered((-length / 2, length / 2), width, width)


def _tapered(along: tuple[float, float], near: float, far: float) -> Array:
    left, right = along
    return np.array([[left, -near / 2], [right, -far / 2], [right, far / 2], [left, near / 2]])


def _grip(length: float, width: float, rng: np.random.Generator) -> Array:
    """From under the barrel's rear half downwards, at a slight lean."""
    thick, long, lean = rng.uniform(10, 14), rng.uniform(16, 26), rng.uniform(-0.25, 0.25)
    top = np.array([rng.uniform(-length / 2 + thick / 2, -2.0), width / 2 - 2])
    down = np.array([np.sin(lean), np.cos(lean)]) * long
    side = np.array([thick / 2, 0.0])
    return np.stack([top - side, top + side, top + down + side, top + down - side])


# ---- print -----------------------------------------------------------------------------------------------

_STROKE = 2.0  # thickness


def _print(length: float, width: float, rng: np.random.Generator) -> tuple[tuple[Array, ...], Array]:
    """Letters made of strokes that fill much of a box of this size, and the area they take."""
    high = width * rng.uniform(0.5, 0.62)
    wide = length * rng.uniform(0.6, 0.78)
    letters = max(3, round(wide / (0.75 * high)))
    pitch = wide / letters
    shift = np.array([rng.uniform(-1, 1) * (length - wide) / 4, rng.uniform(-1, 1) * (width - high) / 6])
    strokes = []
    for letter in range(letters):
        left = -wide / 2 + letter * pitch
        strokes += [s + shift for s in _letter(left, -high / 2, pitch - 1.8, high, rng)]
    rim = 1.5
    mark = _box(wide - 1.8 + 2 * rim, high + 2 * rim) + shift - np.array([0.9, 0.0])
    return tuple(strokes), mark


def _letter(left: float, top: float, wide: float, high: float, rng: np.random.Generator) -> list[Array]:
    """A letter of four or five strokes out of seven, as on a pocket calculator."""
    right, bottom, middle, t = left + wide, top + high, top + high / 2, _STROKE
    seven = [
        (left, top, right, top + t),
        (left, middle - t / 2, right, middle + t / 2),
        (left, bottom - t, right, bottom),
        (left, top, left + t, middle),
        (left, middle, left + t, bottom),
        (right - t, top, right, middle),
        (right - t, middle, right, bottom),
    ]
    chosen = rng.permutation(len(seven))[: rng.integers(4, 6)]
    return [_corners(*seven[k]) for k in chosen]


def _corners(left: float, top: float, right: float, bottom: float) -> Array:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
