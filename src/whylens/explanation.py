"""Explanation: what every method of every model gives, frozen, raw, with what was checked on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ._files import write_atomic
from .detections import Instance
from .errors import InputError
from .placement import Placement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .images import Images

FORMAT = 1
"""Of the saved folder; a newer one is refused, every past one keeps a fixture that must open."""

FLAGS = {
    "flat": "the map is the same everywhere: the score does not depend on it, or all its parts cancel",
    "not_finite": "the score or the map held values that are no numbers; in the map they were set to 0",
    "incomplete": "the map does not add up to the score's difference from the baseline",
    "rule_not_applied": "the backward rule met less than half of the net's nonlinearities",
    "not_critical": "no set of regions was found whose removal undoes the decision; the one that leaves least is shown",
    "leaking": "less than half, or more than one and a half, of the target's share arrived at the layer",
    "baseline_keeps_target": "the baseline alone keeps more than half of the target's probability",
    "score_not_reached": "the search ended before the CO score reached what it was to reach",
    "not_predicted": "no pixel is predicted to be of the class: what is explained is its mean score over all pixels",
    "student_fails": "the student does not follow the black box on copies it has not met: its mask explains little",
}
"""Flags by name: what is wrong with a map, in words."""

_TENSORS = ("maps", "targets", "scores", "probabilities", "predictions", "history", "parts", "weights")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of one method for N rows; a row is one image and one target.

    `maps` ``(N, C, h, w)`` are raw and signed, HIGH speaks for the target, at the method's own resolution; C is 1
    or the frame's channels; rows of a table have maps ``(N, F)``. They cover the frame; `placements` lead from the
    frame to the photo. `checks` holds ``(N,)`` tensors: bool ones are flags, True where something is wrong. `cost`
    counts passes per image, as if the method ran alone (`forwards`, `backwards`) and as they were run beside the
    other methods of the call (`run_forwards`, `run_backwards`), and `seconds` in all. `failures` are the images that
    could not be explained, with reasons. Where a detector is explained a row is one object of an image: `instances`
    says which, and the names of targets tell objects of one image apart.
    """

    maps: Tensor
    ids: tuple[str, ...]
    targets: Tensor
    target_names: tuple[str, ...]
    scores: Tensor
    probabilities: Tensor
    predictions: Tensor
    prediction_names: tuple[str, ...]
    method: str
    label: str
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    score_kind: str = "logit"
    signed: bool = True
    unit: str = ""
    layer: str | None = None
    baseline: str | None = None
    model: str = ""
    frame: tuple[int, ...] = ()
    placements: tuple[Placement | None, ...] = ()
    uris: tuple[str | None, ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    checks: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    history: Tensor | None = None
    parts: Tensor | None = None
    weights: Tensor | None = None
    names: tuple[str, ...] | None = None
    instances: tuple[Instance, ...] = ()
    images: Images | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        wrong = sum(bool(self.flags(i)) for i in range(len(self)))
        tail = f", {wrong} flagged" if wrong else ""
        tail += f", {len(self.failures)} failed" if self.failures else ""
        return f"Explanation({self.label!r}, maps {tuple(self.maps.shape)}{tail})"

    def __getitem__(self, key: int | slice | str) -> Explanation:
        """The rows at a position, in a slice, or of an image's id."""
        if isinstance(key, str):
            rows = [i for i, known in enumerate(self.ids) if known == key]
            if not rows:
                raise InputError(f"Explanation: no image '{key}'. It holds {len(set(self.ids))} images.")
        else:
            rows = list(range(len(self)))[key] if isinstance(key, slice) else [range(len(self))[key]]
        return self._take(rows)

    def flags(self, row: int) -> tuple[str, ...]:
        """What is wrong with one row's map, by name; `FLAGS` says it in words."""
        return tuple(n for n, v in self.checks.items() if v.dtype == torch.bool and bool(v[row]))

    def at(self, size: tuple[int, int]) -> Tensor:
        """Maps at another size ``(N, C, *size)``, bilinear between cell centres; values are not rescaled."""
        if self.maps.ndim != 4:
            raise InputError(f"Explanation.at: only maps (N, C, h, w) have a size. Got {tuple(self.maps.shape)}.")
        return F.interpolate(self.maps, size=size, mode="bilinear", align_corners=False)

    def figure(self, images: Any = None, **view: Any) -> tuple[Figure, Axes]:
        """A figure of these maps over their photos; the options are those of `whylens.figure.figure`."""
        from .figure import figure

        return figure({self.label: self}, images, **view)

    def _repr_html_(self) -> str:
        from .figure import as_html

        return as_html(self)

    # ---- on disk -----------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a folder: ``tensors.safetensors``, then ``explanation.json``, each complete before it has its name."""
        from safetensors.torch import save

        path = Path(folder)
        tensors = {k: getattr(self, k) for k in _TENSORS if getattr(self, k) is not None}
        tensors |= {f"checks.{k}": v for k, v in self.checks.items()}
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / "tensors.safetensors", save({k: v.contiguous() for k, v in tensors.items()}))
            write_atomic(path / "explanation.json", json.dumps(self.as_json(), indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise InputError(f"Cannot write '{path}': {error.strerror or error}.") from None
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str], images: Images | None = None) -> Explanation:
        """Open a saved folder; `images` gives the photos back for figures."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        try:
            said = json.loads((path / "explanation.json").read_text("utf-8"))
            if not isinstance(said, dict) or not isinstance(said.get("format"), int):
                raise InputError(f"'{path}' holds no explanation: explanation.json has no format number.")
            if said["format"] > FORMAT:
                raise InputError(
                    f"'{path}' has format {said['format']}, newer than the {FORMAT} known here. Update whylens."
                )
            tensors = load_file(path / "tensors.safetensors")
        except FileNotFoundError as error:
            raise InputError(f"'{path}' holds no explanation: {Path(str(error.filename)).name} is missing.") from None
        except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"'{path}' is damaged: {error}.") from None
        return cls._from(said, tensors, images)

    @classmethod
    def _from(cls, said: dict[str, Any], tensors: dict[str, Tensor], images: Images | None) -> Explanation:
        values = {f.name: said[f.name] for f in fields(cls) if f.name in said}
        values |= {k: v for k, v in tensors.items() if not k.startswith("checks.")}
        values["checks"] = {k: tensors[f"checks.{k}"] for k in said["checks"]}
        for name in ("ids", "target_names", "prediction_names", "uris", "frame", "names"):
            values[name] = None if values.get(name) is None else tuple(values[name])
        values["placements"] = tuple(None if p is None else Placement.read(p) for p in values["placements"])
        values["instances"] = tuple(map(Instance.read, said.get("instances", ())))
        return cls(**values, images=images)

    def as_json(self) -> dict[str, Any]:
        """Everything but the tensors as plain values, with the format number; per-row facts once more in words."""
        skip = {*_TENSORS, "checks", "images", "placements", "instances"}
        said = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in skip}
        said["checks"] = list(self.checks)
        said["placements"] = [None if p is None else _plain(vars(p)) for p in self.placements]
        said["instances"] = [_plain(vars(one)) | {"score": _number(one.score)} for one in self.instances]
        rows = [
            {
                "id": self.ids[i],
                "target": int(self.targets[i]),
                "target_name": self.target_names[i],
                "score": _number(self.scores[i]),
                "probability": _number(self.probabilities[i]),
                "prediction": int(self.predictions[i]),
                "prediction_name": self.prediction_names[i],
                "flags": list(self.flags(i)),
                "checks": {k: _number(v[i]) for k, v in self.checks.items() if v.dtype != torch.bool},
            }
            for i in range(len(self))
        ]
        return {"format": FORMAT, "kind": "whylens.Explanation", **said, "maps": list(self.maps.shape), "rows": rows}

    def _take(self, rows: list[int]) -> Explanation:
        index = torch.tensor(rows, dtype=torch.long)
        known = [k for k in _TENSORS if k != "history" and getattr(self, k) is not None]
        values: dict[str, Any] = {k: getattr(self, k)[index] for k in known}
        if self.history is not None:
            values["history"] = self.history[:, index]
        for name in ("ids", "target_names", "prediction_names", "placements", "uris", "instances"):
            held = getattr(self, name)
            values[name] = tuple(held[i] for i in rows) if held else held
        return replace(self, **values, checks={k: v[index] for k, v in self.checks.items()})


def _number(value: Tensor | float) -> float | None:
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | set):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
