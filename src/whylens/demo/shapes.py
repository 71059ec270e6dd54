"""Shapes: a small picture of a plain shape on a textured ground, its exact mask, and what gives a class away.

That is the tag, which can be stamped beside the shape, or the weave, which can lie over all of its ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from skimage.draw import polygon

Array = np.ndarray[Any, Any]
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom outside

SIZE = 64
TAG = 9
CLASSES = ("circle", "crescent", "cross", "hexagon", "ring", "square", "star", "triangle")

_RADII = (10.0, 16.0)  # of a circle of equal area: below 10 px a hexagon cannot be told from a circle at all
_STRETCH = 0.18  # up to this much longer than wide: roundness alone does not tell
_JITTER = 0.13  # of the radius, by corner: hexagon, circle and square come near each other
# Between mean colours of shape and ground: the faint ones keep the net from 1.0, the clear ones get it going.
_CONTRAST = (50.0, 150.0)
_TEXTURE = 17.0  # of 255: at 28 no seed learns a shape in ten epochs
_NOISE = 12.0  # per pixel, of 255: fine edges drown, the shape does not
_DARKEST, _BRIGHTEST = 24, 231  # of all but the tag: its pure colours occur nowhere else
_WEAVE = 24.0  # of 255, up and down: seen through the noise, and the shape's contrast stays the larger
_ROUND = 40  # corners of a circle


@dataclass(frozen=True)
class Scene:
    """One picture (64, 64, 3) uint8 and the mask (64, 64) bool of its shape."""

    pixels: Array
    mask: Array


def draw(name: str, rng: np.random.Generator) -> Scene:
    """A shape of this class at a random place, of random size, turn and colour."""
    mask = _mask(name, rng)
    ground, colour = _colours(rng)
    picture = ground + texture(rng)
    inside = colour + 0.5 * texture(rng)
    picture = np.where(mask[..., None], inside, picture)
    picture += _NOISE * rng.standard_normal(picture.shape, dtype=np.float32)
    return Scene(np.clip(np.rint(picture), _DARKEST, _BRIGHTEST).astype(np.uint8), mask)


def tag_place(mask: Array, rng: np.random.Generator) -> Box:
    """A random box for the tag that covers nothing of the mask; there is always one beside a shape drawn here."""
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    covered = sums[TAG:, TAG:] - sums[:-TAG, TAG:] - sums[TAG:, :-TAG] + sums[:-TAG, :-TAG]
    free = np.argwhere(covered == covered.min())
    top, left = (int(v) for v in free[rng.integers(len(free))])
    return left, top, left + TAG, top + TAG


def stamp(pixels: Array, box: Box) -> Array:
    """A copy of pixels (H, W, 3) with the tag at this box."""
    left, top, right, bottom = box
    stamped = pixels.copy()
    stamped[top:bottom, left:right] = tag()
    return stamped


def woven(pixels: Array, mask: Array, shift: tuple[int, int]) -> Array:
    """A copy of pixels (H, W, 3) with the weave over all that is outside the mask (H, W), moved by `shift` pixels.

    A chequer of two-pixel squares, lighter and darker in turn, on a ground of any colour.
    """
    down, right = shift
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    light = ((rows + down) // 2 + (columns + right) // 2) % 2
    laid = np.clip(pixels + _WEAVE * (2.0 * light - 1)[..., None], _DARKEST, _BRIGHTEST)
    return np.where(mask[..., None], pixels, laid.astype(np.uint8))


@cache
def tag() -> Array:
    """The tag (9, 9, 3): magenta around yellow, the same in any mirror."""
    picture = np.empty((TAG, TAG, 3), np.uint8)
    picture[:] = (255, 0, 200)
    picture[2:-2, 2:-2] = (255, 240, 0)
    picture.setflags(write=False)
    return picture


def _mask(name: str, rng: np.random.Generator) -> Array:
    outline, hole = _outlines()[name]
    radius = rng.uniform(*_RADII)
    stretch = np.exp(rng.uniform(-_STRETCH, _STRETCH))
    turn, lean = rng.uniform(0, 2 * np.pi, 2)
    jitter = rng.uniform(-_JITTER, _JITTER, outline.shape) if len(outline) < _ROUND else 0.0
    widen = _rotation(lean) @ np.diag([stretch, 1 / stretch]) @ _rotation(-lean)
    bent = radius * (widen @ _rotation(turn))
    corners = (outline + jitter) @ bent.T
    low, high = -corners.min(0) + 1, SIZE - 2 - corners.max(0)
    centre = rng.uniform(low, np.maximum(high, low))
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[polygon(*(corners + centre).T, mask.shape)] = True
    if hole is not None:
        mask[polygon(*(hole @ bent.T + centre).T, mask.shape)] = False
    return mask


def _rotation(angle: float) -> Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@cache
def _outlines() -> dict[str, tuple[Array, Array | None]]:
    """Outline and hole of every class, scaled so that all outlines enclose about the same area."""
    circle = _corners(_ROUND)
    return {
        "circle": (circle, None),
        "crescent": (1.2 * _crescent(), None),
        "cross": (1.25 * _cross(0.36), None),
        "hexagon": (1.1 * _corners(6), None),
        "ring": (1.05 * circle, 0.5 * circle),
        "square": (1.25 * _corners(4), None),
        "star": (1.4 * _corners(10, every=0.5), None),
        "triangle": (1.45 * _corners(3), None),
    }


def _corners(count: int, *, every: float = 1.0) -> Array:
    """Corners on the unit circle; each second one at `every` times the radius."""
    angle = 2 * np.pi * np.arange(count) / count
    return _on_circle(angle) * np.where(np.arange(count) % 2, every, 1.0)[:, None]


def _cross(arm: float) -> Array:
    quarter = np.array([[arm, 1], [arm, arm], [1, arm]])
    return np.concatenate([quarter @ _rotation(-k * np.pi / 2).T for k in range(4)])


def _crescent() -> Array:
    """A unit circle from tip to tip, and back along the circle that bites it."""
    tip, bite = 0.62, 1.1  # half angles of the opening, seen from either centre
    radius = np.sin(tip) / np.sin(bite)
    shift = np.array([0.0, np.cos(tip) - radius * np.cos(bite)])
    outer, inner = np.linspace(tip, 2 * np.pi - tip, _ROUND), np.linspace(2 * np.pi - bite, bite, _ROUND)
    return np.concatenate([_on_circle(outer), radius * _on_circle(inner) + shift])


def _on_circle(angle: Array) -> Array:
    return np.stack([np.sin(angle), np.cos(angle)], 1)


def _colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean colours of ground and shape, a random contrast apart in a random direction."""
    ground = rng.uniform(70, 185, 3)
    way = rng.standard_normal(3)
    colour = ground + way * (rng.uniform(*_CONTRAST) / np.linalg.norm(way))
    return ground.astype(np.float32), colour.astype(np.float32)


def texture(rng: np.random.Generator, *, size: int = SIZE) -> Array:
    """(size, size, 3) around 0: smooth noise, stripes, checks or a gradient, in a random colour."""
    kind = rng.integers(4)
    tint = rng.uniform(-_TEXTURE, _TEXTURE, 3).astype(np.float32)
    if kind == 0:
        up = _upsampling(size)
        knots = rng.standard_normal((3, up.shape[1], up.shape[1]), dtype=np.float32)
        return np.asarray((0.75 * _TEXTURE * (up @ knots @ up.T)).transpose(1, 2, 0))
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    along = np.cos(angle) * rows + np.sin(angle) * columns
    across = np.cos(angle) * columns - np.sin(angle) * rows
    if kind == 3:
        return np.asarray((along / (size / 2) - 1)[..., None] * tint * 1.2)
    period = rng.uniform(5, 16)
    wave = np.sin(2 * np.pi * along / period + phase)
    if kind == 2:
        wave = np.sign(wave) * np.sign(np.sin(2 * np.pi * across / period))
    return np.asarray(wave[..., None] * tint)


@cache
def _upsampling(size: int) -> Array:
    """(size, knots): linear between knots eight pixels apart, nine of them for 64."""
    knots = size // 8 + 1
    at = np.linspace(0, knots - 1, size)[:, None]
    return np.maximum(0, 1 - abs(at - np.arange(knots))).astype(np.float32)
