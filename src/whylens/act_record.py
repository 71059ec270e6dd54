"""Act record: what was done about a group and what came of it, a file beside the grouping; written once, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ._files import create_once
from .effect import Effect
from .errors import DamageError, InputError

FORMAT = 1
"""Of a record; a newer one is refused."""


@dataclass(frozen=True)
class Done:
    """An act as its record tells it: the `version` of the `grouping` it was done on, the images of the group then.

    `params` are the action's own; those that were no plain values are in words.
    """

    action: str
    params: Mapping[str, Any]
    grouping: str
    version: int
    group: str
    image_ids: tuple[int, ...]
    seed: int
    effect: Effect


def write_record(folder: Path, done: Done) -> Path:
    """A new file in the acts of a grouping's folder, under the next number; nobody's record is written over."""
    params = {k: v if isinstance(v, str | int | float | bool | None) else repr(v) for k, v in done.params.items()}
    said = {"format": FORMAT, **vars(done), "params": params, "effect": done.effect.as_dict()}
    data = json.dumps(said, indent=1).encode()
    acts = folder / "acts"
    acts.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.stem) for p in _files(folder)), default=0)
    while not create_once(acts / f"{number:04d}.json", data, whole=lambda held: held.endswith(b"}")):
        number += 1
    return acts / f"{number:04d}.json"


def records_of(folder: Path) -> list[Path]:
    """The records in a grouping's folder, in the order in which the acts were done."""
    return sorted(_files(folder), key=lambda path: int(path.stem))


def read_record(path: Path) -> Done:
    """An act from its record. Raises DamageError where the file is none, InputError where its format is newer."""
    damaged = DamageError(f"'{path}' is damaged: it is no record of an act.")
    try:
        said = json.loads(path.read_bytes())
        newer = said.pop("format") > FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    if newer:
        raise InputError(f"'{path}' is of a newer format than this whylens knows. Upgrade whylens.")
    try:
        effect = replace(Effect.read(said.pop("effect")), record=path)
        return Done(**{**said, "image_ids": tuple(said["image_ids"])}, effect=effect)
    except (KeyError, TypeError, AttributeError):
        raise damaged from None


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / "acts").glob("*.json") if path.stem.isdecimal()]
