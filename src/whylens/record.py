"""Record: what a recorder wrote during a training; read while it goes on, tabulated, drawn, and judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import InputError
from .explanation import Explanation
from .interval import Interval, mean, wilson
from .run.plan import unsealed
from .snapshot import CURVES, FIXED, IGNORED, OBJECT, THRESHOLDS, Snapshot, epoch_file, read_snapshot, read_tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMAT = 1
"""Of the folder; a newer one is refused, every past one keeps a fixture that must open."""

TOLERANCE = 0.02
"""How far from its last value a curve may lie where it has stopped moving."""

STILL = 3
"""Recorded epochs that must follow before it is said to have stopped."""


def open_record(folder: str | Path) -> Record:
    """Open what a `Recorder` wrote; one that is still writing shows the epochs it has finished.

    Raises InputError where there is none, or one of a newer format.
    """
    return Record(Path(folder))


class Record:
    """Snapshots of a fixed set of images at the epochs of a training, in a folder; nothing here writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = unsealed(folder / "record.json", f"'{folder}' holds no record: record.json is missing.")
        if self.said.get("kind") != "whylens.Record":
            raise InputError(f"'{folder / 'record.json'}' is not that of a record.")
        if int(self.said["format"]) > FORMAT:
            raise InputError(
                f"'{folder}' has format {self.said['format']}, newer than the {FORMAT} known here. Update whylens."
            )
        self._kept: dict[int, Snapshot] = {}
        self.refresh()

    def refresh(self) -> Record:
        """Look again at which epochs there are."""
        names = (path.name for path in (self.folder / "epochs").glob("*.safetensors"))
        self.epochs = tuple(sorted(int(n.partition(".")[0]) for n in names if re.fullmatch(r"\d+\.safetensors", n)))
        self._kept.clear()
        return self

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        span = f", {self.epochs[0]} to {self.epochs[-1]}" if self.epochs else ""
        return f"Record('{self.folder}', {len(self.ids)} images, {len(self)} epochs{span}, {self.said['label']})"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    # ---- what there is -----------------------------------------------------------------------------------

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(self.said["ids"])

    @property
    def segmentation(self) -> bool:
        """Whether the net gives a class to every pixel."""
        return bool(self.said["task"] == "segmentation")

    @property
    def words(self) -> dict[str, str]:
        """What the curves are called; a segmentation net has an overlap where others have an accuracy."""
        return CURVES | ({"accuracy": "overlap"} if self.segmentation else {})

    @cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Frames ``(N, C, H, W)`` as the net sees them, 8 bit, and masks ``(N, H, W)``: 1 object, 2 ignored."""
        tensors, _ = read_tensors(self.folder / "images.safetensors")
        return tensors["frames"], tensors["masks"]

    @property
    def has_mask(self) -> Tensor:
        """The images with a mask ``(N,)``."""
        return torch.tensor(self.said["has_mask"])

    def at(self, epoch: int) -> Snapshot:
        """What was recorded at an epoch."""
        if epoch not in self.epochs:
            known = ", ".join(map(str, self.epochs)) or "none"
            raise InputError(f"'{self.folder}' holds no epoch {epoch}. It holds: {known}.")
        if epoch not in self._kept:
            self._kept[epoch] = read_snapshot(epoch_file(self.folder, epoch), epoch)
        return self._kept[epoch]

    def explanation(self, epoch: int) -> Explanation:
        """The stored maps of an epoch over the frames."""
        held, said = self.at(epoch), self.said
        return Explanation(
            maps=held.maps,
            ids=self.ids,
            targets=held.targets,
            target_names=tuple(self.class_name(k) for k in held.targets.tolist()),
            scores=held.scores,
            probabilities=held.probabilities,
            predictions=held.predictions,
            prediction_names=tuple(self.class_name(k) for k in held.predictions.tolist()),
            method=said["method"],
            label=said["label"],
            params=said["params"],
            seed=said["seed"],
            score_kind=said["score"],
            signed=said["signed"],
            unit=said["unit"],
            layer=said["layer"],
            model=said["model"],
            frame=tuple(said["frame"]),
            checks=held.checks,
        )

    def class_name(self, index: int) -> str:
        """The name of an output, its number where there are no names, nothing where there is none."""
        names = self.said["classes"]
        return "" if index < 0 else names[index] if names and index < len(names) else str(index)

    # ---- over epochs -------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """One row per epoch: means over the images, with their 95 % intervals as ``NAME_low`` and ``NAME_high``.

        `accuracy` is the one given at that step, else the share of these images that are right (the mean overlap of
        prediction and mask for segmentation). `iou` is at half of the map's maximum, `iou_best` at the one share
        that is best for all images, `iou_best_at`. `focus` is the share of the map's mass on the object, `area` what
        an even map would get. `change` is 1 less the cosine of each map with the one before. NaN where there is none.
        """
        rows: list[dict[str, Any]] = []
        before: Tensor | None = None
        for epoch in self.epochs:
            held = self.at(epoch)
            swept = held.iou[~held.iou.isnan().any(1)].mean(0)
            best = int(swept.argmax()) if not bool(swept.isnan().any()) else FIXED
            figures = {
                "accuracy": self._accuracy(held),
                "iou": mean(held.iou[:, FIXED].numpy()),
                "focus": mean(held.focus.numpy()),
                "change": mean(_change(before, held.maps).numpy()),
            }
            row: dict[str, Any] = {"epoch": epoch, "given": held.accuracy is not None}
            for name, found in figures.items():
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            row |= {
                "iou_best": float(swept[best]),
                "iou_best_at": float(THRESHOLDS[best]),
                "area": self.area,
                "probability": float(held.probabilities.nanmean()),
                "seconds": held.seconds,
            }
            rows.append(row)
            before = held.maps
        return rows

    def rows(self, epoch: int) -> list[dict[str, Any]]:
        """One row per image at an epoch."""
        held = self.at(epoch)
        earlier = [e for e in self.epochs if e < epoch]
        change = _change(self.at(earlier[-1]).maps if earlier else None, held.maps)
        return [
            {
                "id": name,
                "target": self.class_name(int(held.targets[k])),
                "prediction": self.class_name(int(held.predictions[k])),
                "probability": float(held.probabilities[k]),
                "correct": None if bool(held.correct[k].isnan()) else bool(held.correct[k]),
                "score": float(held.scores[k]),
                "iou": float(held.iou[k, FIXED]),
                "iou_best": float(held.iou[k].max()),
                "focus": float(held.focus[k]),
                "overlap": None if held.overlap is None else float(held.overlap[k]),
                "change": float(change[k]),
                "flags": [n for n, v in held.checks.items() if v.dtype == torch.bool and bool(v[k])],
            }
            for k, name in enumerate(self.ids)
        ]

    @cached_property
    def area(self) -> float:
        """Mean share of the frame that the objects cover; NaN without masks."""
        masks = self.images[1][self.has_mask]
        counted = (masks != IGNORED).sum((1, 2))
        return float(((masks == OBJECT).sum((1, 2)) / counted).mean()) if len(masks) else float("nan")

    def settled(self, *, tolerance: float = TOLERANCE, still: int = STILL) -> dict[str, int | None]:
        """The epoch from which accuracy, focus and IoU no longer move, None for one that still does or has no value.

        The rule: from that recorded epoch to the last, all values lie within `tolerance` of the last one, and at
        least `still` recorded epochs follow it.
        """
        table = self.table()
        return {name: settled(self.epochs, [r[name] for r in table], tolerance, still) for name in CURVES}

    def lines(self) -> Iterator[str]:
        """When each curve stopped moving, in sentences."""
        if not self.epochs:
            yield f"no epoch recorded yet of {len(self.ids)} images"
            return
        yield f"{len(self)} epochs of {len(self.ids)} images, {self.epochs[0]} to {self.epochs[-1]}"
        last, found = self.table()[-1], self.settled()
        for name, word in self.words.items():
            value, since = last[name], found[name]
            if value != value:
                yield f"{word}: no value, because there are no {'labels' if name == 'accuracy' else 'masks'}"
            elif since is None:
                yield f"{word}: still moving at epoch {self.epochs[-1]}, where it is {value:.3f}"
            else:
                yield f"{word}: within {TOLERANCE} of its last value, {value:.3f}, since epoch {since}"
        if found["accuracy"] is not None and found["focus"] is not None:
            apart = found["focus"] - found["accuracy"]
            many = "epoch" if abs(apart) == 1 else "epochs"
            when = f"{abs(apart)} {many} {'after' if apart > 0 else 'before'}" if apart else "at the same epoch as"
            yield f"focus stopped moving {when} {self.words['accuracy']}"

    def _accuracy(self, held: Snapshot) -> Interval:
        if held.accuracy is not None:
            return Interval(held.accuracy, float("nan"), float("nan"), len(self.ids))
        if held.overlap is not None:
            return mean(held.overlap.numpy())
        known = held.correct[~held.correct.isnan()]
        return wilson(int(known.sum()), len(known))

    # ---- drawn -------------------------------------------------------------------------------------------

    def figure(self) -> tuple[Figure, Axes]:
        """Accuracy, IoU and focus over the epochs, with intervals, and where each stopped moving."""
        from .film import curves

        return curves(self)

    def film(
        self, *, images: Sequence[int | str] | None = None, epochs: Sequence[int] | None = None
    ) -> tuple[Figure, Axes]:
        """A strip: one line per image, one column per epoch, maps over the frames; the first map's axes.

        `images` are positions or names, by default the first 6; `epochs` by default at most 8, evenly spread. The
        object's mask is outlined. For segmentation the prediction stands above each map.
        """
        from .film import film

        return film(self, images=images, epochs=epochs)


# ---- arithmetic ------------------------------------------------------------------------------------------


def settled(epochs: Sequence[int], values: Sequence[float], tolerance: float, still: int) -> int | None:
    """The first epoch from which all values lie within `tolerance` of the last one, if `still` epochs follow it."""
    there = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value == value]
    if not there:
        return None
    last = there[-1][1]
    start = len(there)
    while start and abs(there[start - 1][1] - last) <= tolerance + 1e-9:
        start -= 1
    return there[start][0] if len(there) - 1 - start >= still else None


def _change(before: Tensor | None, now: Tensor) -> Tensor:
    """1 less the cosine ``(N,)`` of maps with those before them; NaN where there are none, or one is zero."""
    if before is None:
        return torch.full((len(now),), torch.nan)
    one, two = before.double().flatten(1), now.double().flatten(1)
    length = one.norm(dim=1) * two.norm(dim=1)
    cosine = (one * two).sum(1) / length.masked_fill(length == 0, 1)
    change: Tensor = (1 - cosine.clamp(-1, 1)).masked_fill(length == 0, torch.nan)
    return change
