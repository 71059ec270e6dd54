"""From a map's values to colours: how channels become one plane, what the ends of the scale are, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from .errors import InputError, no_such
from .words import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .explanation import Explanation

Scale = Literal["image", "shared"]

DIVERGING = frozenset(
    "BrBG PRGn PiYG PuOr RdBu RdGy RdYlBu RdYlGn Spectral berlin bwr coolwarm managua seismic vanimo".split()  # noqa: SIM905
)
"""Colour maps with a centre, which is put at 0."""

SHARE = 0.995
"""Of the values of a pixel-fine map that lie inside its scale, so that single pixels do not swallow the picture."""

_STEPS = 257  # odd: the centre has a colour of its own


def plane(maps: Tensor, unit: str) -> Tensor:
    """Maps ``(N, C, h, w)`` as one plane ``(N, h, w)``, for the eye only.

    Contributions are summed over the channels: they share out a score. Gradients ("per frame value") give, signed,
    the channel of largest magnitude: their sum is the gradient of a brightness that nobody asked about.
    """
    maps = torch.nan_to_num(maps.detach().float().cpu(), posinf=0.0, neginf=0.0)
    if maps.shape[1] == 1:
        return maps[:, 0]
    if "per frame value" not in unit:
        return maps.sum(1)
    return maps.gather(1, maps.abs().argmax(1, keepdim=True))[:, 0]


@dataclass(frozen=True, eq=False)
class Look:
    """How the maps of one explanation are drawn.

    `limits` are the ends of the scale by row. Signed maps run from -m to m whatever the colour map; one-signed maps
    from 0, or from their smallest value where that is above half the largest: they would be of one colour.
    """

    explanation: Explanation
    colours: str
    scale: Scale
    signed: bool
    fine: bool
    limits: Mapping[int, tuple[float, float]]

    @classmethod
    def of(
        cls, explanation: Explanation, rows: Sequence[int], *, colours: str = "auto", scale: Scale = "image"
    ) -> Look:
        """The look of these rows; with the scale "shared" they have one pair of limits."""
        _check(explanation, colours, scale)
        signed = explanation.signed or bool((explanation.maps < 0).any())
        fine = _is_fine(explanation)
        if colours == "auto":
            colours = "bwr" if signed else "jet"
        limits = {row: _limits(_values(explanation, row), signed, fine, _is_diverging(colours)) for row in rows}
        if scale == "shared" and limits:
            both = min(low for low, _ in limits.values()), max(high for _, high in limits.values())
            limits = dict.fromkeys(limits, both)
        return cls(explanation, colours, scale, signed, fine, limits)

    def values(self, row: int) -> Tensor:
        """The plane ``(h, w)`` of one row."""
        return _values(self.explanation, row)

    def paint(self, values: Tensor, row: int) -> NDArray[np.float32]:
        """Colours ``(..., 3)`` in [0, 1] of values in this row's scale; beyond its ends the colour of the end."""
        low, high = self.limits[row]
        centred = self.signed or _is_diverging(self.colours)
        low = -high if centred else low
        empty = 0.5 if centred else 0.0
        position = (values - low) / (high - low) if high > low else torch.full_like(values, empty)
        table = _table(self.colours)
        step = (position * (_STEPS - 1)).round().clamp(0, _STEPS - 1).long().numpy()
        colours: NDArray[np.float32] = table[step]
        return colours

    def strength(self, values: Tensor, row: int) -> Tensor:
        """Magnitude in [0, 1], as a share of the scale's end."""
        high = self.limits[row][1]
        return (values.abs() / high).clamp(max=1) if high > 0 else torch.zeros_like(values)

    def bar(self, row: int, steps: int = 128) -> NDArray[np.float32]:
        """The colours from one end of the scale to the other ``(steps, 3)``."""
        low, high = self.limits[row]
        return self.paint(torch.linspace(low, high, steps), row)

    def words(self, row: int) -> str:
        """The scale in words: "0 … 0.031 (score), per image"."""
        low, high = self.limits[row]
        unit = f" ({self.explanation.unit})" if self.explanation.unit else ""
        if high <= 0:
            return f"0 everywhere{unit}"
        ends = f"±{number(high)}" if self.signed else f"{number(low)} … {number(high)}"
        said = []
        if self.fine:
            said.append(f"{100 * SHARE:g} % of each image" + (" or more" if self.scale == "shared" else ""))
        elif self.scale == "image":
            said.append("per image")
        said += ["same for all rows"] if self.scale == "shared" else []
        return f"{ends}{unit}, {', '.join(said)}"


def _values(explanation: Explanation, row: int) -> Tensor:
    return plane(explanation.maps[row : row + 1], explanation.unit)[0]


@lru_cache(maxsize=16)
def _table(colours: str) -> NDArray[np.float32]:
    """The colours of a colour map from its low to its high end ``(257, 3)``."""
    from matplotlib import colormaps

    return colormaps[colours].resampled(_STEPS)(range(_STEPS))[:, :3].astype("float32")


def _is_diverging(colours: str) -> bool:
    return colours.removesuffix("_r") in DIVERGING


def _is_fine(explanation: Explanation) -> bool:
    """Whether a map has at least half the frame's resolution; where the frame is unknown, 64 cells a side."""
    frame = explanation.frame[-2:] if len(explanation.frame) >= 2 else (128, 128)
    return all(2 * cells >= side for cells, side in zip(explanation.maps.shape[-2:], frame, strict=True))


def _limits(values: Tensor, signed: bool, fine: bool, diverging: bool) -> tuple[float, float]:
    magnitude = values.abs().flatten()
    high = float(magnitude.max())
    if fine:
        high = float(magnitude.kthvalue(ceil(SHARE * len(magnitude))).values) or high
    if signed:
        return -high, high
    low = float(values.min())
    return (low, high) if not diverging and high / 2 < low < high else (0.0, high)


def _check(explanation: Explanation, colours: str, scale: str) -> None:
    if explanation.maps.ndim != 4:
        raise InputError(
            f"picture: only maps (N, C, h, w) can be drawn over photos. Got {tuple(explanation.maps.shape)}. "
            "For a table: explanation.figure()."
        )
    check_view(colours, scale)


def check_view(colours: str, scale: str) -> None:
    """Refuse a colour map or a scale that cannot be drawn, before there is anything to draw."""
    from matplotlib import colormaps

    if colours != "auto" and colours not in colormaps:
        listing = "Known are 'auto' and the colour maps of matplotlib."
        raise no_such("colours", str(colours), ["auto", *colormaps], listing)
    if scale not in get_args(Scale):
        raise InputError(f"scale must be 'image' or 'shared'. Got {scale!r}.")
