"""What one request collects over all batches, and how it becomes an Explanation."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from . import __version__
from .contract import Maps, Method
from .detections import Instance
from .embedding import Embedded
from .errors import InputError
from .explanation import Explanation
from .images import Images
from .model import Model
from .placement import Placement
from .probe import Score
from .target import Target


@dataclass
class Row:
    """One batch of one method, or the part of it that belongs to one rank of the target."""

    maps: Tensor
    positions: list[int]
    rank: int
    index: Tensor
    scores: Tensor
    probabilities: Tensor
    predictions: Tensor
    placements: list[Placement | None]
    result: Maps
    frame: tuple[int, ...]
    sure: Tensor  # probability of the predicted class
    embedded: Embedded | None = None
    instance: Instance | None = None  # of all its images, which is then one

    def target_name(self, index: int, model: Model) -> str:
        """What is explained, in words; a number tells objects of one image apart."""
        name = model.class_name(index)
        return name if self.instance is None else f"{name} #{self.instance.number}"


@dataclass
class Job:
    """One request, resolved, and what it has found so far; `cost` is per image, `run` the rows of all images."""

    method: Method
    target: Target
    params: dict[str, Any]
    seed: int
    layer: str | None = None
    features: str | None = None  # the layer whose output the maps weigh into embeddings, where they are wanted
    inside: Tensor | None = None  # (h, w): the part of the frame whose map is embedded, where it is not all of it
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    cost: tuple[int, int] = (0, 0)
    run: tuple[int, int] = (0, 0)

    def within(self, maps: Tensor) -> Tensor:
        """Maps ``(N, C, h, w)`` as they are embedded."""
        if self.inside is None or maps.ndim != 4:
            return maps
        return maps * F.adaptive_avg_pool2d(self.inside[None, None].to(maps), (maps.shape[2], maps.shape[3]))

    def finish(
        self, model: Model, images: Images, failures: Mapping[str, str], kind: Score, *, first: int = 0
    ) -> Explanation:
        """All rows as one Explanation, image by image, ranks of a target next to each other.

        `first` is the position that the first of `images` has among all.
        """
        shapes = {tuple(r.maps.shape[1:]) for r in self.rows}
        if len(shapes) > 1:
            raise InputError(
                f"{self.method.key}: the maps have different sizes {sorted(shapes)}, because the photos have and the "
                "model takes them as they are. Give the Model a preprocess, or explain one size at a time."
            )
        flat = [(p, r.rank, r, k) for r in self.rows for k, p in enumerate(r.positions)]
        flat.sort(key=lambda entry: entry[:2])
        order = [(r, k) for _, _, r, k in flat]
        positions = [p for p, *_ in flat]
        index = torch.stack([r.index[k] for r, k in order])
        count = max(1, len(set(positions)))
        facts, one = self.method.facts, self.rows[0]
        name = getattr(self.target.function, "__name__", "")
        return Explanation(
            maps=torch.stack([r.maps[k] for r, k in order]),
            ids=tuple(images.ids[p - first] for p in positions),
            targets=index,
            target_names=tuple(
                name if i < 0 else r.target_name(int(i), model) for i, (r, _) in zip(index, order, strict=True)
            ),
            scores=torch.stack([r.scores[k] for r, k in order]),
            probabilities=torch.stack([r.probabilities[k] for r, k in order]),
            predictions=(predictions := torch.stack([r.predictions[k] for r, k in order])),
            prediction_names=tuple("" if i < 0 else model.class_name(int(i)) for i in predictions),
            method=self.method.plain_name,
            label=self.method.key,
            params=self.params,
            seed=int(self.params.get("seed", self.seed)),
            score_kind=kind if self.target.function is None else "function",
            signed=facts.signed,
            unit=facts.unit,
            layer=self._layers([r for r, _ in order]),
            baseline=one.result.extra.get("baseline"),
            model=model.name,
            frame=one.frame,
            placements=tuple(r.placements[k] for r, k in order),
            uris=tuple(images.uris[p - first] for p in positions),
            cost={
                "forwards": self.cost[0],
                "backwards": self.cost[1],
                "run_forwards": round(self.run[0] / count, 3),
                "run_backwards": round(self.run[1] / count, 3),
                "seconds": round(self.seconds, 4),
            },
            checks={c: torch.stack([r.result.checks[c][k] for r, k in order]) for c in one.result.checks},
            failures=dict(failures),
            versions={"whylens": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
            extra={k: v for k, v in one.result.extra.items() if k != "baseline"},
            history=_gather([(r.result.history, k) for r, k in order], axis=1),
            parts=_gather([(r.result.parts, k) for r, k in order], axis=0),
            instances=tuple(r.instance for r, _ in order if r.instance is not None),
            images=images,
        )

    def _layers(self, rows: list[Row]) -> str | None:
        """The layer, or the layers where each object has its own."""
        own = dict.fromkeys(row.instance.layer for row in rows if row.instance is not None)
        return ", ".join(own) if self.layer in own else self.layer


def _gather(values: list[tuple[Tensor | None, int]], axis: int) -> Tensor | None:
    picked = [v.select(axis, k) for v, k in values if v is not None]
    return torch.stack(picked, dim=axis).cpu() if len(picked) == len(values) else None


def finished(label: str, result: Maps, scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps as finite float32 on the CPU, with what is true of every method: `flat`, `not_finite`."""
    maps, count = result.maps.detach().float().cpu(), len(scores)
    if maps.ndim not in (2, 4) or len(maps) != count:
        raise InputError(f"{label}: a method must return maps (N, C, h, w) with N = {count}. Got {tuple(maps.shape)}.")
    finite = maps.isfinite().flatten(1).all(1) & scores.isfinite()
    maps = torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
    spread = maps.flatten(1).amax(1) - maps.flatten(1).amin(1)
    checks = {k: v.detach().cpu() for k, v in result.checks.items()}
    for name, value in checks.items():
        if value.shape != (count,):
            raise InputError(f"{label}: the check '{name}' must have shape ({count},). Got {tuple(value.shape)}.")
    return maps, {**checks, "flat": spread == 0, "not_finite": ~finite}
