"""The commit rule: nothing lost and nothing doubled, whatever dies, races or is full, with hard links and without."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from writers import ROWS, Said, Steps, Writers, no_links, tables

from whylens import InputError, _files
from whylens.run import commit as rule
from whylens.run.commit import (
    DataFile,
    Record,
    Table,
    collect_garbage,
    commit,
    leftovers,
    parquet_bytes,
    record_path,
    records,
)

SHARDS = 1000
FAMILIES = {"rows": "", "maps": ""}
LINKS = pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
BEFORE_RECORD = ("commit", "create_once(")


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    server = Writers()
    yield server
    server.close()


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a kill loses what a process held, and never what the system did."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


# ---- what is held against what -------------------------------------------------------------------------------------


def read(data: bytes) -> pa.Table:
    """A Parquet file with its pages checked, by this thread alone."""
    with parquet.ParquetFile(io.BytesIO(data), page_checksum_verification=True, pre_buffer=False) as file:
        return file.read(use_threads=False)


def held(folder: Path, shard: int, record: Record) -> tuple[str, list[int]]:
    """Whose rows a record names, and their ids, after the files were held against it and the content against them."""
    said = json.loads(record_path(folder, "", shard).read_bytes())
    assert [f["family"] for f in said["files"]] == ["rows", "maps"]
    assert (said["shard"], said["attempt"]) == (shard, record.attempt)
    found = {}
    for file in said["files"]:
        data = (folder / file["name"]).read_bytes()
        assert len(data) == file["bytes"]
        assert xxhash.xxh3_128(data).hexdigest() == file["xxh3_128"]
        assert xxhash.xxh3_128(data[-file["footer"] :]).hexdigest() == file["footer_xxh3_128"]
        assert file["name"] == f"{file['family']}/{shard:08d}-{said['attempt']}.parquet"
        found[file["family"]] = read(data)
        assert found[file["family"]].num_rows == file["rows"]
    who = str(found["rows"].column("who")[0].as_py())
    width = found["maps"].schema.field("map").type.byte_width
    for family, table in tables(shard, who, width=width).items():
        assert found[family].equals(table.rows)
    return who, found["rows"].column("image_id").to_pylist()


def stands(folder: Path, shard: int) -> str | None:
    """Whose rows a shard has, whole; None if nobody's."""
    record = records(folder, "", SHARDS).get(shard)
    return None if record is None else held(folder, shard, record)[0]


def all_stand(folder: Path, shards: int) -> list[str | None]:
    """Whose rows each shard has; every row is there once, over all files that are named."""
    found = {k: held(folder, k, record) for k, record in records(folder, "", SHARDS).items()}
    ids = sorted(i for _, own in found.values() for i in own)
    assert ids == [i for k in found for i in range(k * ROWS, (k + 1) * ROWS)]
    assert set(found) <= set(range(shards))
    return [found[k][0] if k in found else None for k in range(shards)]


def listing(folder: Path) -> dict[str, bytes]:
    """Every file of a run with what it holds."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def named(folder: Path) -> set[str]:
    """What records name, and the records."""
    found = records(folder, "", SHARDS)
    own = {record_path(folder, "", k).relative_to(folder).as_posix() for k in found}
    return own | {f.name for record in found.values() for f in record.files}


def later() -> float:
    return time.time() + 3600


def clean(folder: Path) -> list[Path]:
    """`gc` with no patience at all."""
    return collect_garbage(folder, FAMILIES, SHARDS, older=0, now=later())


def won(said: Said) -> bool:
    assert said.state == "done", said
    assert not said.error, said
    return bool(said.result)


def died(said: Said) -> Said:
    assert (said.state, said.signal) == ("killed", 9), said
    return said


# ---- killed at every step ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """One writer that was killed, and what it left."""

    how: str
    place: str
    left: str  # "nothing", "torn" or "committed"


HALVES = (0.0, 0.01, 0.5, 0.99, 1.0)


def attempt(folder: Path, shard: int, who: str, *, links: bool) -> bool:
    """Another attempt at a shard, by this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files.time, "sleep", lambda seconds: None)
        if not links:
            patch.setattr(os, "link", no_links)
        return commit(folder, "", shard, tables(shard, who))


def killed(writers: Writers, folder: Path, shard: int, how: str, **job: Any) -> Kill:
    """Kill a writer; what it leaves can be read, and the next one commits the shard or finds it committed."""
    end = died(writers.start(folder, shard, "dead", act="kill", **job))
    who = stands(folder, shard)
    assert who in (None, "dead")
    torn = record_path(folder, "", shard).exists() and who is None
    assert attempt(folder, shard, "next", links=job["links"]) == (who is None)
    assert stands(folder, shard) == (who or "next")
    return Kill(how, end.place, "torn" if torn else "committed" if who else "nothing")


@dataclass(frozen=True)
class Kills:
    """All kills, and the steps that a commit passes that nobody kills."""

    kills: list[Kill]
    steps: dict[str, list[str]]
    folders: dict[Path, int]

    def of(self, how: str) -> list[Kill]:
        return [kill for kill in self.kills if kill.how == how]


@pytest.fixture(scope="module")
def kills(writers: Writers, memory: Path) -> Kills:
    """Writers killed before every step with hard links, without, and while they replace a torn record; and in mid-file.

    Runs are of 20 shards, so that a kill has neighbours that were committed before it.
    """
    done: list[Kill] = []
    steps: dict[str, list[str]] = {}
    folders: dict[Path, int] = {}

    def place() -> tuple[Path, int]:
        folder, shard = memory / f"{len(done) // 20:03d}", len(done) % 20
        folders[folder] = shard + 1
        return folder, shard

    for how, links in (("links", True), ("no links", False), ("replacing", False)):

        def tear(folder: Path, shard: int, how: str = how) -> None:
            if how == "replacing":
                path = record_path(folder, "", shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b'{"attempt":')

        tear(memory / how, 0)
        whole = writers.start(memory / how, links=links, looks=2, count=True)
        assert won(whole)
        steps[how] = list(whole.steps)
        first = 0 if how == "links" else next(k for k, s in enumerate(steps[how]) if s.startswith("create_once"))
        for step in range(first + 1, len(steps[how]) + 1):
            tear(*place())
            done.append(killed(writers, *place(), how, links=links, looks=2, step=step))
        tear(*place())
        assert won(writers.start(*place(), "alive", links=links, looks=2, step=len(steps[how]) + 1, act="kill"))
        done.append(Kill("alive", "", "committed"))
    for links, files in ((True, 3), (False, 4)):
        for number in range(1, files + 1):
            for share in HALVES:
                how = f"half, {'links' if links else 'no links'}"
                done.append(killed(writers, *place(), how, links=links, half=(number, share)))
    return Kills([kill for kill in done if kill.how != "alive"], steps, folders)


def test_at_least_200_writers_were_killed_at_every_step(kills: Kills) -> None:
    assert len(kills.kills) >= 200
    assert [kill.place for kill in kills.of("links")] == kills.steps["links"]
    for how in ("no links", "replacing"):
        passed = kills.steps[how]
        assert [kill.place for kill in kills.of(how)] == passed[-len(kills.of(how)) :]
    hit = {kill.place.split(":")[0] for kill in kills.kills if kill.place}
    assert hit >= {"commit", "_write", "parquet_bytes", "to_bytes", "create_once", "write_new", "_fill", "_linked"}
    assert hit >= {"sync_folder", "_beside", "_replaced_if_torn"}


def test_every_line_of_the_rule_was_a_place_to_die_at(kills: Kills) -> None:
    """The steps that matter by their words, so that a trace that counts too little is seen."""
    assert {
        "commit: path.parent.mkdir(parents=True, exist_ok=True)",
        "commit: return won",
        "create_once: write_new(temporary, data)",
        "create_once: temporary.unlink(missing_ok=True)",
        "create_once: sync_folder(path.parent)",
        "_linked: os.link(temporary, path)",
        '_fill: with path.open("xb") as file:',
        "_fill: file.write(data)",
        "_fill: file.flush()",
        "_fill: os.fsync(file.fileno())",
        "sync_folder: os.fsync(handle)",
        "write_new: _fill(path, data) (return)",
    } <= {kill.place for kill in kills.of("links")}
    assert "_replaced_if_torn: temporary.replace(path)" in {kill.place for kill in kills.of("replacing")}


def test_a_shard_is_committed_by_one_step(kills: Kills) -> None:
    """Nothing before the link, all of it after; without links a torn record in between, which is no commit."""

    def order(how: str) -> list[str]:
        left = [kill.left for kill in kills.of(how)]
        return [word for k, word in enumerate(left) if k == 0 or left[k - 1] != word]

    def last(how: str, left: str) -> str:
        return [kill.place for kill in kills.of(how) if kill.left == left][-1]

    assert order("links") == ["nothing", "committed"]
    assert last("links", "nothing") == "_linked: os.link(temporary, path)"
    assert order("no links") == ["nothing", "torn", "committed"]
    assert last("no links", "torn") == "_fill: file.flush()"
    assert order("replacing") == ["torn", "committed"]
    assert last("replacing", "torn") == "_replaced_if_torn: temporary.replace(path)"


def test_a_file_of_which_half_is_written_is_no_commit(kills: Kills) -> None:
    assert {kill.left for kill in kills.of("half, links")} == {"nothing"}
    left = [kill.left for kill in kills.of("half, no links")]
    assert left[: 3 * len(HALVES)] == ["nothing"] * 3 * len(HALVES)
    assert left[3 * len(HALVES) :] == ["torn"] * (len(HALVES) - 1) + ["committed"]


def test_after_all_kills_every_row_is_there_once_and_gc_takes_the_rest(kills: Kills) -> None:
    removed = 0
    for folder, shards in kills.folders.items():
        before = all_stand(folder, shards)
        assert None not in before
        kept = {name: data for name, data in listing(folder).items() if name in named(folder)}
        removed += len(clean(folder))
        assert listing(folder) == kept
        assert all_stand(folder, shards) == before
    assert removed > len(kills.kills)


@LINKS
@pytest.mark.parametrize("act", ["KeyboardInterrupt", "ENOSPC"])
def test_what_raises_at_any_step_commits_all_or_nothing(memory: Path, links: bool, act: str) -> None:
    """An exception instead of a kill: the rule's own cleaning up runs, and must not take a committed file."""
    root = memory / f"{act} {links}"
    stood: list[str | None] = []
    for step in count(1):
        folder, shard = root / f"{step // 20}", step % 20
        told: list[str] = []
        steps = Steps(lambda place, told=told: told.append(place), {"step": step, "act": act})
        before = sys.gettrace()
        try:
            sys.settrace(steps)
            attempt(folder, shard, "first", links=links)
            raised = False
        except (KeyboardInterrupt, OSError):
            raised = True
        finally:
            sys.settrace(before)
        if told and not raised:  # a folder that cannot be synced is no reason to refuse
            assert act == "ENOSPC"
            assert told[0].startswith("sync_folder")
        if not told:
            break
        stood.append(stands(folder, shard))
        assert attempt(folder, shard, "second", links=links) == (stood[-1] is None), told
        assert stands(folder, shard) == (stood[-1] or "second"), told
    assert len(stood) > 150
    assert {"first", None} == set(stood)
    for folder in root.iterdir():
        clean(folder)
        assert set(listing(folder)) == named(folder)


# ---- two writers, in forced order ----------------------------------------------------------------------------------


@LINKS
@pytest.mark.parametrize("order", ["AB", "BA"])
def test_of_two_writers_with_data_the_first_record_wins(
    writers: Writers, tmp_path: Path, links: bool, order: str
) -> None:
    """A.data, B.data, B.record, A.record: the order on which a fixed name with a rename loses."""
    stopped = {who: writers.start(tmp_path, who=who, links=links, before=BEFORE_RECORD, act="stop") for who in "AB"}
    assert {said.state for said in stopped.values()} == {"stopped"}
    assert len(listing(tmp_path)) == 4
    assert stands(tmp_path, 0) is None
    assert [won(writers.go(stopped[who])) for who in order] == [True, False]
    assert stands(tmp_path, 0) == order[0]
    assert set(listing(tmp_path)) == named(tmp_path)
    assert len(listing(tmp_path)) == 3


@LINKS
def test_of_two_writers_between_record_and_name_the_first_wins(writers: Writers, tmp_path: Path, links: bool) -> None:
    at: dict[str, Any] = {"before": ("_linked", "os.link("), "act": "stop", "links": links}
    a, b = writers.start(tmp_path, who="A", **at), writers.start(tmp_path, who="B", **at)
    assert (won(writers.go(b)), won(writers.go(a))) == (True, False)
    assert stands(tmp_path, 0) == "B"
    assert set(listing(tmp_path)) == named(tmp_path)


@LINKS
@pytest.mark.parametrize("committed", [True, False], ids=["other", "alone"])
def test_a_writer_whose_files_were_collected_refuses(
    writers: Writers, tmp_path: Path, links: bool, committed: bool
) -> None:
    a = writers.start(tmp_path, who="A", links=links, before=("commit", "path.parent.mkdir"), act="stop")
    if committed:
        assert won(writers.start(tmp_path, who="B", links=links))
    assert {p.parent.name for p in clean(tmp_path)} == {"rows", "maps"}
    end = writers.go(a)
    assert end.error == "WhylensError"
    assert "vanished before it was committed. Do not clean a run that is going." in end.text
    assert stands(tmp_path, 0) == ("B" if committed else None)
    assert set(listing(tmp_path)) == named(tmp_path)
    assert won(writers.start(tmp_path, who="C", links=links)) != committed


def test_a_writer_whose_record_was_collected_commits_nothing(writers: Writers, tmp_path: Path) -> None:
    a = writers.start(tmp_path, who="A", before=("_linked", "os.link("), act="stop")
    assert len(clean(tmp_path)) == 3
    assert writers.go(a).error == "FileNotFoundError"
    assert listing(tmp_path) == {}
    assert won(writers.start(tmp_path, who="B"))


def test_gc_after_the_link_takes_nothing_that_is_named(writers: Writers, tmp_path: Path) -> None:
    a = writers.start(tmp_path, who="A", before=("create_once", "temporary.unlink"), act="stop")
    assert stands(tmp_path, 0) == "A"
    assert [p.suffix for p in clean(tmp_path)] == [".tmp"]
    assert not won(writers.start(tmp_path, who="B"))
    assert won(writers.go(a))
    assert stands(tmp_path, 0) == "A"
    assert set(listing(tmp_path)) == named(tmp_path)


def test_gc_takes_nothing_that_is_committed_while_it_looks(
    writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks twice, at files and at records; what is committed between the two must not look like a leftover."""
    a = writers.start(tmp_path, who="A", before=BEFORE_RECORD, act="stop")
    ends: list[Said] = []

    def then_commit(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*given: Any) -> Any:
            found = look(*given)
            found = found if isinstance(found, dict) else list(found)
            if not ends:
                ends.append(writers.go(a))
            return found

        return looked

    for name in ("records", "data_files"):
        monkeypatch.setattr(rule, name, then_commit(getattr(rule, name)))
    left = list(leftovers(tmp_path, {"rows": ""}, SHARDS))
    assert won(ends[0])
    assert left == []
    assert stands(tmp_path, 0) == "A"


TORN = [("file.write(data)", 0), ("file.flush()", 0), ("os.fsync(", 1)]


@pytest.mark.parametrize(("line", "bytes_there"), TORN, ids=["empty", "in memory", "whole"])
def test_a_writer_that_sleeps_in_its_record_without_links(
    writers: Writers, tmp_path: Path, line: str, bytes_there: int
) -> None:
    """Created exclusively and stopped before it is filled: the next one waits, replaces it, and stands for good."""
    a = writers.start(tmp_path, who="A", links=False, before=("_fill", line), skip=3, act="stop")
    there = record_path(tmp_path, "", 0).stat().st_size
    assert (there > 0) == bool(bytes_there)
    assert stands(tmp_path, 0) == ("A" if bytes_there else None)
    before = listing(tmp_path)
    assert won(writers.start(tmp_path, who="B", links=False)) != bool(bytes_there)
    assert won(writers.go(a)) == bool(bytes_there)
    assert stands(tmp_path, 0) == ("A" if bytes_there else "B")
    assert set(listing(tmp_path)) == named(tmp_path)
    assert len(before) == 4


def test_a_record_that_is_filled_while_another_waits_stands(writers: Writers, tmp_path: Path) -> None:
    at: dict[str, Any] = {"links": False, "act": "stop"}
    a = writers.start(tmp_path, who="A", before=("_fill", "file.flush()"), skip=3, **at)
    b = writers.start(tmp_path, who="B", before=("_replaced_if_torn", "sleep("), skip=_files._PATIENCE - 2, **at)
    assert (a.state, b.state) == ("stopped", "stopped")
    assert won(writers.go(a))
    assert not won(writers.go(b))
    assert stands(tmp_path, 0) == "A"
    assert set(listing(tmp_path)) == named(tmp_path)


def test_two_that_replace_one_torn_record_leave_one_that_is_whole(writers: Writers, tmp_path: Path) -> None:
    at: dict[str, Any] = {"links": False, "before": ("_replaced_if_torn", "temporary.replace("), "act": "stop"}
    died(writers.start(tmp_path, who="A", links=False, before=("_fill", "file.flush()"), skip=3, act="kill"))
    b, c = (writers.start(tmp_path, who=who, **at) for who in "BC")
    assert won(writers.go(b))
    assert stands(tmp_path, 0) == "B"
    writers.go(c)
    assert stands(tmp_path, 0) in ("B", "C")
    clean(tmp_path)
    assert all_stand(tmp_path, 1)[0] in ("B", "C")
    assert set(listing(tmp_path)) == named(tmp_path)


@LINKS
def test_four_processes_race_over_30_shards(writers: Writers, tmp_path: Path, links: bool) -> None:
    racing = [writers.start(tmp_path, who=who, links=links, hold=True, patient=True, shards=30) for who in "ABCD"]
    assert {said.state for said in racing} == {"stopped"}
    for said in racing:
        writers.go(said, wait=False)
    for shard in range(30):
        stands(tmp_path, shard)  # whoever reads meanwhile sees whole commits
    results = [writers.join(said).result for said in racing]
    assert [sum(wins) for wins in zip(*results, strict=True)] == [1] * 30
    assert all_stand(tmp_path, 30) == ["ABCD"[list(wins).index(True)] for wins in zip(*results, strict=True)]
    assert set(listing(tmp_path)) == named(tmp_path)


# ---- a disk that refuses -------------------------------------------------------------------------------------------


class Disk:
    """Refuses the n-th call of one operation of the rule; half of a write arrives first."""

    def __init__(self, patch: pytest.MonkeyPatch, code: int) -> None:
        self.calls, self.refuse, self.code = dict.fromkeys(("mkdir", "open", "write", "fsync", "link"), 0), "", code
        self.at, self.refused = 0, 0
        fsync, link, mkdir, real = os.fsync, os.link, Path.mkdir, Path.open

        def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> IO[Any]:
            if "x" not in mode:
                return real(path, mode, *rest, **named)
            self.ask("open")
            file = real(path, mode, *rest, **named)
            write = file.raw.write  # type: ignore[attr-defined]

            class Short(io.RawIOBase):
                def writable(self) -> bool:
                    return True

                def fileno(self) -> int:
                    return file.fileno()

                def close(self) -> None:
                    file.close()

                def write(short, data: Any) -> int:  # noqa: N805
                    if self.would("write"):
                        write(bytes(data)[: len(data) // 2])
                    self.ask("write")
                    return int(write(data))

            return io.BufferedWriter(Short())

        patch.setattr(Path, "open", opened)
        patch.setattr(Path, "mkdir", lambda path, *a, **b: (self.ask("mkdir"), mkdir(path, *a, **b))[1])
        patch.setattr(os, "fsync", lambda handle: (self.ask("fsync"), fsync(handle))[1])
        patch.setattr(os, "link", lambda a, b: (self.ask("link"), link(a, b))[1])

    def would(self, what: str) -> bool:
        return self.refuse == what and self.calls[what] + 1 == self.at

    def ask(self, what: str) -> None:
        refuses = self.would(what)
        self.calls[what] += 1
        if refuses:
            self.refused += 1
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("what", ["mkdir", "open", "write", "fsync", "link"])
def test_a_disk_that_refuses_one_call_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    assert commit(tmp_path, "", 0, tables(0, "before"))
    kept = listing(tmp_path)
    refused = 0
    for at in range(1, 20):
        with monkeypatch.context() as patch:
            disk = Disk(patch, code)
            disk.refuse, disk.at = what, at
            with suppress(OSError):
                assert commit(tmp_path, "", 1, tables(1, "first"))
        if not disk.refused:
            break
        refused += 1
        if stands(tmp_path, 1) is None:
            assert listing(tmp_path) == kept
        else:  # a folder that cannot be synced is no reason to refuse
            assert what == "fsync"
            assert set(listing(tmp_path)) == named(tmp_path)
            record_path(tmp_path, "", 1).unlink()
            clean(tmp_path)
            assert listing(tmp_path) == kept
    assert refused == {"mkdir": 3, "open": 3, "write": 3, "fsync": 6, "link": 1}[what]
    assert all_stand(tmp_path, 2) == ["before", "first"]


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("what", ["open", "write", "fsync"])
def test_a_disk_that_refuses_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, at: int) -> None:
    """The record itself is filled in place then: what it leaves is no commit, or whole with all its files."""
    monkeypatch.setattr(_files.time, "sleep", lambda seconds: None)
    assert commit(tmp_path, "", 0, tables(0, "before"))
    kept = listing(tmp_path)
    with monkeypatch.context() as patch:
        disk = Disk(patch, errno.ENOSPC)
        disk.refuse, disk.at = what, {"fsync": 2 * at - 1 if at < 4 else 6}.get(what, at)
        patch.setattr(os, "link", refuses(errno.EPERM))
        with pytest.raises(OSError, match="No space"):
            commit(tmp_path, "", 1, tables(1, "first"))
    assert disk.refused == 1
    who = stands(tmp_path, 1)
    assert who == ("first" if (what, at) == ("fsync", 4) else None)
    left = {name: data for name, data in listing(tmp_path).items() if name not in named(tmp_path)}
    torn = record_path(tmp_path, "", 1).relative_to(tmp_path).as_posix()
    assert set(left) == ({torn} if (what, at) == ("write", 4) else set())
    assert kept.items() <= listing(tmp_path).items()
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuses(errno.EPERM))
        assert commit(tmp_path, "", 1, tables(1, "second")) == (who is None)
    assert all_stand(tmp_path, 2) == ["before", who or "second"]
    assert set(listing(tmp_path)) == named(tmp_path)


def refuses(code: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_disk_that_refuses_the_cleaning_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed stays for gc; the reason that comes up is the disk's."""
    with monkeypatch.context() as patch:
        disk = Disk(patch, errno.ENOSPC)
        disk.refuse, disk.at = "write", 2
        patch.setattr(Path, "unlink", refuses(errno.EROFS))
        with pytest.raises(OSError, match="No space"):
            commit(tmp_path, "", 0, tables(0, "A"))
    assert stands(tmp_path, 0) is None
    assert [name.partition("/")[0] for name in listing(tmp_path)] == ["maps", "rows"]
    assert len(clean(tmp_path)) == 2
    assert commit(tmp_path, "", 0, tables(0, "B"))
    assert all_stand(tmp_path, 1) == ["B"]


def test_a_committed_record_keeps_its_files_when_its_cleaning_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link stands, its temporary name cannot be removed: an error, but a commit."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuses(errno.EIO))
        with pytest.raises(OSError):
            commit(tmp_path, "", 0, tables(0, "A"))
    assert stands(tmp_path, 0) == "A"
    assert not commit(tmp_path, "", 0, tables(0, "B"))
    assert stands(tmp_path, 0) == "A"


def test_a_limit_on_the_size_of_files(writers: Writers, tmp_path: Path) -> None:
    """A real refusal by the system: the second table, or the record, is larger than a file may be."""
    assert won(writers.start(tmp_path, 0, "before"))
    kept = listing(tmp_path)
    wide = {"width": 60_000, "limit": 20_000}
    noted = {"notes": {"long": "x" * 60_000}, "limit": 20_000}
    for job in (wide, noted):
        for links in (True, False):
            said = writers.start(tmp_path, 1, "first", links=links, **job)
            assert (said.error, said.errno) == ("OSError", errno.EFBIG)
            assert listing(tmp_path) == kept
    for shard, job in ((1, wide), (2, noted)):
        assert won(writers.start(tmp_path, shard, "second", **{k: v for k, v in job.items() if k != "limit"}))
    assert all_stand(tmp_path, 3) == ["before", "second", "second"]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Writers, Path]]:
    """A file system of 400 kB and 40 files that goes with the process that mounted it."""
    place = tmp_path_factory.mktemp("small")
    mount = 'mount -t tmpfs -o size=400k,nr_inodes=40 tmpfs "$0" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(place)]
    try:
        tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=20)
    except OSError as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    if tried.returncode:
        pytest.skip(f"no file system may be mounted here: {tried.stderr.strip()}")
    server = Writers(prefix)
    yield server, Path(f"/proc/{server.server.pid}/root{place}")
    server.close()


@LINKS
@pytest.mark.parametrize("scarce", ["bytes", "files"])
def test_a_full_disk(small_disk: tuple[Writers, Path], scarce: str, links: bool) -> None:
    """A real one, with a little more room each time, until there is enough."""
    writers, seen = small_disk
    folder = Path(str(seen).partition("/root")[2]) / f"run-{scarce}-{links}"
    seen = seen / folder.name
    assert won(writers.start(folder, 0, "before", links=links))
    kept = listing(seen)
    refused = 0
    for free in range(40):
        ballast = seen.parent / "ballast"
        ballast.mkdir()
        fill(ballast, scarce, free)
        said = writers.start(folder, 1, "first", width=16_000, links=links)
        for path in (*ballast.iterdir(), ballast):
            path.rmdir() if path.is_dir() else path.unlink()
        assert kept.items() <= listing(seen).items()
        if not said.error:
            break
        refused += 1
        assert (said.error, said.errno) == ("OSError", errno.ENOSPC)
        assert stands(seen, 1) is None
        torn = set(listing(seen)) - named(seen)
        assert torn <= (set() if links else {record_path(seen, "", 1).relative_to(seen).as_posix()})
    assert won(said)
    assert refused >= 4
    assert all_stand(seen, 2) == ["before", "first"]
    assert set(listing(seen)) == named(seen)
    shutil.rmtree(seen)


def fill(ballast: Path, scarce: str, free: int) -> None:
    """Take all the room but so many pages, or so many names."""
    with suppress(OSError):
        if scarce == "bytes":
            with (ballast / "0").open("wb", buffering=0) as file:
                while True:
                    if not file.write(bytes(4096)):
                        break
        else:
            for k in range(100):
                (ballast / str(k)).touch()
    if scarce == "bytes":
        size = (ballast / "0").stat().st_size // 4096 * 4096
        os.truncate(ballast / "0", max(0, size - 4096 * free))
    else:
        for path in sorted(ballast.iterdir())[:free]:
            path.unlink()


def test_everything_is_on_disk_before_the_record_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill cannot show: files and folders flushed before the link, the record's folder after it."""
    done: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def noted(handle: int) -> None:
        done.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path))))
        fsync(handle)

    def linked(a: Path, b: Path) -> None:
        done.append(("link", str(a.relative_to(tmp_path))))
        link(a, b)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to see what is flushed")
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "link", linked)
    assert commit(tmp_path, "", 0, tables(0, "A"))
    rows, maps = (f.name for f in records(tmp_path, "", 1)[0].files)
    temporary = next(name for what, name in done if what == "link")
    assert done == [
        ("fsync", rows),
        ("fsync", "rows"),
        ("fsync", maps),
        ("fsync", "maps"),
        ("fsync", temporary),
        ("link", temporary),
        ("fsync", "commit/00000"),
    ]


# ---- leftovers -----------------------------------------------------------------------------------------------------

FOREIGN = [
    "notes.txt",
    "rows/readme.md",
    "rows/00000000.parquet",
    "rows/00000000-0123456789ab.parquet.bak",
    "rows/00000000-my-own-notes.parquet",
    "rows/7-experiment-1.parquet",
    "rows/other-0123456789ab.parquet",
    "rows/.hidden",
    "rows/deep/00000000-0123456789ab.parquet",
    "else/00000000-0123456789ab.parquet",
    "commit/00000/00000009.json",
    "commit/00000/notes.json",
    "derived/pca/table.tmp",
    "maps/.00000000.json.tmp",
]
LEFT = [
    "rows/00000000-0123456789ab.parquet",
    "rows/00000003-0123456789ab.parquet",
    "maps/00000003-ba9876543210.parquet",
    "maps/.00000003-ba9876543210.parquet.0123456789ab.tmp",
    "commit/00000/.00000003.json.0123456789ab.tmp",
    "plan/.part-00000.parquet.0123456789ab.tmp",
    "derived/pca/.table.parquet.0123456789ab.tmp",
    ".run.json.0123456789ab.tmp",
]


def scattered(folder: Path) -> dict[str, bytes]:
    """A run of three shards among foreign files and leftovers; gives what is committed."""
    for shard in range(3):
        assert commit(folder, "", shard, tables(shard, "A"))
    kept = listing(folder)
    for name in (*FOREIGN, *LEFT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return kept


def test_leftovers_are_what_no_record_names(tmp_path: Path) -> None:
    kept = scattered(tmp_path)
    found = [p.relative_to(tmp_path).as_posix() for p in leftovers(tmp_path, FAMILIES, SHARDS)]
    assert sorted(found) == sorted(LEFT)
    assert {p.relative_to(tmp_path).as_posix() for p in clean(tmp_path)} == set(LEFT)
    assert listing(tmp_path) == kept | dict.fromkeys(FOREIGN, b"x")
    assert all_stand(tmp_path, 3) == ["A"] * 3
    assert clean(tmp_path) == []


def test_gc_takes_only_what_is_older_than_asked(tmp_path: Path) -> None:
    scattered(tmp_path)
    for k, name in enumerate(sorted(LEFT)):
        os.utime(tmp_path / name, (0, 1000 - 100 * k))
    for path in tmp_path.rglob("*"):
        if path.relative_to(tmp_path).as_posix() not in LEFT and path.is_file():
            os.utime(path, (0, 0))
    removed = collect_garbage(tmp_path, FAMILIES, SHARDS, older=300, now=1000)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in removed) == sorted(LEFT)[4:]
    assert collect_garbage(tmp_path, FAMILIES, SHARDS, older=300, now=1000) == []
    assert [name for name in sorted(LEFT) if (tmp_path / name).exists()] == sorted(LEFT)[:4]
    assert all_stand(tmp_path, 3) == ["A"] * 3


def test_gc_of_a_run_with_two_parts(tmp_path: Path) -> None:
    """A family is held against the records of its own part."""
    assert commit(tmp_path, "", 0, tables(0, "A"))
    rows = tables(0, "B")["rows"]
    assert commit(tmp_path, "later", 0, {"scores.later": rows})
    families = {**FAMILIES, "scores.later": "later"}
    kept = listing(tmp_path)
    assert collect_garbage(tmp_path, families, SHARDS, older=0, now=later()) == []
    record_path(tmp_path, "later", 0).unlink()
    removed = collect_garbage(tmp_path, families, SHARDS, older=0, now=later())
    assert [p.parent.name for p in removed] == ["scores.later"]
    assert listing(tmp_path).items() <= kept.items()
    assert stands(tmp_path, 0) == "A"


def test_gc_says_what_it_cannot_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scattered(tmp_path)
    monkeypatch.setattr(Path, "unlink", refuses(errno.EACCES))
    with pytest.raises(InputError, match=r"gc: cannot remove '.*': Permission denied\."):
        clean(tmp_path)


def test_gc_of_what_another_gc_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scattered(tmp_path)
    unlink = Path.unlink

    def twice(path: Path, missing_ok: bool = False) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", twice)
    assert clean(tmp_path) == []
    assert all_stand(tmp_path, 3) == ["A"] * 3


# ---- records -------------------------------------------------------------------------------------------------------

RECORD = Record(
    12,
    "0123456789ab",
    (DataFile("rows", "rows/00000012-0123456789ab.parquet", 4, 1234, "ab" * 16, 99, "cd" * 16),),
    {"halved": 2, "words": 'ü "\\ \u2028 🐱', "share": 0.1, "none": None, "list": [True, -1, 1e300]},
)


def test_a_record_says_what_was_committed() -> None:
    assert Record.read(RECORD.to_bytes()) == RECORD
    said = json.loads(RECORD.to_bytes())
    seal = said.pop("xxh3_128")
    plain = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert seal == xxhash.xxh3_128(plain).hexdigest()
    assert said["format"] == 1
    assert RECORD.file("rows") == RECORD.files[0]
    assert RECORD.file("maps") is None


def test_every_flipped_bit_of_a_record_is_seen() -> None:
    data = RECORD.to_bytes()
    same = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        read = Record.read(bytes(changed))
        assert read is None or read == RECORD
        same += read is not None
    assert same < 8  # spellings of the same number


def test_a_record_cut_anywhere_is_none() -> None:
    data = RECORD.to_bytes()
    assert all(Record.read(data[:k]) is None for k in range(len(data)))
    assert all(Record.read(data[k:]) is None for k in range(1, len(data)))
    assert all(Record.read(data[:k] + bytes(len(data) - k)) is None for k in range(len(data)))
    assert Record.read(data + data) is None


@pytest.mark.parametrize("said", [{"format": 2}, {"xxh3_128": ""}, {"files": [{}]}, {"files": 3}, {"shard": "x"}])
def test_a_record_of_another_kind_is_none(said: dict[str, Any]) -> None:
    whole = {**json.loads(RECORD.to_bytes()), **said}
    if "xxh3_128" not in said:
        bare = {k: v for k, v in whole.items() if k != "xxh3_128"}
        plain = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        whole["xxh3_128"] = xxhash.xxh3_128(plain).hexdigest()
    assert Record.read(json.dumps(whole).encode()) is None


WORDS = st.text(st.characters(exclude_categories=()), max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
NOTES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))


@example({"name": "a\ud800.png", "numbers": {"9": 1, "10": 2}, "nan": float("nan")})
@settings(deadline=None)
@given(st.dictionaries(WORDS, NOTES, max_size=4))
def test_whatever_is_noted_a_record_can_be_read(notes: dict[str, Any]) -> None:
    read = Record.read(Record(3, "0123456789ab", (), notes).to_bytes())
    assert read is not None
    assert json.dumps(read.notes, sort_keys=True) == json.dumps(notes, sort_keys=True)


def test_notes_with_numbers_for_keys_can_be_read(tmp_path: Path) -> None:
    """JSON makes words of them, which sort in another order: the record must not be torn by its own checksum."""
    assert commit(tmp_path, "", 0, tables(0, "A"), {"halved": {9: 1, 10: 2}})
    assert records(tmp_path, "", 1)[0].notes == {"halved": {"9": 1, "10": 2}}


def test_records_are_those_of_this_part_whole_and_in_their_place(tmp_path: Path) -> None:
    for shard in (1001, 0, 7):
        assert commit(tmp_path, "", shard, tables(shard, "A"))
    assert commit(tmp_path, "later", 3, {"scores.later": tables(3, "A")["rows"]})
    data = record_path(tmp_path, "", 7).read_bytes()
    record_path(tmp_path, "", 8).write_bytes(data)  # a copy under another shard's name
    record_path(tmp_path, "", 9).write_bytes(data[:-1])
    (tmp_path / "commit" / "00000" / "notes.json").write_bytes(data)
    (tmp_path / "commit" / "00000" / ".00000007.json.0123456789ab.tmp").write_bytes(data)
    assert list(records(tmp_path, "", 2000)) == [0, 7, 1001]
    assert list(records(tmp_path, "", 1001)) == [0, 7]
    assert list(records(tmp_path, "later", 2000)) == [3]
    assert records(tmp_path, "none", 2000) == {}


@pytest.mark.parametrize("part", ["2024", "00000"])
def test_the_records_of_a_part_named_as_a_number_are_not_the_base_s(tmp_path: Path, part: str) -> None:
    assert commit(tmp_path, "", 0, tables(0, "A"))
    assert commit(tmp_path, part, 0, {f"scores.{part}": tables(0, "B")["rows"]})
    assert list(rule.record_files(tmp_path, "")) == [record_path(tmp_path, "", 0)]
    assert list(rule.record_files(tmp_path, part)) == [record_path(tmp_path, part, 0)]
    assert stands(tmp_path, 0) == "A"


def test_a_record_of_another_shard_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers do not take it for a commit, so a writer must not either."""
    monkeypatch.setattr(_files.time, "sleep", lambda seconds: None)
    assert commit(tmp_path, "", 7, tables(7, "A"))
    record_path(tmp_path, "", 8).write_bytes(record_path(tmp_path, "", 7).read_bytes())
    assert commit(tmp_path, "", 8, tables(8, "B"))
    assert (stands(tmp_path, 7), stands(tmp_path, 8)) == ("A", "B")


# ---- names ---------------------------------------------------------------------------------------------------------

PATHS = re.compile(r"(rows|maps)/\d{8}-[0-9a-f]{12}\.parquet|commit/\d{5}/\d{8}\.json")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=5))
def test_keys_live_in_columns_and_never_in_paths(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    folder = tmp_path_factory.mktemp("keys")
    odd = ["../../up", "/etc/passwd", "C:\\a\\b", "a\0b", "nul", "e\u0301", "\u202e", *keys]
    ids = pa.array(range(len(odd)), pa.int64())
    assert commit(folder, "", 0, {"rows": Table(pa.table({"image_id": ids, "key": pa.array(odd)}), 2)})
    assert all(PATHS.fullmatch(name) for name in listing(folder))
    name = records(folder, "", 1)[0].files[0].name
    assert read((folder / name).read_bytes()).column("key").to_pylist() == odd


def test_no_symbolic_link_is_ever_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "symlink", refuses(errno.EPERM))
    assert commit(tmp_path, "", 0, tables(0, "A"))
    assert not commit(tmp_path, "", 0, tables(0, "B"))
    clean(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_symlink()]
    source = Path(_files.__file__).parent
    assert not [p for p in source.rglob("*.py") if "symlink" in p.read_text("utf-8")]


def test_the_rule_needs_no_torch(writers: Writers) -> None:
    """So a writer that is forked for a kill is small, and `gc` starts at once."""
    assert "torch" not in writers.loaded
    assert {"whylens", "pyarrow"} <= set(writers.loaded)


def test_a_flipped_bit_in_a_table_is_seen_by_whoever_reads_its_pages() -> None:
    """Maps are read group by group, without the hash of the whole file: their pages carry checksums of their own."""
    table = tables(0, "A")["maps"]
    data = parquet_bytes(table)
    footer = int.from_bytes(data[-8:-4], "little") + 8
    seen = 0
    for place in range(4, len(data) - footer):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        try:
            assert read(bytes(changed)).equals(table.rows)
        except (pa.ArrowException, OSError):
            seen += 1
    assert seen > ROWS * 32  # every byte of every map


def test_two_attempts_never_share_a_name(tmp_path: Path) -> None:
    """Not even of one process, one shard and equal rows."""
    assert commit(tmp_path, "", 0, tables(0, "A"))
    first = records(tmp_path, "", 1)[0]
    record_path(tmp_path, "", 0).unlink()
    assert commit(tmp_path, "", 0, tables(0, "A"))
    second = records(tmp_path, "", 1)[0]
    assert first.attempt != second.attempt
    assert not {f.name for f in first.files} & {f.name for f in second.files}
    assert sha256((tmp_path / first.files[0].name).read_bytes()).digest() == (
        sha256((tmp_path / second.files[0].name).read_bytes()).digest()
    )
