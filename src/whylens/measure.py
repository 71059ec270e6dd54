"""The verb measure: Explanation + metric → Scores, one value per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ._progress import track
from .batches import Frames, batched, is_out_of_memory
from .contract import Metric, Values
from .engine import Precision
from .errors import ImageError, InputError
from .explain import BATCH
from .explanation import FLAGS, Explanation
from .images import Images, Photo, Unreadable
from .located import is_located, joined, trial_at
from .masks import Label, Mask
from .model import Model
from .scores import Scores
from .sources import load_images
from .trial import score_batch as score_batch
from .trial import trial_of as trial_of


def measure(
    model: Model | nn.Module | Callable[[Tensor], Any],
    images: Any,
    explanation: Explanation,
    *,
    metric: Metric | str | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """How good each map of an explanation is by one metric.

    `model` and `images` (whatever `load_images` takes) are those that were explained; rows are matched by id, images
    that were not explained are left out. `metric` is a name, a `Metric`, or a function of your own with `MetricFacts`;
    `params` are its parameters. `precision` "auto" lets passes without gradients run in bfloat16 within a tolerance,
    for images with 48 masks or more. `seed` fixes every draw.

    A row that the metric does not apply to has the value NaN and a reason: no mask, one that cannot be read, an image
    that cannot be read, a map without mass. Raises InputError for what cannot be done as asked.
    """
    request = Metric.read(metric)
    request = replace(request, params={**(request.params or {}), **(params or {})} or None)
    model = _model(model)
    images = images if isinstance(images, Images) else load_images(images)
    size = _whole(batch_size, "batch_size", 1, BATCH)
    seed = _whole(seed, "seed", 0)
    request.checked_params(seed)
    if precision not in get_args(Precision):
        raise InputError(f"precision must be 'float32' or 'auto'. Got {precision!r}.")
    images = _explained(explanation, images)
    if explanation.instances and request.facts.needs_masks:
        raise InputError(
            f"{request.plain_name} compares with the mask of an image, and a row here is one object of it. "
            "Use a metric that needs no masks."
        )
    refuse_maskless(images, request)
    return _Measured(model, images, explanation, request, precision, seed).run(size, progress)


# ---- running ---------------------------------------------------------------------------------------------


@dataclass
class _Measured:
    """One metric over all rows of an explanation; `masks` and `labels` of each image wait here for its batch."""

    model: Model
    images: Images
    explanation: Explanation
    metric: Metric
    precision: Precision
    seed: int
    masks: dict[int, Mask] = field(default_factory=dict)
    labels: dict[int, Label] = field(default_factory=dict)
    parts: list[tuple[list[int], Values]] = field(default_factory=list)

    def run(self, size: int, progress: bool) -> Scores:
        """All batches, then one Scores in the explanation's order."""
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.explanation.ids):
            rows.setdefault(name, []).append(row)
        reasons: dict[str, str] = {}
        for batch in batched(self.model, self._photos(progress), size, reasons):
            pairs = [(row, k) for k, p in enumerate(batch.positions) for row in rows[self.images.ids[p]]]
            for start in range(0, len(pairs), size):
                self._score(batch, pairs[start : start + size])
            for position in batch.positions:
                self.masks.pop(position, None)
        return self._finish(reasons)

    def _photos(self, progress: bool) -> Iterator[Photo | Unreadable]:
        """Photos with what else is known of them; one that lacks what the metric needs gives its reason instead."""
        photos = track(self.images.stream(), total=len(self.images), label="measure", show=progress)
        for position, photo in enumerate(photos):
            reason = None
            if isinstance(photo, Photo):
                self.labels[position] = photo.label
                reason = self._find_mask(position) if self.metric.facts.needs_masks else None
            yield photo if reason is None else Unreadable(photo.id, reason)

    def _find_mask(self, position: int) -> str | None:
        """Keep the mask, or say why there is none."""
        try:
            mask = self.images.mask(position)
        except ImageError as error:
            return str(error)
        if mask is None:
            return "no mask"
        self.masks[position] = mask
        return None

    def _score(self, batch: Frames, pairs: list[tuple[int, int]]) -> None:
        """Score rows, each with its image's number in the batch; halved when memory runs out."""
        try:
            self.parts.append(([row for row, _ in pairs], self._values(batch, pairs)))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or len(pairs) == 1:
                raise
            half = len(pairs) // 2
            self._score(batch, pairs[:half])
            self._score(batch, pairs[half:])

    def _values(self, batch: Frames, pairs: list[tuple[int, int]]) -> Values:
        rows, at = [row for row, _ in pairs], [k for _, k in pairs]
        placements, held = tuple(batch.placements[k] for k in at), self.explanation.placements
        for row, placement in zip(rows, placements, strict=True):
            if held and held[row] != placement:
                raise InputError(
                    f"measure: {self.explanation.ids[row]} enters this model otherwise than when it was explained. "
                    "Give the model and the images that the explanation was made with."
                )
        explanation = replace(self.explanation._take(rows), placements=placements)
        masks = [self.masks.get(batch.positions[k]) for k in at]
        labels = [self.labels[batch.positions[k]] for k in at]
        if is_located(self.model, explanation):
            parts = [
                score_batch(
                    self.metric,
                    trial_at(self.model, self.images, explanation[k], batch.frames[[n]], masks[k], self.precision),
                    seed=self.seed,
                )
                for k, n in enumerate(at)
            ]
            return joined(parts)
        trial = trial_of(
            self.model,
            self.images,
            explanation,
            batch.frames[at],
            masks=masks,
            labels=labels,
            precision=self.precision,
        )
        return score_batch(self.metric, trial, seed=self.seed)

    def _finish(self, reasons: dict[str, str]) -> Scores:
        explanation, name = self.explanation, self.metric.key
        values = _spread(len(explanation), [(rows, part.values) for rows, part in self.parts], name)
        checks = {
            check: _spread(len(explanation), [(r, p.checks[check]) for r, p in self.parts if check in p.checks], name)
            for check in dict.fromkeys(check for _, part in self.parts for check in part.checks)
        }
        curves = [(rows, part.curve) for rows, part in self.parts if part.curve is not None]
        for row in values.isnan().nonzero().flatten().tolist():
            why = [n.replace("_", " ") for n, v in checks.items() if v.dtype == torch.bool and bool(v[row])]
            why += [FLAGS.get(flag, flag) for flag in explanation.flags(row)]
            reasons.setdefault(explanation.ids[row], "; ".join(why) or f"{name} gives it no value")
        return Scores(
            values=values,
            ids=explanation.ids,
            metric=self.metric.plain_name,
            label=name,
            params=MappingProxyType(self.metric.checked_params(self.seed)),
            direction=self.metric.facts.direction,
            curve=_spread(len(explanation), curves, name) if curves else None,
            checks=MappingProxyType(checks),
            reasons=MappingProxyType(reasons),
        )


def _spread(count: int, parts: list[tuple[list[int], Tensor]], name: str) -> Tensor:
    """Values of all batches by row ``(count, ...)``: NaN, or False, where no batch has one."""
    shapes = {tuple(part.shape[1:]) for _, part in parts}
    if len(shapes) > 1:
        raise InputError(f"{name}: the curves of all images must have one length. Got {sorted(shapes)}.")
    flags = bool(parts) and all(part.dtype == torch.bool for _, part in parts)
    shape = (count, *(next(iter(shapes)) if shapes else ()))
    whole = torch.zeros(shape, dtype=torch.bool) if flags else torch.full(shape, torch.nan)
    for rows, part in parts:
        whole[rows] = part if flags else part.float()
    return whole


# ---- arguments -------------------------------------------------------------------------------------------


def _model(model: Any) -> Model:
    if isinstance(model, str | Path):
        raise InputError(
            f"measure: model must be a Model, a torch module or a function. Open it: whylens.load_model('{model}')."
        )
    return model if isinstance(model, Model) else Model(model)


def _whole(value: Any, name: str, low: int, auto: int | None = None) -> int:
    if auto is not None and value == "auto":
        return auto
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        either = "" if auto is None else "'auto' or "
        raise InputError(f"{name} must be {either}an integer >= {low}. Got {value!r}.")
    return value


def _explained(explanation: Any, images: Images) -> Images:
    """The images of the explanation's rows, each once, in its order."""
    if not isinstance(explanation, Explanation):
        raise InputError(
            f"measure: explanation must be one Explanation. Got {type(explanation).__name__}. "
            "Measure several one by one: {label: measure(model, images, e, ...) for label, e in many.items()}."
        )
    known = set(images.ids)
    missing = next((name for name in explanation.ids if name not in known), None)
    if missing is not None:
        raise InputError(
            f"measure: the explained image '{missing}' is not among the {len(images)} images given. "
            "Give the images that the explanation was made with."
        )
    return images.subset(list(dict.fromkeys(explanation.ids)))


def refuse_maskless(images: Images, metric: Metric) -> None:
    """Refuse a metric that needs masks where no image has one."""
    if not metric.facts.needs_masks:
        return
    for i in range(len(images)):
        try:
            if images.mask(i) is not None:
                return
        except ImageError:
            return  # there is one; its row will say why it cannot be read
    raise InputError(
        f"{metric.plain_name} needs masks, and none of the {len(images)} images has one. "
        "Give them: load_images(..., masks=) takes a folder, a VOC root, a COCO file or one (H, W) mask per image."
    )
