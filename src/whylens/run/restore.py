"""Restore: stored rows and maps as an Explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..detections import Instance
from ..errors import InputError
from ..explanation import Explanation
from ..placement import Placement
from ..places import Instances

if TYPE_CHECKING:
    from .plan import Stored
    from .read import Run


def explanation(run: Run, label: str, numbers: Sequence[int]) -> Explanation:
    """The rows `numbers` of one method, those that failed left out and named in `failures`.

    Maps are as they are stored: pooled to at most 56 x 56 and of half precision, unless the run keeps them in full.
    """
    _, stored = run.method(label)
    own = [f"{word}.{stored.label}" for word in ("target", "score", "target_probability", "flags")]
    own += [f"check.{name}.{stored.label}" for name in stored.checks]
    columns = ["image_id", "key", "prediction", "prediction_index", "status", "error", "placement", "uri", *own]
    picked: list[dict[str, Any]] = run.table_at(numbers, columns).to_pylist()
    rows = [row for row in picked if row["status"] == "ok"]
    word = stored.label

    def floats(name: str) -> torch.Tensor:
        return torch.tensor([torch.nan if row[name] is None else row[name] for row in rows])

    def numbers_of(name: str) -> torch.Tensor:
        return torch.tensor([-1 if row[name] is None else row[name] for row in rows], dtype=torch.long)

    checks = _flags(rows, word) | {name: floats(f"check.{name}.{word}") for name in stored.checks}
    classes = run.plan.model["classes"]
    targets = numbers_of(f"target.{word}")
    return Explanation(
        maps=run.maps(label, [row["image_id"] for row in rows]),
        ids=tuple(row["key"] for row in rows),
        targets=targets,
        target_names=tuple("" if t < 0 else classes[t] if classes else str(int(t)) for t in targets),
        scores=floats(f"score.{word}"),
        probabilities=floats(f"target_probability.{word}"),
        predictions=numbers_of("prediction_index"),
        prediction_names=tuple(row["prediction"] or "" for row in rows),
        layer=stored.layer,
        checks=checks,
        failures={row["key"]: row["error"] for row in picked if row["status"] != "ok"},
        **_said(run, stored, rows),
    )


def explanation_of_objects(run: Run, label: str, numbers: Sequence[int]) -> Explanation:
    """The same for objects of a detector, one row each."""
    _, stored = run.method(label)
    if not numbers:
        raise InputError(f"'{run.folder}' holds no such object.")
    rows: list[dict[str, Any]] = run.instances_at(numbers).to_pylist()
    images = run.table_at([row["image_id"] for row in rows], ["placement", "uri"]).to_pylist()
    word, of = stored.label, (Instances.spelled(str(run.plan.settings["target"])) or Instances()).of
    checks = _flags(rows, word)
    checks |= {name: torch.tensor([row[f"check.{name}.{word}"] for row in rows]) for name in stored.checks}
    targets = torch.tensor([row[f"target.{word}"] for row in rows], dtype=torch.long)
    chosen = stored.asked_layer or run.plan.model["layer"]
    return Explanation(
        maps=run.maps(label, numbers),
        ids=tuple(row["key"] for row in rows),
        targets=targets,
        target_names=tuple(f"{row['class']} #{row['instance']}" for row in rows),
        scores=torch.tensor([row[f"score.{word}"] for row in rows]),
        probabilities=torch.tensor([row[f"target_probability.{word}"] for row in rows]),
        predictions=torch.full((len(rows),), -1),
        prediction_names=("",) * len(rows),
        layer=chosen or (", ".join(dict.fromkeys(row["level"] for row in rows)) if stored.layer else None),
        checks=checks,
        **_said(run, stored, images),
        instances=tuple(
            Instance(r["instance"], tuple(r["box"]), r["class_index"], r["class"], r["score"], of, r["level"])
            for r in rows
        ),
    )


def _flags(rows: Sequence[dict[str, Any]], word: str) -> dict[str, torch.Tensor]:
    """The flags that any row of a method has, one check each."""
    flags = sorted({flag for row in rows for flag in row[f"flags.{word}"] or ()})
    return {f: torch.tensor([f in row[f"flags.{word}"] for row in rows]) for f in flags}


def _said(run: Run, stored: Stored, images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the plan says of a method, and where the image of each row lies."""
    placements = tuple(None if one["placement"] is None else Placement.read(one["placement"]) for one in images)
    frame = next((p.frame for p in placements if p is not None), stored.raw[1:])
    return {
        "method": stored.method,
        "label": stored.label,
        "params": stored.params,
        "seed": run.plan.settings["seed"],
        "score_kind": run.plan.settings["score"],
        "signed": stored.signed,
        "unit": stored.unit,
        "baseline": stored.baseline,
        "model": run.plan.model["name"],
        "frame": (stored.raw[0], *frame),
        "placements": placements,
        "uris": tuple(one["uri"] for one in images),
        "versions": run.plan.versions,
    }
