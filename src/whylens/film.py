"""Film: a strip of maps by image and epoch, and what became of accuracy, IoU and focus over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .colour import Look
from .errors import InputError, no_such
from .picture import as_image, draw, overlay
from .sheet import GREY, RED, Cell, Text, lay_out
from .snapshot import FIXED, IGNORED, OBJECT, Snapshot
from .words import share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .record import Record

IMAGES, EPOCHS = 6, 8
"""Lines and columns of a strip where the caller leaves them open."""

_SIDE = 256  # pixels of a picture at least, so that outlines are thin
_PREDICTED = np.array([1.0, 0.55, 0.0])
_COLOURS = {"accuracy": "#111111", "focus": "#d9822b", "iou": "#1f5fbf"}


# ---- a strip ---------------------------------------------------------------------------------------------


def film(record: Record, *, images: Sequence[int | str] | None, epochs: Sequence[int] | None) -> tuple[Figure, Axes]:
    """Frames first, then a column per epoch; see `Record.film`."""
    chosen, shown = _chosen(record, images), _evenly(record, epochs)
    frames, masks = record.images
    explained = [record.explanation(epoch) for epoch in shown]
    looks = [Look.of(e, chosen) for e in explained]
    table = {row["epoch"]: row for row in record.table()}
    heads = [[Text(record.said["label"], size=9, bold=True)]]
    heads += [[Text(f"epoch {epoch}", size=9, bold=True), *_accuracy(record, table[epoch])] for epoch in shown]
    lines: list[list[Cell | None]] = []
    for k in chosen:
        outline = _edge(masks[k] == OBJECT, _size(frames))
        first = Cell(_outlined(draw(frames[k], _size(frames)), outline), texts=_name(record, k))
        snapshots = [record.at(epoch) for epoch in shown]
        if record.segmentation:
            lines.append([first, *(_prediction(held, k, frames, outline) for held in snapshots)])
            first = Cell(np.asarray(as_image(_mask(masks[k], _size(frames)))), texts=[Text("true mask", size=7)])
        pictures = [np.asarray(overlay(look, k, frames[k], size=_size(frames))) / 255 for look in looks]
        cells = [_map(record, held, k, p, outline) for held, p in zip(snapshots, pictures, strict=True)]
        lines.append([first, *cells])
    made, axes = lay_out(heads, lines, [Text(_foot(record, len(chosen), len(shown)), size=7.5, colour=GREY, most=3)])
    return made, next(a for a in axes[0][1:] if a is not None)


def _chosen(record: Record, images: Sequence[int | str] | None) -> list[int]:
    ids = record.ids
    if images is None:
        return list(range(min(IMAGES, len(ids))))
    found = []
    for one in images:
        if isinstance(one, str):
            if one not in ids:
                raise no_such("image", one, list(ids), f"The record holds {len(ids)} images.")
            found.append(ids.index(one))
        elif -len(ids) <= one < len(ids):
            found.append(one % len(ids))
        else:
            raise InputError(f"film: images must be names, or positions below {len(ids)}. Got {one}.")
    if not found:
        raise InputError("film: images must name at least one image. Got none.")
    return found


def _evenly(record: Record, epochs: Sequence[int] | None) -> list[int]:
    """The epochs asked for, or at most `EPOCHS` of them, the first and the last among them."""
    if not record.epochs:
        raise InputError(f"film: '{record.folder}' holds no epoch yet. Call step(epoch) in the training loop.")
    if epochs is not None:
        return [record.at(epoch).epoch for epoch in epochs]
    count = min(EPOCHS, len(record))
    places = np.linspace(0, len(record) - 1, count).round().astype(int).tolist()
    return [record.epochs[place] for place in places]


def _map(record: Record, held: Snapshot, k: int, colours: NDArray[Any], outline: NDArray[np.bool_]) -> Cell:
    texts = []
    if int(held.predictions[k]) >= 0:
        wrong = bool(held.correct[k] == 0)
        name = record.class_name(int(held.predictions[k]))
        texts.append(
            Text(f"{name} {share(float(held.probabilities[k]))}", bold=True, colour=RED if wrong else "#111111")
        )
    if not bool(held.focus[k].isnan()):
        texts.append(Text(f"IoU {float(held.iou[k, FIXED]):.2f}, focus {float(held.focus[k]):.2f}", size=7))
    flags = [name for name, check in held.checks.items() if check.dtype == torch.bool and bool(check[k])]
    texts += [Text(f"\N{WARNING SIGN} {name}", colour=RED, bold=True) for name in flags]
    return Cell(_outlined(colours, outline), texts=texts)


def _prediction(held: Snapshot, k: int, frames: Tensor, outline: NDArray[np.bool_]) -> Cell:
    if held.predicted is None or held.overlap is None:
        return Cell()
    colours = draw(frames[k], _size(frames))
    region = _enlarged(held.predicted[k] == held.targets[k], _size(frames))
    colours = np.where(region[..., None], 0.45 * colours + 0.55 * _PREDICTED, colours)
    said = [] if bool(held.overlap[k].isnan()) else [Text(f"prediction, IoU {float(held.overlap[k]):.2f}", size=7)]
    return Cell(_outlined(colours, outline), texts=said)


def _name(record: Record, k: int) -> list[Text]:
    label = record.said["labels"][k]
    said = [Text(f"label {record.class_name(label)}", size=7, colour=GREY)] if label >= 0 else []
    return [Text(record.ids[k]), *said]


def _accuracy(record: Record, row: dict[str, Any]) -> list[Text]:
    value = row["accuracy"]
    return [Text(f"{record.words['accuracy']} {value:.2f}", size=7, colour=GREY)] if value == value else []


def _foot(record: Record, images: int, epochs: int) -> str:
    said = "Each map is drawn by its own largest value."
    said += " White and black: the object." if bool(record.has_mask.any()) else ""
    said += " Orange: pixels predicted as the class." if record.segmentation else ""
    left = images < len(record.ids) or epochs < len(record)
    return said + (f" {images} of {len(record.ids)} images, {epochs} of {len(record)} epochs." if left else "")


# ---- outlines --------------------------------------------------------------------------------------------


def _size(frames: Tensor) -> tuple[int, int]:
    """A whole multiple of the frame's size, at least `_SIDE` on its longest side."""
    times = ceil(_SIDE / max(frames.shape[-2:]))
    return frames.shape[-2] * times, frames.shape[-1] * times


def _enlarged(region: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    times = size[0] // region.shape[0]
    made: NDArray[np.bool_] = region.numpy().repeat(times, 0).repeat(times, 1)
    return made


def _mask(mask: Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """The object white, the rest black, what is ignored grey."""
    shown = np.where(_enlarged(mask == OBJECT, size), 1.0, np.where(_enlarged(mask == IGNORED, size), 0.5, 0.0))
    return np.repeat(shown[..., None], 3, axis=2)


def _edge(region: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The border of a region, two pixels wide inside it and two outside: ``(2, *size)``."""
    from scipy.ndimage import binary_dilation, binary_erosion

    whole = _enlarged(region, size)
    inner = whole & ~binary_erosion(whole, iterations=2)
    outer = binary_dilation(whole, iterations=2) & ~whole
    return np.stack([inner, outer])


def _outlined(colours: NDArray[Any], outline: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colours in [0, 1] with the border in white inside and black outside."""
    made = np.where(outline[0][..., None], 1.0, colours)
    return np.asarray(as_image(np.where(outline[1][..., None], 0.0, made)))


# ---- curves ----------------------------------------------------------------------------------------------


def curves(record: Record) -> tuple[Figure, Axes]:
    """Accuracy, IoU and focus with their 95 % intervals, a dot where each stopped moving; the change of the maps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not record.epochs:
        raise InputError(f"figure: '{record.folder}' holds no epoch yet. Call step(epoch) in the training loop.")
    table, settled = record.table(), record.settled()
    made = Figure(figsize=(6.4, 3.8), dpi=110, facecolor="white", layout="constrained")
    axes = made.add_subplot()
    for name, word in record.words.items():
        values, low, high = (np.array([row[f"{name}{end}"] for row in table]) for end in ("", "_low", "_high"))
        if np.isnan(values).all():
            continue
        stopped = settled[name]
        told = "still moving" if stopped is None else f"stopped at epoch {stopped}"
        colour = _COLOURS[name]
        axes.plot(record.epochs, values, color=colour, marker=".", markersize=4, label=f"{word}: {told}")
        axes.fill_between(record.epochs, low, high, color=colour, alpha=0.12, linewidth=0)
        if stopped is not None:
            axes.plot([stopped], [values[record.epochs.index(stopped)]], "o", color=colour, markersize=8)
    if record.area == record.area:
        axes.axhline(record.area, color=_COLOURS["focus"], linewidth=0.8, linestyle=":", label="focus of an even map")
    axes.set_xlabel("epoch")
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    change = np.array([row["change"] for row in table])
    axes.plot(record.epochs, change, color="#999999", linewidth=1, label="change of the maps")
    made.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axes.set_title(f"{record.said['model']}, {record.said['label']}, {len(record.ids)} images", fontsize=9)
    return made, axes
