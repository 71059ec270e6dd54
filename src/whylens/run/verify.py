"""Verify: every file against its record, every record against the plan, every row once; what is wrong is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from .._files import is_leftover
from .._progress import progress as shown
from ..errors import DamageError
from . import schema
from .commit import Record, check_bytes, collect_garbage, data_files, leftovers, record_files, record_path
from .objects import check_rows
from .plan import Part, is_torn

if TYPE_CHECKING:
    from .read import Run

Kind = Literal["damaged", "missing", "foreign", "unfinished", "leftover"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written."""

    kind: Kind
    file: str
    says: str


@dataclass(frozen=True)
class Findings:
    """What `verify` found; `ok` where every row is there once and every file is what was written.

    Leftovers of processes that died are told, and harm nothing: nobody reads what no record names.
    """

    shards: int
    committed: int
    rows: int
    files: int
    bytes: int
    found: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong but leftovers."""
        return all(finding.kind == "leftover" for finding in self.found)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        state = "whole" if self.ok else "NOT whole"
        size = f"{self.bytes / 1e6:.1f} MB"
        lines = [f"{state}: {self.committed} of {self.shards} shards, {self.rows} rows, {self.files} files, {size}"]
        lines += [f"{f.kind}: {f.file}: {f.says}" for f in self.found]
        return "\n".join(lines)


def verify(run: Run, *, progress: bool = False) -> Findings:
    """Read everything and hold it against what the records and the plan say."""
    run.refresh()
    found: list[Finding] = []
    rows = files = size = committed = 0
    for part_file in run.plan.parts:
        try:
            check_bytes(run.folder / part_file.name, part_file)
        except DamageError as error:
            missing = not (run.folder / part_file.name).exists()
            found.append(Finding("missing" if missing else "damaged", part_file.name, str(error)))
    total = sum(len(held) for held in run.records.values())
    with shown(total=total, label="verify", show=progress) as done:
        for part in run.parts:
            found += _records(run, part)
            for record in run.records[part.name].values():
                found += _shard(run, part, record)
                files += len(record.files)
                size += sum(f.bytes for f in record.files)
                committed += not part.name
                rows += 0 if part.name else run.plan.bounds(record.shard)[1] - run.plan.bounds(record.shard)[0]
                done(1)
    found += _strangers(run)
    return Findings(run.plan.shards, committed, rows, files, size, tuple(found))


def families(run: Run) -> dict[str, str]:
    """The part that each family of a run belongs to."""
    return {family: part.name for part in run.parts for family in part.families}


def withdraw(run: Run, found: Findings) -> list[str]:
    """Remove the records of shards whose files are damaged or missing, so that the next audit makes them anew.

    Gives the names of the records. What else a record names is left for `gc`.
    """
    wrong = {finding.file for finding in found.found if finding.kind in ("damaged", "missing")}
    removed = []
    for part in run.parts:
        for shard, record in run.records[part.name].items():
            if wrong & {file.name for file in record.files}:
                path = record_path(run.folder, part.name, shard)
                path.unlink(missing_ok=True)
                removed.append(path.relative_to(run.folder).as_posix())
    run.refresh()
    return removed


def gc(run: Run, *, older: float, now: float) -> list[str]:
    """Remove files of attempts that died, if nothing was written to them for `older` seconds; gives their names."""
    removed = collect_garbage(run.folder, families(run), run.plan.shards, older=older, now=now)
    return [path.relative_to(run.folder).as_posix() for path in removed]


def _records(run: Run, part: Part) -> Iterator[Finding]:
    """Records that are torn, missing, or none."""
    known = run.records[part.name]
    seen = set()
    for path in record_files(run.folder, part.name):
        name = path.relative_to(run.folder).as_posix()
        if is_leftover(path.name):
            continue  # told among the leftovers
        number = int(path.stem) if path.suffix == ".json" and path.stem.isdecimal() else -1
        if not 0 <= number < run.plan.shards or path != record_path(run.folder, part.name, number):
            yield Finding("foreign", name, "no shard of this run")
        elif number not in known:
            seen.add(number)
            yield Finding("damaged", name, "the record is torn or changed; the audit run again makes the shard anew")
    for shard in range(run.plan.shards):
        if shard not in known and shard not in seen:
            start, stop = run.plan.bounds(shard)
            name = record_path(run.folder, part.name, shard).relative_to(run.folder).as_posix()
            word = part.name or "the audit"
            yield Finding("unfinished", name, f"images {start} to {stop - 1} of {word} are not committed")


def _shard(run: Run, part: Part, record: Record) -> Iterator[Finding]:
    """The files of one shard: there, unchanged, of this run, with the rows that belong there."""
    start, stop = run.plan.bounds(record.shard)
    if {f.family for f in record.files} != set(part.families):
        name = record_path(run.folder, part.name, record.shard).relative_to(run.folder).as_posix()
        yield Finding("damaged", name, f"it names {sorted(f.family for f in record.files)}")
        return
    for file in record.files:
        try:
            run.store.check(file)
            objects = part.objects and file.family != part.rows_family
            own = ["image_id", "instance"] if objects else ["image_id"]
            ids = run.store.table(file, own)
            kinds = run.store.read(file, lambda opened: pa.table({n: [] for n in opened.schema_arrow.names}))
        except DamageError as error:
            missing = not (run.folder / file.name).exists()
            yield Finding("missing" if missing else "damaged", file.name, str(error))
            continue
        known = {
            part.rows_family: schema.rows_schema(part),
            part.maps_family: schema.maps_schema(part),
            part.values_family: schema.values_schema(part),
        }[file.family]
        if kinds.column_names != known.names:
            yield Finding("damaged", file.name, "its columns are not those of this run")
        if objects and not (check_rows(ids, start, stop) and _counted(run, record, ids)):
            yield Finding("damaged", file.name, f"its rows are not the objects of images {start} to {stop - 1}")
        if not objects and ids.column(0).to_pylist() != list(range(start, stop)):
            yield Finding("damaged", file.name, f"its rows are not the images {start} to {stop - 1}")


def _counted(run: Run, record: Record, ids: pa.Table) -> bool:
    """Whether there are as many objects of each image as its row says."""
    file = record.file("rows")
    if file is None:
        return False
    try:
        said = run.store.table(file, ["image_id", "instances"]).to_pydict()
    except DamageError:
        return True  # told of that file
    found = Counter(ids.column("image_id").to_pylist())
    return all(found[image] == (count or 0) for image, count in zip(said["image_id"], said["instances"], strict=True))


def _strangers(run: Run) -> Iterator[Finding]:
    """Files that no record names: leftovers of attempts, and files that are not of this run at all."""
    own = families(run)
    left = set(leftovers(run.folder, own, run.plan.shards))
    for path in sorted(left):
        yield Finding("leftover", path.relative_to(run.folder).as_posix(), "of a process that died; gc removes it")
    named = {f.name for held in run.records.values() for record in held.values() for f in record.files}
    for family in own:
        for path in data_files(run.folder, family):
            name = path.relative_to(run.folder).as_posix()
            if path not in left and name not in named:
                yield Finding("foreign", name, "no record names it, and it is not read")
    for path in sorted((run.folder / "additions").glob("*.json")):
        if path not in left and is_torn(path):
            name = path.relative_to(run.folder).as_posix()
            yield Finding("damaged", name, "it is torn or changed; ask for the method or metric again")
    tops = {"report.html", "commit", "plan", "additions", "derived", "run.json", "audit.toml", *own}
    for path in sorted(run.folder.iterdir()):
        if path.name not in tops and path not in left:
            yield Finding("foreign", path.name, "it is not part of a run")
