"""The locality study: how little of each photo is enough for its decision, and in how many ways.

A study is a folder, made once and resumed where it stopped: ``study.json`` fixes what is asked of which model and
images, one record per photo is created under its number when it is done, and the first one made stays.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import __version__
from . import target as targets
from ._files import create_once, prepare_folder
from ._progress import track
from .contract import Method
from .errors import InputError, WhylensError, kind_and_line
from .explain import Request
from .graph import GUIDE, maps_of, probe_of, read_guide, search_settings
from .images import Images, Photo, Unreadable
from .model import Model
from .run.plan import image_table, images_hash, is_sealed, sealed, unsealed
from .run.reopen import describe, words
from .scoring import ranks
from .sources import load_images
from .structured.diverse import counts
from .structured.sets import bitmask
from .structured.sufficient import Sufficient, sufficient
from .target import Target

log = logging.getLogger("whylens")

FORMAT = 1
"""Of the folder; a newer one is refused."""

KIND = "whylens.Study"

_TOGETHER = 8  # prefixes of a ranking scored in one call, until one is enough
_FACTS = ("sha256", "task", "output", "classes", "preprocess", "layer", "dtype")


def study(
    model: Model | nn.Module | Callable[[Tensor], Any],
    images: Any,
    *,
    out: str | Path,
    methods: Sequence[Request] = ("grad_cam",),
    target: Any = None,
    guide: Request = GUIDE,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Study:
    """Search the sufficient sets of every image into the folder `out`; what is there already is not made again.

    Each of `methods` ranks the regions too: what is kept is how many of its highest must be shown before they are
    enough. The guide is such a ranking without being asked for. `params` are those of
    `whylens.structured.sufficient.sufficient`, `guide` is as in `attention_graph`, `target` as in `explain`, one per
    image. A photo that fails is a record with its reason.

    Raises InputError for what cannot be done as asked, and for a folder that holds another study.

    Source: Li et al. 2021, Applied AI Letters, section 4.1 and figure 3.
    """
    model = model if isinstance(model, Model) else Model(model)
    images = images if isinstance(images, Images) else load_images(images)
    settings = search_settings(params, {"seed": seed}, "study")
    wanted = targets.read(target, model, len(images))
    guided = read_guide(guide, model, settings)
    rankings = _rankings(methods, guided, model, settings)
    folder = prepare_folder(Path(out))
    asked = {
        "settings": settings,
        "target": _said(target),
        "guide": None if guided is None else guided.key,
        "rankings": list(rankings),
    }
    try:
        _plan(folder, model, images, asked)
        missing = [k for k in range(len(images)) if not _record_path(folder, k).exists() or _torn(folder, k)]
        photos = images.subset(missing).stream() if missing else iter(())
        one = _One(model, wanted, guided, rankings, settings)
        for k, photo in zip(missing, track(photos, total=len(missing), label="study", show=progress), strict=True):
            path = _record_path(folder, k)
            path.parent.mkdir(parents=True, exist_ok=True)
            create_once(path, sealed(one.record(k, images.ids[k], photo)), whole=is_sealed)
    except OSError as error:
        raise InputError(
            f"study: '{folder}' cannot be written: {error.strerror or error}. The photos that are done are kept; the "
            "same command goes on from there."
        ) from error
    return open_study(folder)


def open_study(folder: str | Path) -> Study:
    """Open a study; one that is still going shows what is done by now."""
    plan = unsealed(Path(folder) / "study.json", f"'{folder}' holds no study: study.json is missing.")
    if plan.get("kind") != KIND:
        raise InputError(f"'{Path(folder) / 'study.json'}' is not that of a study.")
    if plan["format"] > FORMAT:
        raise InputError(f"'{folder}' has format {plan['format']}, newer than the {FORMAT} known here. Update whylens.")
    paths = (_record_path(Path(folder), k) for k in range(plan["images"]["count"]))
    rows = tuple(unsealed(p, "") for p in paths if p.exists() and is_sealed(p.read_bytes()))
    return Study(Path(folder), plan, rows)


@dataclass(frozen=True, eq=False)
class Study:
    """A study as far as it is done: `plan` is what was asked, `rows` one record per photo, in the photos' order.

    A row holds `key`, `status` and `error`; for photos that went well also `sets` (patches), `scores`, `full`, `kept`,
    `units`, `areas` (of each set, a share of the frame), `overlap` (how many explanations at each limit), `needed` (by
    ranking: how many of its highest regions are enough), `flags`, and what the search cost.
    """

    folder: Path
    plan: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return int(self.plan["images"]["count"])

    def __repr__(self) -> str:
        return f"Study('{self.folder}', {len(self.rows)} of {len(self)} photos)"

    def __str__(self) -> str:
        from .study_summary import lines

        return "\n".join(lines(self))

    @cached_property
    def done(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of photos that went well."""
        return tuple(row for row in self.rows if row["status"] == "ok")

    @property
    def failures(self) -> dict[str, str]:
        """Why photos failed, by key."""
        return {row["key"]: row["error"] for row in self.rows if row["status"] != "ok"}

    def summary(self) -> dict[str, Any]:
        """The figures of the study with their intervals, as plain values; see `whylens.study_summary`."""
        from .study_summary import summarise

        return summarise(self)

    def write(self, out: str | Path) -> list[str]:
        """Write ``photos.csv``, ``curves.csv``, ``study.png`` and ``summary.json`` into a folder; gives their names."""
        from .study_summary import write

        return write(self, Path(out))


# ---- one photo -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _One:
    """What is asked of every photo."""

    model: Model
    target: Target
    guide: Method | None
    rankings: Mapping[str, Method]
    settings: Mapping[str, Any]

    def record(self, position: int, key: str, photo: Photo | Unreadable) -> dict[str, Any]:
        """The record of one photo; what its net or a method raises is the reason why it has no more."""
        said = {"format": FORMAT, "position": position, "key": key}
        if isinstance(photo, Unreadable):
            return {**said, "status": "error", "error": photo.reason}
        began = time.perf_counter()
        try:
            found = self._found(position, photo)
        except MemoryError:
            raise
        except Exception as error:  # nets and methods are the caller's code; what they raise becomes a row's reason
            reason = str(error) if isinstance(error, WhylensError) else kind_and_line(error)
            log.warning("%s: %s", key, reason)
            return {**said, "status": "error", "error": reason}
        return {**said, "status": "ok", "error": None, **found, "seconds": round(time.perf_counter() - began, 3)}

    def _found(self, position: int, photo: Photo) -> dict[str, Any]:
        probe = probe_of(self.model, photo, self.target, position)
        maps = {name: maps_of(probe, method, self.settings["seed"]) for name, method in self.rankings.items()}
        found = sufficient(probe, guide=None if self.guide is None else maps[self.guide.key], **self.settings)[0]
        cost = {"asked": found.score.asked, "scored": found.score.scored}
        with found.score.held():
            needed = {name: self._needed(found, own) for name, own in maps.items()}
        index = -1 if probe.index is None else int(probe.index[0])
        return {
            "target": index,
            "target_name": self.model.class_name(index) if index >= 0 else "function",
            "full": found.full,
            "kept": found.kept,
            "baseline": ", ".join(found.baseline.names) or found.baseline.name,
            "units": found.units.count,
            "sets": [list(patches) for patches in found.patches],
            "scores": list(found.scores),
            "areas": [found.units.area(patches) for patches in found.patches],
            "overlap": counts(found.sets, found.scores),
            "needed": needed,
            "flags": list(found.flags),
            "stop": found.stop,
            **cost,
        }

    def _needed(self, found: Sufficient, maps: Tensor) -> int:
        """How many regions that a map ranks highest must be shown until they are enough."""
        order = ranks(found.units.values(maps)[None], self.settings["seed"])[0].argsort().tolist()
        prefixes = [bitmask(order[:count], len(order)) for count in range(len(order) + 1)]
        for start in range(0, len(prefixes), _TOGETHER):
            for count, score in enumerate(found.score(prefixes[start : start + _TOGETHER]), start):
                if score > found.threshold * found.full:
                    return count
        return len(order)


# ---- the folder ----------------------------------------------------------------------------------------------


def _plan(folder: Path, model: Model, images: Images, asked: Mapping[str, Any]) -> None:
    """Fix what is asked, or refuse where the folder holds another study."""
    described = describe(model)
    said = {
        "format": FORMAT,
        "kind": KIND,
        "whylens": __version__,
        "model": {"name": model.name, **{fact: described[fact] for fact in _FACTS}},
        "images": {"count": len(images), "hash": images_hash(image_table(images, model, None))},
        **json.loads(json.dumps(asked)),
    }
    path = folder / "study.json"
    strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if strangers and not path.exists():
        raise InputError(f"study: '{folder}' holds other files ({strangers[0]}). Give an empty folder, or a new name.")
    if create_once(path, sealed(said), whole=is_sealed):
        return
    held = unsealed(path, "")
    if held.get("kind") != KIND:
        raise InputError(f"'{path}' is not that of a study.")
    for what in _differing(held, said):
        raise InputError(
            f"study: '{folder}' was made with {what}. Give another --out, or what the study was made with."
        )


def _differing(held: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    for fact in _FACTS:
        if held["model"][fact] != said["model"][fact]:
            yield f"another model: {words(fact)} differ"
    if held["images"] != said["images"]:
        yield "other images"
    for name, value in said["settings"].items():
        if held["settings"].get(name) != value:
            yield f"other settings: {name} was {held['settings'].get(name)!r} and is {value!r}"
    for name in ("target", "guide", "rankings"):
        if held[name] != said[name]:
            yield f"other settings: {name} was {held[name]!r} and is {said[name]!r}"


def _record_path(folder: Path, position: int) -> Path:
    return folder / "records" / f"{position // 1000:05d}" / f"{position:08d}.json"


def _torn(folder: Path, position: int) -> bool:
    """Whether the record's writer died where there are no hard links, so that it is to be made again."""
    return not is_sealed(_record_path(folder, position).read_bytes())


def _rankings(
    methods: Sequence[Request], guide: Method | None, model: Model, settings: Mapping[str, Any]
) -> dict[str, Method]:
    """The rankings by label: the guide, and each method as it would guide."""
    asked = [methods] if isinstance(methods, str | Method) or callable(methods) else list(methods)
    found = {} if guide is None else {guide.key: guide}
    for request in asked:
        method = read_guide(request, model, settings)
        if method is not None:
            found.setdefault(method.key, method)
    return found


def _said(target: Any) -> Any:
    """A target as JSON can hold it."""
    if callable(target):
        return {"function": getattr(target, "__name__", "function")}
    return target.tolist() if hasattr(target, "tolist") else target
