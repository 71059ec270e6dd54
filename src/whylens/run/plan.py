"""Plan: everything that fixes a run's values, frozen before its work starts: ``run.json`` and ``plan/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from .._files import create_once, file_name, is_leftover, write_atomic
from ..errors import DamageError, InputError
from ..images import FileEntry, Images, Row
from ..masks import Label, reopen
from ..model import Model
from .commit import DataFile, Table, check_footer, measured, parquet_bytes

FORMAT = 1
"""Of the run folder; a newer one is refused, every past one keeps a fixture that must open."""

GROUP_ROWS = 65_536
PART_ROWS = 16 * GROUP_ROWS

CORE = ("image_id", "key", "uri", "label", "label_index", "mask", "content", "target")
"""Columns of a plan; a column of the image list with one of these names is kept as ``column.NAME``."""


@dataclass(frozen=True)
class Stored:
    """How one method stands in a run: the request, and the shapes that a trial of it had."""

    label: str
    method: str
    params: Mapping[str, Any]
    target: Any
    asked_layer: str | None
    layer: str | None
    features: str | None
    dim: int
    raw: tuple[int, ...]  # of one map as the method gives it
    shape: tuple[int, ...]  # of one map as it is stored
    dtype: str
    checks: tuple[str, ...]
    signed: bool
    unit: str
    baseline: str | None
    repeats: bool = True  # named by words alone, so that another process can ask for it again
    features_reason: str = ""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Stored:
        """From JSON."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
        return cls(**values)


@dataclass(frozen=True)
class Measured:
    """How one metric stands in a run."""

    key: str
    metric: str
    params: Mapping[str, Any]
    repeats: bool = True


@dataclass(frozen=True)
class Part:
    """What is worked off shard by shard: the base of a run, or what was added to it later.

    `methods` are run; `measure` says for which labels which metrics are computed; `keeps` lists the labels whose
    maps and scores are written.
    """

    name: str
    methods: tuple[Stored, ...]
    metrics: tuple[Measured, ...] = ()
    keeps: tuple[str, ...] = ()
    objects: bool = False  # rows of methods are objects of images, in a family of their own

    @property
    def rows_family(self) -> str:
        """Where its rows stand."""
        return f"scores.{self.name}" if self.name else "rows"

    @property
    def values_family(self) -> str:
        """Where the values of its methods stand."""
        return "instances" if self.objects else self.rows_family

    @property
    def maps_family(self) -> str:
        """Where its maps stand; a part that only measures has none."""
        return f"maps.{self.name}" if self.name else "maps"

    @property
    def families(self) -> tuple[str, ...]:
        """All its families."""
        if self.objects:
            return self.rows_family, self.values_family, self.maps_family
        return (self.rows_family, self.maps_family) if self.keeps else (self.rows_family,)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Part:
        """From JSON."""
        return cls(
            said["name"],
            tuple(Stored.read(m) for m in said["methods"]),
            tuple(Measured(**m) for m in said["metrics"]),
            tuple(said["keeps"]),
            bool(said.get("objects", False)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; a part of whole images is said as it was before there were objects."""
        said = asdict(self)
        return said if self.objects else {name: value for name, value in said.items() if name != "objects"}


@dataclass(frozen=True)
class Plan:
    """The content of ``run.json``."""

    rows: int
    shard_rows: int
    model: Mapping[str, Any]
    images: Mapping[str, Any]
    settings: Mapping[str, Any]  # target, score, seed, batch_size, precision, threads, store
    base: Part
    parts: tuple[DataFile, ...]  # files of the image list
    versions: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    created: str = ""
    format: int = FORMAT

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.rows // self.shard_rows)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First image_id of a shard and the first behind it."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)

    @cached_property
    def model_words(self) -> str:
        """The model's name."""
        return str(self.model["name"])

    def to_bytes(self) -> bytes:
        """JSON that carries its own checksum."""
        return sealed({"kind": "whylens.Run", **asdict(self), "base": self.base.as_dict()})

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Of a run folder; InputError where there is none, it is damaged, or newer than what is known here."""
        said = unsealed(folder / "run.json", f"'{folder}' holds no run: run.json is missing.")
        if said.get("kind") != "whylens.Run":
            raise InputError(f"'{folder / 'run.json'}' is not that of a run.")
        if int(said["format"]) > FORMAT:
            raise InputError(
                f"'{folder}' has format {said['format']}, newer than the {FORMAT} known here. Update whylens."
            )
        known = {f.name: said[f.name] for f in fields(cls) if f.name in said}
        return cls(
            **{**known, "base": Part.read(said["base"]), "parts": tuple(DataFile(**part) for part in said["parts"])}
        )


def sealed(said: Mapping[str, Any]) -> bytes:
    """Readable JSON with a checksum of its content as the last line."""
    body = json.dumps(said, indent=1, ensure_ascii=False, default=str)
    seal = sha256(json.dumps(json.loads(body), sort_keys=True).encode()).hexdigest()
    return (body.rstrip().removesuffix("}").rstrip() + f',\n "sha256": "{seal}"\n}}\n').encode()


def is_sealed(data: bytes) -> bool:
    """Whether the content is what its checksum says."""
    try:
        said = json.loads(data)
        seal = said.pop("sha256")
    except (ValueError, LookupError, AttributeError, TypeError):
        return False
    return bool(seal == sha256(json.dumps(said, sort_keys=True).encode()).hexdigest())


def unsealed(path: Path, missing: str) -> dict[str, Any]:
    """The content of a sealed file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(missing) from None
    except OSError as error:
        raise InputError(f"Cannot read '{path}': {error.strerror or error}.") from None
    if not is_sealed(data):
        raise DamageError(f"'{path}' is damaged: its content is not what its checksum says.")
    said: dict[str, Any] = json.loads(data)
    return said


# ---- images ----------------------------------------------------------------------------------------------


def label_index(label: Label, model: Model, classes: Sequence[str] | None) -> int | None:
    """The model's output that a label means; None where it is no class of the model.

    A number is an output. A name is looked for among the model's classes; a model without names is taken to have
    the image folder's classes in sorted order, as torchvision's `ImageFolder` numbers them.
    """
    if label is None or isinstance(label, int):
        return label
    if model.classes is None:
        return None if classes is None or label not in classes else list(classes).index(label)
    try:
        return model.class_index(label)
    except InputError:
        return None


def image_table(images: Images, model: Model, targets: Sequence[int] | None) -> pa.Table:
    """The image list, one row per image: what its rows will be called, and what tells its content from another's."""
    names = images.classes
    known = {label: label_index(label, model, names) for label in set(images.labels)}

    def word(label: Label) -> str | None:
        if isinstance(label, int):
            return names[label] if names and 0 <= label < len(names) else model.class_name(label)
        return label

    columns: dict[str, Any] = {
        "image_id": pa.array(range(len(images)), pa.int64()),
        "key": pa.array(images.ids, pa.string()),
        "uri": pa.array(images.uris, pa.string()),
        "label": pa.array([word(label) for label in images.labels], pa.string()),
        "label_index": pa.array([known[label] for label in images.labels], pa.int32()),
        "mask": pa.array(images.mask_uris, pa.string()),
        "content": pa.array([images.fingerprint(i) for i in range(len(images))], pa.string()),
        "target": pa.array(targets, pa.int32()) if targets is not None else pa.nulls(len(images), pa.int32()),
    }
    for name, values in images.columns.items():
        columns[f"column.{name}" if name in CORE else name] = _column(values)
    return pa.table(columns)


def _column(values: Sequence[Any]) -> pa.Array:
    """A column of the user's list in its own type; what has none that Arrow knows becomes text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def images_hash(table: pa.Table) -> str:
    """What makes two image lists the same: names, labels, content and the user's columns, wherever the files lie."""
    digest = sha256()
    for name in table.column_names:
        if name in ("uri", "mask"):
            continue
        digest.update(name.encode())
        for batch in table.column(name).chunks:
            for value in batch.to_pylist():
                digest.update(b"\0" if value is None else repr(value).encode() + b"\1")
    return digest.hexdigest()


def write_images(folder: Path, table: pa.Table, mark: str) -> tuple[DataFile, ...]:
    """The list as ``plan/part-*.parquet``, under names that belong to this list alone."""
    files = []
    for number, start in enumerate(range(0, table.num_rows, PART_ROWS)):
        rows = table.slice(start, PART_ROWS)
        name = f"plan/part-{number:05d}-{mark[:12]}.parquet"
        (folder / "plan").mkdir(parents=True, exist_ok=True)
        data = parquet_bytes(Table(rows, GROUP_ROWS))
        write_atomic(folder / name, data)
        files.append(measured("plan", name, rows.num_rows, data))
    return tuple(files)


def read_images(
    folder: Path, plan: Plan, start: int = 0, stop: int | None = None, columns: list[str] | None = None
) -> pa.Table:
    """The rows of the image list from `start` to before `stop`."""
    stop = plan.rows if stop is None else stop
    found = []
    for number, held in enumerate(plan.parts):
        name = held.name
        first = number * PART_ROWS
        if first < stop and first + PART_ROWS > start:
            check_footer(folder / name, held)
            try:
                with parquet.ParquetFile(folder / name, page_checksum_verification=True) as file:
                    low, high = max(0, start - first), min(stop - first, file.metadata.num_rows)
                    groups = range(low // GROUP_ROWS, -(-high // GROUP_ROWS))
                    part = file.read_row_groups(list(groups), columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise DamageError(f"'{folder / name}' is damaged: {str(error).splitlines()[0]}") from None
            found.append(part.slice(low - groups.start * GROUP_ROWS, high - low))
    table = pa.concat_tables(found)
    if table.num_rows != stop - start:
        raise DamageError(f"'{folder}' is damaged: its plan lists {table.num_rows} images where {stop - start} belong.")
    return table


def images_of(table: pa.Table, said: Mapping[str, Any]) -> Images:
    """The images of an image list, read from their files again; `said` is what the plan says of all of them."""
    classes = said["classes"]
    rows, labels = [], []
    told = (
        table.column(name).to_pylist() for name in ("key", "uri", "mask", "label_index" if said["numbers"] else "label")
    )
    for key, uri, mask, label in zip(*told, strict=True):
        if uri is None:
            raise InputError(f"The image '{key}' was in memory when its run was made, so it cannot be read again.")
        rows.append(Row(key, key, FileEntry(uri), uri, None if mask is None else reopen(mask)))
        labels.append(label)
    names = [name for name in table.column_names if name not in CORE]
    own = {n.removeprefix("column."): tuple(table.column(n).to_pylist()) for n in names}
    return Images(tuple(rows), tuple(labels), None if classes is None else tuple(classes), own)


# ---- parts added later -----------------------------------------------------------------------------------


def additions(folder: Path) -> tuple[Part, ...]:
    """What was added to a run, by name."""
    files = sorted(p for p in (folder / "additions").glob("*.json") if not is_leftover(p.name) and not is_torn(p))
    return tuple(Part.read(unsealed(path, f"'{path}' vanished.")["part"]) for path in files)


def is_torn(path: Path) -> bool:
    """Whether a file was created and never filled, by a writer that died where there are no hard links."""
    return path.exists() and not is_sealed(path.read_bytes())


def add(folder: Path, part: Part) -> None:
    """Record an addition, once; the same one again is fine, another one of its name is refused."""
    path = folder / "additions" / f"{file_name(part.name)}.json"
    path.parent.mkdir(exist_ok=True)
    data = sealed({"format": FORMAT, "kind": "whylens.Addition", "part": part.as_dict()})
    if not create_once(path, data, whole=is_sealed) and unsealed(path, "")["part"] != json.loads(data)["part"]:
        raise InputError(f"'{part.name}' was added to '{folder}' before with other settings. Give it another label.")


def create(folder: Path, plan: Plan) -> Plan:
    """Make the plan that of the folder, unless another one was faster; gives the plan that stands."""
    create_once(folder / "run.json", plan.to_bytes(), whole=is_sealed)
    return Plan.read(folder)
