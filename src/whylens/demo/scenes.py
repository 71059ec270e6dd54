"""Scenes: workpieces on a textured ground, with the exact mask of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.draw import polygon

from . import workpieces
from .shapes import Array, texture
from .workpieces import BODY, TRAINED, Workpiece

SIZE = 128
_NOISE = 8.0  # per pixel, of 255
_APART = 4  # pixels between things that do not belong together
_TRIES = 30


@dataclass(frozen=True)
class Thing:
    """One thing in a scene: its kind, its mask (128, 128) bool, and where its print is or would be."""

    kind: str
    mask: Array
    mark: Array | None = None


@dataclass(frozen=True)
class Scene:
    """One picture (128, 128, 3) uint8 and the things in it."""

    pixels: Array
    things: tuple[Thing, ...]


def trained(rng: np.random.Generator) -> Scene:
    """One to three things of the kinds a net is trained on."""
    names, shares = list(TRAINED), np.array([share for _, share in TRAINED.values()])
    wanted = int(rng.integers(1, 4))
    pieces: list[Sequence[Workpiece]] = []
    while sum(map(len, pieces)) < wanted:
        pieces.append(TRAINED[str(rng.choice(names, p=shares / shares.sum()))][0](rng))
    return _composed(pieces, rng)


def drilled(rng: np.random.Generator, *, printed: bool) -> Scene:
    """One drill, printed face up or not; the same draw gives the same scene but for the print."""
    return _composed([workpieces.drill(rng, printed=printed)], rng)


def _composed(pieces: Sequence[Sequence[Workpiece]], rng: np.random.Generator) -> Scene:
    ground = rng.uniform(60, 200, 3)
    picture = (ground + texture(rng, size=SIZE)).astype(np.float32)
    taken = np.zeros((SIZE, SIZE), np.bool_)
    things: list[Thing] = []
    for group in pieces:
        place = _place(group, taken, rng)
        if place is None:
            continue  # no room left
        turn, centre = place
        for piece in group:
            things.append(_painted(picture, piece, turn, centre, ground, rng))
            taken |= things[-1].mask
    picture += _NOISE * rng.standard_normal(picture.shape, dtype=np.float32)
    return Scene(np.clip(np.rint(picture), 0, 255).astype(np.uint8), tuple(things))


def _place(group: Sequence[Workpiece], taken: Array, rng: np.random.Generator) -> tuple[Array, Array] | None:
    """A turn and a centre at which the group is inside the picture and clear of what is there."""
    near = binary_dilation(taken, iterations=_APART) if taken.any() else taken
    outlines = [outline for piece in group for outline, _ in piece.parts]
    for _ in range(_TRIES):
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.concatenate(outlines) @ turn.T
        low, high = 3 - corners.min(0), SIZE - 4 - corners.max(0)
        centre = rng.uniform(low, high)
        if not any((_inside(o, turn, centre) & near).any() for o in outlines):
            return turn, centre
    return None


def _inside(outline: Array, turn: Array, centre: Array) -> Array:
    """Pixels of a polygon given as x, y."""
    corners = outline @ turn.T + centre
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[polygon(corners[:, 1], corners[:, 0], mask.shape)] = True
    return mask


def _painted(
    picture: Array, piece: Workpiece, turn: Array, centre: Array, ground: Array, rng: np.random.Generator
) -> Thing:
    """Paint a thing into the picture."""
    colour, dark = _colour(ground, rng), rng.uniform(15, 50) + rng.uniform(-8, 8, 3)
    shade = 0.4 * texture(rng, size=SIZE)
    whole = np.zeros((SIZE, SIZE), np.bool_)
    for outline, paint in piece.parts:
        inside = _inside(outline, turn, centre)
        picture[inside] = (colour if paint == BODY else dark) + shade[inside]
        whole |= inside
    ink = _ink(colour, rng)
    for stroke in piece.strokes:
        picture[_inside(stroke, turn, centre) & whole] = ink
    mark = None if piece.mark is None else _inside(piece.mark, turn, centre) & whole
    return Thing(piece.kind, whole, mark)


def _colour(ground: Array, rng: np.random.Generator) -> Array:
    """A body's colour: neither near the ground's nor dark."""
    while True:
        colour = rng.uniform(60, 235, 3)
        if np.linalg.norm(colour - ground) > 70 and colour.mean() > 95:
            return colour


def _ink(colour: Array, rng: np.random.Generator) -> Array:
    """Bright on a dull body, dark on a bright one."""
    return rng.uniform(225, 255, 3) if colour.mean() < 150 else rng.uniform(5, 50, 3)
