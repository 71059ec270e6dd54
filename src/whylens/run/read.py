"""Read: a run from its folder, while it is going too; every file is held against what its record says of it."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ..errors import InputError, no_such
from ..explanation import Explanation
from ..images import Images
from ..model import Model
from . import schema
from .commit import BASE, Record, records
from .plan import Part, Plan, Stored, additions, images_of, read_images
from .reopen import open_again
from .store import OPEN_FILES, Store

if TYPE_CHECKING:
    from .export import What
    from .summary import Summary
    from .verify import Findings

Ids = Sequence[int] | Sequence[str] | slice | int | str


def open_run(folder: str | Path) -> Run:
    """Open a stored run; one that is still going shows what is committed by now.

    Raises InputError where there is no run, or one of a newer format; DamageError where its plan is damaged.
    """
    return Run(Path(folder))


class Run:
    """A stored audit: rows, maps and embeddings of a list of images, read from disk when asked for.

    `plan` is what was fixed before its work began, `parts` the base and what was added later. Nothing here writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = Plan.read(folder)
        self.store = Store(folder)
        self.refresh()

    def refresh(self) -> Run:
        """Look again at what is committed by now."""
        self.__dict__.pop("_object_keys", None)  # objects are counted over what is committed
        self.parts: tuple[Part, ...] = (self.plan.base, *additions(self.folder))
        self.records = {part.name: records(self.folder, part.name, self.plan.shards) for part in self.parts}
        return self

    def __len__(self) -> int:
        return self.plan.rows

    def __repr__(self) -> str:
        done = "" if self.finished else f", {self.committed} done"
        return f"Run('{self.folder}', {len(self)} images{done}, {', '.join(self.labels)})"

    # ---- what there is -----------------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the stored methods."""
        return tuple(label for part in self.parts for label in part.keeps)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of the stored metrics."""
        return tuple(dict.fromkeys(m.key for part in self.parts for m in part.metrics))

    @property
    def committed(self) -> int:
        """Images whose rows are committed."""
        return sum(stop - start for start, stop in map(self.plan.bounds, self.records[BASE]))

    @property
    def finished(self) -> bool:
        """Whether every shard of every part is committed."""
        return all(len(found) == self.plan.shards for found in self.records.values())

    @property
    def of_objects(self) -> bool:
        """Whether a detector's objects are explained: maps, embeddings and explanations are then of `instances`."""
        return self.plan.base.objects

    def refuse_objects(self, verb: str) -> None:
        """InputError where the rows are objects, for a verb that asks about whole images."""
        if self.of_objects:
            raise InputError(
                f"{verb}: '{self.folder}' holds objects of a detector, and {verb} asks about whole images. What is "
                "known of objects: run.instances(), report(run), group(run), act(run, group, 'mask')."
            )

    def method(self, label: str) -> tuple[Part, Stored]:
        """The part and the facts of a stored method; ``-`` and ``_`` are the same."""
        for part in self.parts:
            for stored in part.methods:
                if stored.label in part.keeps and label.replace("-", "_") == stored.label.replace("-", "_"):
                    return part, stored
        raise no_such("method in this run", label, list(self.labels), f"It holds: {', '.join(self.labels)}.")

    # ---- tables ------------------------------------------------------------------------------------------

    def table(self, columns: Sequence[str] | None = None, *, embeddings: bool = False) -> pa.Table:
        """The committed rows in order, with the user's own columns and what was added later, as one Arrow table.

        `columns` picks some; without it all but the embeddings come (`embeddings` brings those too).
        """
        known = self._columns(embeddings or columns is not None, columns or ())
        wanted = [name for name in known if columns is None or name in columns or name == "image_id"]
        shards = list(self.records[BASE])
        pieces = [self._rows(shard, wanted, known) for shard in shards]
        made = pa.concat_tables(pieces) if pieces else pa.table({n: pa.array([], known[n][1]) for n in wanted})
        return made.select(list(columns)) if columns is not None else made

    def table_at(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """`table` of some images by `image_id` or key, those that are committed, without reading the others."""
        known = self._columns(True, columns)
        places = [divmod(number, self.plan.shard_rows) for number in self._numbers(ids, "image")]
        there = [place for place in places if place[0] in self.records[BASE]]
        made = _taken(there, lambda shard: self._rows(shard, list(columns), known))
        return pa.table({n: pa.array([], known[n][1]) for n in columns}) if made is None else made

    def instances(self, *, embeddings: bool = False) -> pa.Table:
        """The objects of a detector's run, one row each, with the `key` of their image; InputError in another run.

        Their row numbers are what `maps`, `embeddings` and `explanation` count by; they are of what is committed by
        now, and shift while a run is going.
        """
        known = self._object_schema(embeddings)
        pieces = [self._objects(shard, known) for shard in self.records[BASE]]
        return pa.concat_tables(pieces) if pieces else known.insert(2, pa.field("key", pa.string())).empty_table()

    def instances_at(self, ids: Ids) -> pa.Table:
        """`instances` of some numbers or ``KEY #0``, without reading the others."""
        known = self._object_schema(False)
        made = _taken(self._places(self._numbers(ids, "object")), lambda shard: self._objects(shard, known))
        return self.instances().slice(0, 0) if made is None else made

    def _object_schema(self, embeddings: bool) -> pa.Schema:
        if not self.of_objects:
            raise InputError(f"'{self.folder}' holds whole images, not objects of a detector. Use run.table().")
        fields = schema.instances_schema(self.plan.base)
        return pa.schema([f for f in fields if embeddings or not f.name.startswith("embedding.")])

    def _objects(self, shard: int, known: pa.Schema) -> pa.Table:
        """The objects of one shard, with the keys of their images."""
        file = self.store.file(self._record(self.plan.base, shard), self.plan.base.values_family)
        made = self.store.table(file, known.names)
        start, stop = self.plan.bounds(shard)
        keys = read_images(self.folder, self.plan, start, stop, ["key"]).column("key")
        return made.add_column(2, "key", keys.take(pc.subtract(made.column("image_id"), start)))

    @cached_property
    def _object_keys(self) -> dict[str, int]:
        rows = self.instances().select(["key", "instance"]).to_pylist()
        return {f"{row['key']} #{row['instance']}": n for n, row in enumerate(rows)}

    def _object_starts(self) -> dict[int, int]:
        """The number of the first object of every committed shard."""
        starts, first = {}, 0
        for shard, record in self.records[BASE].items():
            starts[shard], first = first, first + self.store.file(record, self.plan.base.values_family).rows
        return starts

    def _object_count(self) -> int:
        return sum(self.store.file(record, self.plan.base.values_family).rows for record in self.records[BASE].values())

    def _places(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """The shard of each image, or of each object, and its row there."""
        if not self.of_objects:
            return [divmod(number, self.plan.shard_rows) for number in numbers]
        known = self._object_starts()
        shards, starts = list(known), list(known.values())
        within = [bisect_right(starts, number) - 1 for number in numbers]  # of shards that start alike the last has it
        return [(shards[k], number - starts[k]) for k, number in zip(within, numbers, strict=True)]

    def _columns(self, embeddings: bool, asked: Sequence[str] = ()) -> dict[str, tuple[str, Any]]:
        """All columns in order: where each stands (a part's name, or the plan) and its type; `asked` are among them."""
        known: dict[str, tuple[str, Any]] = {}
        for part in self.parts:
            for field in schema.rows_schema(part):
                if embeddings or not field.name.startswith("embedding."):
                    known.setdefault(field.name, (part.name, field.type))
        for field in self._plan_schema:
            if field.name in ("uri", "mask") or field.name not in _PLANNED:
                known.setdefault(field.name, (_PLAN, field.type))
        for name in asked:
            if name not in known:
                raise no_such("column", name, list(known), f"The run has {len(known)} columns.")
        return known

    @cached_property
    def _plan_schema(self) -> pa.Schema:
        return read_images(self.folder, self.plan, 0, min(1, len(self))).schema

    def _rows(self, shard: int, wanted: Sequence[str], known: Mapping[str, tuple[str, Any]]) -> pa.Table:
        start, stop = self.plan.bounds(shard)
        found: dict[str, Any] = {}
        for part in self.parts:
            own = [name for name in wanted if known[name][0] == part.name]
            record = self.records[part.name].get(shard)
            if own and record is not None:
                file = self.store.file(record, part.rows_family)
                read = self.store.table(file, own)
                found |= {name: read.column(name) for name in own}
        planned = [name for name in wanted if known[name][0] == _PLAN]
        if planned:
            listed = read_images(self.folder, self.plan, start, stop, planned)
            found |= {name: listed.column(name) for name in planned}
        made = {n: found.get(n, pa.nulls(stop - start, known[n][1])) for n in wanted}
        return pa.table(made)

    def ids(self, keys: Ids) -> list[int]:
        """Row numbers (`image_id`) of images, by number, slice or key; of objects by number or ``KEY #0``."""
        return self._numbers(keys, "object" if self.of_objects else "image")

    def _numbers(self, keys: Ids, what: Literal["image", "object"]) -> list[int]:
        count = len(self) if what == "image" else self._object_count()
        if isinstance(keys, slice):
            return list(range(count))[keys]
        given: list[Any] = [keys] if isinstance(keys, int | str) else list(keys)
        named = any(isinstance(key, str) for key in given)
        known = {} if not named else self._keys if what == "image" else self._object_keys
        found = [known.get(key, -1) if isinstance(key, str) else operator.index(key) for key in given]
        for key, number in zip(given, found, strict=True):
            if not 0 <= number < count:
                raise InputError(f"The run has no {what} {key!r}. It holds {count} {what}s.")
        return found

    @cached_property
    def _keys(self) -> dict[str, int]:
        keys = read_images(self.folder, self.plan, columns=["key"]).column("key").to_pylist()
        return {key: number for number, key in enumerate(keys)}

    # ---- maps and embeddings -----------------------------------------------------------------------------

    def maps(self, label: str, ids: Ids) -> Tensor:
        """Stored maps ``(n, C, h, w)`` of images by `image_id` or key, float32, in the method's own unit.

        Raises InputError for an image that failed or is not committed yet, DamageError for a damaged file.
        """
        part, stored = self.method(label)
        numbers = self.ids(ids)
        held: dict[tuple[int, int], Any] = {}
        maps = []
        for number, (shard, row) in zip(numbers, self._places(numbers), strict=True):
            key = (shard, row // schema.MAPS_PER_GROUP)
            if key not in held:
                if len(held) >= OPEN_FILES:
                    held.clear()
                held[key] = self._group(part, stored, *key)
            data = held[key][row % schema.MAPS_PER_GROUP].as_py()
            if data is None:
                raise InputError(f"Image {number} has no {label} map: {self._why(number)}")
            maps.append(schema.unpack(data, stored, float(self._scales(part, stored, shard)[row])))
        return torch.stack(maps) if maps else torch.zeros((0, *stored.shape))

    def _group(self, part: Part, stored: Stored, shard: int, group: int) -> Any:
        file = self.store.file(self._record(part, shard), part.maps_family)
        column = f"map.{stored.label}"
        read = self.store.read(file, lambda opened: opened.read_row_group(group, columns=[column]))
        return read.column(0)

    def _scales(self, part: Part, stored: Stored, shard: int) -> np.ndarray[Any, Any]:
        return self.store.column(
            self.store.file(self._record(part, shard), part.values_family), f"scale.{stored.label}"
        )

    def _why(self, number: int) -> str:
        if self.of_objects:
            return "it was not explained."
        shard, row = divmod(number, self.plan.shard_rows)
        file = self.store.file(self._record(self.plan.base, shard), self.plan.base.rows_family)
        reason = self.store.column(file, "error")[row]
        return str(reason) if reason else "it was not explained."

    def embeddings(self, label: str) -> Embeddings:
        """The embeddings of a method: iterate for one shard after another, or `.tensor()` for all at once."""
        part, stored = self.method(label)
        if not stored.dim:
            raise InputError(f"'{label}' has no embeddings in this run: {stored.features_reason}")
        return Embeddings(self, part, stored)

    def explanation(self, label: str, ids: Ids) -> Explanation:
        """Stored maps of some images as an `Explanation`, with what its rows say; images that failed are left out."""
        from .restore import explanation, explanation_of_objects

        return (explanation_of_objects if self.of_objects else explanation)(self, label, self.ids(ids))

    # ---- what it was made from ---------------------------------------------------------------------------

    @cached_property
    def images(self) -> Images:
        """The images, read from their files again; InputError where they were in memory."""
        return images_of(read_images(self.folder, self.plan), self.plan.images)

    def images_at(self, ids: Ids) -> Images:
        """Some of the images, by `image_id` or key, without looking at the others."""
        numbers = self._numbers(ids, "image")
        listed = [read_images(self.folder, self.plan, n, n + 1) for n in numbers]
        table = pa.concat_tables(listed) if listed else read_images(self.folder, self.plan, 0, 0)
        return images_of(table, self.plan.images)

    def model(self, device: str | None = None) -> Model:
        """The model, opened again; InputError where it cannot be or has become another one."""
        return open_again(self.plan.model, device)

    def files(self, family: str = "rows") -> list[Path]:
        """The committed files of a family ("rows", "maps", "scores.LABEL", "maps.LABEL"), for other tools to read.

        What else lies in the family's folder was left by a process that died, and is not part of the run.
        """
        known = {f: part.name for part in self.parts for f in part.families}
        if family not in known:
            raise no_such("family", family, list(known), f"The run has: {', '.join(known)}.")
        found = (record.file(family) for record in self.records[known[family]].values())
        return [self.folder / file.name for file in found if file is not None]

    # ---- judged ------------------------------------------------------------------------------------------

    def failures(self) -> dict[str, str]:
        """Images that could not be explained, by key, with reasons."""
        rows = self.table(["key", "status", "error"]).to_pylist()
        return {row["key"]: row["error"] for row in rows if row["status"] != "ok"}

    def summary(self) -> Summary:
        """Accuracy, precision, recall, F1 and confusion per class with intervals, failures, flags, metrics."""
        from .summary import summarise

        return summarise(self)

    def verify(self, *, progress: bool = False) -> Findings:
        """Hold every file of the run against its record, every record against the plan."""
        from .verify import verify

        return verify(self, progress=progress)

    def export(self, file: str | Path, *, what: What = "rows", method: str | None = None) -> Path:
        """Write rows, embeddings or maps as one file of a common kind; see `whylens.run.export`."""
        from .export import export

        return export(self, file, what=what, method=method)

    # ---- files -------------------------------------------------------------------------------------------

    def _record(self, part: Part, shard: int) -> Record:
        record = self.records[part.name].get(shard)
        if record is None:
            start, stop = self.plan.bounds(shard)
            raise InputError(f"Images {start} to {stop - 1} are not committed yet. Run the same audit again.")
        return record


def _taken(places: Sequence[tuple[int, int]], table: Callable[[int], pa.Table]) -> pa.Table | None:
    """Rows by shard and row there, in this order; None where there are none."""
    of_shard: dict[int, list[int]] = {}
    for k, (shard, _) in enumerate(places):
        of_shard.setdefault(shard, []).append(k)
    if not places:
        return None
    taken = pa.concat_tables([table(shard).take([places[k][1] for k in which]) for shard, which in of_shard.items()])
    return taken.take(np.argsort(np.concatenate(list(of_shard.values()))))


_PLAN = "plan/"
_PLANNED = ("image_id", "key", "uri", "label", "label_index", "mask", "content", "target")


@dataclass(frozen=True)
class Embeddings:
    """Vectors of one method, one shard at a time; images that failed or whose map is empty have none."""

    run: Run
    part: Part
    stored: Stored

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.stored.dim

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each committed shard: `image_id` ``(n,)`` and vectors ``(n, K)``."""
        column = f"embedding.{self.stored.label}"
        starts = self.run._object_starts() if self.part.objects else {}
        for shard, record in self.run.records[self.part.name].items():
            file = self.run.store.file(record, self.part.values_family)
            read = self.run.store.table(file, ["image_id", column])
            vectors = read.column(column).combine_chunks()
            known = vectors.is_valid()
            numbers = read.column("image_id").combine_chunks()
            if self.part.objects:
                numbers = pa.array(range(starts[shard], starts[shard] + len(numbers)), pa.int64())
            ids = numbers.filter(known)
            flat = vectors.filter(known).flatten().to_numpy(zero_copy_only=False)
            yield (
                torch.from_numpy(np.array(ids.to_numpy())),
                torch.from_numpy(np.array(flat, np.float32)).reshape(len(ids), self.dim),
            )

    def tensor(self) -> tuple[Tensor, Tensor]:
        """All of them: `image_id` ``(N,)`` and vectors ``(N, K)``."""
        parts = list(self)
        if not parts:
            return torch.zeros(0, dtype=torch.long), torch.zeros(0, self.dim)
        return torch.cat([i for i, _ in parts]), torch.cat([v for _, v in parts])
