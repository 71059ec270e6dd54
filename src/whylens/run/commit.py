"""The commit rule: what makes a shard's files part of a run, once, whatever dies on the way.

Data goes under names that no other attempt uses; then one small record, which names and measures them, is created
under the shard's name, if nothing has that name yet. The first attempt wins. Readers open what a record names, and
nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
from pyarrow import parquet
from xxhash import xxh3_128_hexdigest

from .._files import create_once, is_leftover, sync_folder, write_new
from ..errors import DamageError, InputError, WhylensError

BASE = ""
"""The part of a run that was planned at its start; other parts were added later and have names."""

_PER_FOLDER = 1000


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of one shard: its family, where it lies in the run, and what it must measure."""

    family: str
    name: str
    rows: int
    bytes: int
    xxh3_128: str
    footer: int
    footer_xxh3_128: str


@dataclass(frozen=True)
class Record:
    """What a commit says: the files of one shard, by the attempt that won, and what happened on the way."""

    shard: int
    attempt: str
    files: tuple[DataFile, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """JSON that carries its own checksum."""
        said = json.loads(_json({**asdict(self), "format": 1}))  # as it will be read: keys are words, and sort as such
        return _json({**said, "xxh3_128": xxh3_128_hexdigest(_json(said))})

    @classmethod
    def read(cls, data: bytes) -> Record | None:
        """The record; None where it is torn or changed."""
        try:
            said = json.loads(data)
            mark, version = said.pop("xxh3_128"), said.pop("format")
            if version != 1 or mark != xxh3_128_hexdigest(_json({**said, "format": version})):
                return None
            files = tuple(DataFile(**file) for file in said["files"])
            return cls(int(said["shard"]), str(said["attempt"]), files, said["notes"])
        except (ValueError, LookupError, TypeError, AttributeError):
            return None

    def file(self, family: str) -> DataFile | None:
        """The file of a family, if this shard has one."""
        return next((f for f in self.files if f.family == family), None)


@dataclass(frozen=True)
class Table:
    """Rows to be written to one family, in row groups of this many."""

    rows: pa.Table
    row_group: int


def record_path(folder: Path, part: str, shard: int) -> Path:
    """Where the record of a shard stands."""
    return folder / "commit" / part / f"{shard // _PER_FOLDER:05d}" / f"{shard:08d}.json"


def commit(
    folder: Path, part: str, shard: int, tables: Mapping[str, Table], notes: Mapping[str, Any] | None = None
) -> bool:
    """Write a shard's tables and commit them: True if this attempt won, False if another one had.

    Raises OSError where the disk refuses: then all of it is committed or nothing, and nothing that was is touched;
    WhylensError where its files were removed under its hands.
    """
    attempt = uuid4().hex[:12]
    path = record_path(folder, part, shard)
    files: list[DataFile] = []
    won = False
    try:
        for family, table in tables.items():
            files.append(_write(folder, family, f"{family}/{shard:08d}-{attempt}.parquet", table))
        record = Record(shard, attempt, tuple(files), dict(notes or {}))
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not (folder / file.name).exists():
                raise WhylensError(f"{file.name} vanished before it was committed. Do not clean a run that is going.")
        won = create_once(path, record.to_bytes(), whole=lambda data: _of_shard(data, shard) is not None)
    finally:
        if not won and not _names(path, attempt):
            for file in files:
                with suppress(OSError):
                    (folder / file.name).unlink(missing_ok=True)
    return won


def records(folder: Path, part: str, shards: int) -> dict[int, Record]:
    """All commits of a part, by shard; torn records are not commits."""
    found: dict[int, Record] = {}
    for path in record_files(folder, part):
        if path.stem.isdecimal() and path.suffix == ".json" and int(path.stem) < shards:
            with suppress(FileNotFoundError):
                record = _of_shard(path.read_bytes(), int(path.stem))
                if record is not None:
                    found[record.shard] = record
    return dict(sorted(found.items()))


def _of_shard(data: bytes, shard: int) -> Record | None:
    record = Record.read(data)
    return record if record is not None and record.shard == shard else None


def record_files(folder: Path, part: str) -> Iterator[Path]:
    """Every file among the records of a part, whatever it is."""
    top = folder / "commit" / part
    if not top.is_dir():
        return
    for inner in sorted(top.iterdir()):
        if inner.is_dir() and inner.name.isdecimal():
            yield from sorted(path for path in inner.iterdir() if path.is_file())  # a part may be named as a number


def data_files(folder: Path, family: str) -> Iterator[Path]:
    """Every file in the folder of a family, whatever it is."""
    if (folder / family).is_dir():
        yield from sorted((folder / family).iterdir())


def parquet_bytes(table: Table) -> bytes:
    """The table as one Parquet file: zstd, page checksums, no dictionaries on numbers and maps."""
    sink = pa.BufferOutputStream()
    words = [f.name for f in table.rows.schema if pa.types.is_string(f.type)]
    parquet.write_table(
        table.rows,
        sink,
        row_group_size=table.row_group,
        compression="zstd",
        compression_level=1,
        use_dictionary=words,
        write_page_checksum=True,
        write_statistics=[f.name for f in table.rows.schema if not pa.types.is_nested(f.type) and not _is_map(f.type)],
        store_schema=True,
    )
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _write(folder: Path, family: str, name: str, table: Table) -> DataFile:
    data = parquet_bytes(table)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new(path, data)
    sync_folder(path.parent)
    return measured(family, name, table.rows.num_rows, data)


def measured(family: str, name: str, rows: int, data: bytes) -> DataFile:
    """What a file must measure."""
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return DataFile(family, name, rows, len(data), xxh3_128_hexdigest(data), footer, xxh3_128_hexdigest(data[-footer:]))


def check_footer(path: Path, file: DataFile) -> None:
    """Size and footer against the record; what lies between is covered by the checksums of its pages."""
    try:
        with path.open("rb") as opened:
            size = opened.seek(0, 2)
            if size != file.bytes:
                raise DamageError(f"'{path}' is damaged: it has {size} bytes, and {file.bytes} were written.")
            opened.seek(-file.footer, 2)
            tail = opened.read(file.footer)
    except FileNotFoundError:
        raise DamageError(f"'{path}' is missing.") from None
    except OSError as error:
        raise DamageError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    if xxh3_128_hexdigest(tail) != file.footer_xxh3_128:
        raise DamageError(f"'{path}' is damaged: its footer is not what was written.")


def check_bytes(path: Path, file: DataFile) -> None:
    """The whole file against the record."""
    check_footer(path, file)
    if xxh3_128_hexdigest(path.read_bytes()) != file.xxh3_128:
        raise DamageError(f"'{path}' is damaged: its content is not what was written.")


def _names(path: Path, attempt: str) -> bool:
    """Whether the record that stands is this attempt's: then its files stay, whatever went wrong afterwards."""
    try:
        record = Record.read(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # unknown: leave the files, `gc` removes what no record names
    return record is not None and record.attempt == attempt


def _is_map(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind))


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


# ---- leftovers -----------------------------------------------------------------------------------------------------


def leftovers(folder: Path, families: Mapping[str, str], shards: int) -> Iterator[Path]:
    """Files of attempts that no record names, and temporary files; `families` leads from a family to its part."""
    held = {family: list(data_files(folder, family)) for family in families}  # before the records, which may grow
    for family, part in families.items():
        known = {f.name for record in records(folder, part, shards).values() for f in record.files}
        for path in held[family]:
            own = _is_attempt(path.name) and f"{family}/{path.name}" not in known
            if own or is_leftover(path.name):
                yield path
    for root, _, names in os.walk(folder):
        inside = Path(root).relative_to(folder).as_posix()
        yield from (Path(root) / name for name in sorted(names) if is_leftover(name) and inside not in families)


def collect_garbage(folder: Path, families: Mapping[str, str], shards: int, *, older: float, now: float) -> list[Path]:
    """Remove leftovers that were last written more than `older` seconds before `now`; gives what was removed."""
    removed = []
    for path in list(leftovers(folder, families, shards)):
        try:
            if now - path.stat().st_mtime > older:
                path.unlink()
                removed.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(f"gc: cannot remove '{path}': {error.strerror or error}.") from None
    return removed


def _is_attempt(name: str) -> bool:
    return re.fullmatch(r"[0-9]{8,}-[0-9a-f]{12}\.parquet", name) is not None
