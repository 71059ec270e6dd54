"""Drawn: a folder that a set is drawn into once; half a set is finished, another set in it is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .._files import write_atomic
from .._progress import progress as progress_line
from ..errors import InputError
from .shapes import Array

Write = Callable[[str, Callable[[int], None]], None]


@dataclass(frozen=True)
class Names:
    """What a kind of set calls itself in errors, its file of settings while it is drawn and after, and what else it
    writes besides one list per split.
    """

    verb: str
    begun: str
    done: str
    others: tuple[str, ...]


def draw_once(
    folder: Path, settings: Mapping[str, Any], *, names: Names, splits: tuple[str, ...], write: Write, show: bool
) -> None:
    """Draw what is missing of this set, split by split, or nothing where it is whole.

    `write(split, done)` draws ``settings[split]`` images, calls ``done(1)`` after each and writes the split's list
    last, by `write_list`. The settings are the last file. Raises InputError where the folder holds anything else.
    """
    try:
        if not _is_done(folder, settings, names, splits):
            _make(folder, settings, names, splits, write, show)
    except OSError as error:
        raise InputError(
            f"{names.verb}: '{folder}' cannot be written: {error.strerror or error}. Give another folder."
        ) from None


def write_list(path: Path, text: str) -> None:
    """A split's list, once all its images are on the disk."""
    if hasattr(os, "sync"):
        os.sync()  # once for thousands of images: the list promises them
    write_atomic(path, text.encode())


def png(picture: Array) -> bytes:
    """A picture (H, W) or (H, W, 3) uint8 as a PNG file."""
    held = BytesIO()
    Image.fromarray(picture).save(held, "PNG", compress_level=1)
    return held.getvalue()


def _is_done(folder: Path, settings: Mapping[str, Any], names: Names, splits: tuple[str, ...]) -> bool:
    """Whether the folder holds this set; another one, or files that would be written over, are refused."""
    for name in (names.done, names.begun):
        if (folder / name).exists():
            _refuse_other(folder, _read(folder / name, names), settings, names)
            return name == names.done
    taken = [n for n in (*(f"{s}.csv" for s in splits), *splits, *names.others) if (folder / n).exists()]
    if taken:
        raise InputError(f"{names.verb}: '{folder}' holds a '{taken[0]}' of something else. Give an empty folder.")
    return False


def _read(file: Path, names: Names) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError:
        raise InputError(f"{names.verb}: '{file}' is damaged. Give another folder.") from None


def _refuse_other(folder: Path, held: Any, settings: Mapping[str, Any], names: Names) -> None:
    held = held if isinstance(held, dict) else {}
    off = {name: 0.0 for name, value in held.items() if name not in settings and isinstance(value, float)}
    settings = {**off, **settings}  # a share that is not asked for is none
    for name, value in settings.items():
        if held.get(name) != value:
            raise InputError(
                f"{names.verb}: '{folder}' holds another set: its {name} is {held.get(name)!r}, not {value!r}. "
                "Give another folder."
            )


def _make(
    folder: Path, settings: Mapping[str, Any], names: Names, splits: tuple[str, ...], write: Write, show: bool
) -> None:
    """A list is written when all its images are there, the file of the whole set last."""
    said = json.dumps(settings, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / names.begun, said)
    todo = [split for split in splits if not (folder / f"{split}.csv").exists()]
    with progress_line(total=sum(settings[split] for split in todo), label=names.verb, show=show) as done:
        for split in todo:
            write(split, done)
    write_atomic(folder / names.done, said)
    (folder / names.begun).unlink()
