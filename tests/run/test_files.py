"""Files: whole or not at all, the first of many writers, names that every system takes."""

from __future__ import annotations

import errno
import os
import re
import string
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from writers import Said, Writers

from whylens import InputError, _files
from whylens._files import create_once, file_name, is_leftover, prepare_folder, sync_folder, write_atomic, write_new

LINKS = pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    server = Writers()
    yield server
    server.close()


def refuses(code: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def ended(data: bytes) -> bool:
    """What `create_once` is told a whole file is."""
    return data.endswith(b">")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---- created once --------------------------------------------------------------------------------------------------


@LINKS
def test_of_six_processes_one_creates_a_file(writers: Writers, tmp_path: Path, links: bool) -> None:
    racing = [
        writers.start(tmp_path, who=who, make="f", shards=40, links=links, hold=True, patient=True) for who in "ABCDEF"
    ]
    for said in racing:
        writers.go(said, wait=False)
    results = [writers.join(said).result for said in racing]
    for k, first in enumerate(zip(*results, strict=True)):
        assert sum(first) == 1
        assert (tmp_path / f"f-{k}").read_text() == f"<{'ABCDEF'[first.index(True)]}>" * 40
    assert len(names(tmp_path)) == 40


@LINKS
@pytest.mark.parametrize("order", ["AB", "BA"])
def test_the_first_of_two_in_forced_order(writers: Writers, tmp_path: Path, links: bool, order: str) -> None:
    at: dict[str, Any] = {"make": "f", "links": links, "before": ("_linked", "os.link("), "act": "stop"}
    stopped: dict[str, Said] = {who: writers.start(tmp_path, who=who, **at) for who in "AB"}
    assert [writers.go(stopped[who]).result for who in order] == [[True], [False]]
    assert (tmp_path / "f-0").read_text() == f"<{order[0]}>" * 40
    assert names(tmp_path) == ["f-0"]


@pytest.mark.parametrize("code", sorted(_files._NO_LINKS), ids=errno.errorcode.get)
def test_where_there_are_no_links_a_file_is_created_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", refuses(code))
    assert create_once(tmp_path / "f", b"<a>", whole=ended)
    assert not create_once(tmp_path / "f", b"<b>", whole=ended)
    assert (tmp_path / "f").read_bytes() == b"<a>"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_link_that_the_disk_refuses_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuses(code))
        with pytest.raises(OSError, match=re.escape(os.strerror(code))):
            create_once(tmp_path / "f", b"<a>", whole=ended)
    assert names(tmp_path) == []
    assert create_once(tmp_path / "f", b"<b>", whole=ended)


@LINKS
@pytest.mark.parametrize("torn", [b"", b"<", b"<a"])
def test_a_torn_file_is_waited_for_and_then_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, torn: bytes
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(_files.time, "sleep", waited.append)
    if not links:
        monkeypatch.setattr(os, "link", refuses(errno.EPERM))
    (tmp_path / "f").write_bytes(torn)
    assert create_once(tmp_path / "f", b"<b>", whole=ended)
    assert (tmp_path / "f").read_bytes() == b"<b>"
    assert sum(waited) >= 1  # a writer on a slow disk is given a second
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("look", range(_files._PATIENCE))
def test_a_file_that_is_filled_while_it_is_waited_for_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """Also in the last wait: the last look is right before the replacement."""
    waits = iter(range(100))
    monkeypatch.setattr(
        _files.time, "sleep", lambda seconds: (tmp_path / "f").write_bytes(b"<a>") if next(waits) == look else None
    )
    (tmp_path / "f").write_bytes(b"<")
    assert not create_once(tmp_path / "f", b"<b>", whole=ended)
    assert (tmp_path / "f").read_bytes() == b"<a>"


def test_what_is_whole_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files.time, "sleep", refuses(errno.EINVAL))
    (tmp_path / "f").write_bytes(b"<a>")
    assert not create_once(tmp_path / "f", b"<b>", whole=ended)


# ---- whole or not at all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"old", None], ids=["there", "new"])
@pytest.mark.parametrize("what", ["write", "fsync", "replace", "open"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, before: bytes | None
) -> None:
    path = tmp_path / "f"
    if before is not None:
        path.write_bytes(before)
    held = names(tmp_path)
    with monkeypatch.context() as patch:
        if what == "write":
            patch.setattr(_files, "_fill", half_and_fail)
        elif what == "fsync":
            patch.setattr(os, "fsync", refuses(errno.ENOSPC))
        else:
            patch.setattr(Path, what, refuses(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new" * 10_000)
    assert names(tmp_path) == held
    assert before is None or path.read_bytes() == before
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["f"]


def half_and_fail(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new(writers: Writers, tmp_path: Path) -> None:
    old, new = "old" * 1000, "new" * 1000
    (tmp_path / "f").write_text(old)
    steps = writers.start(tmp_path, write="g", text=new, count=True).steps
    found = []
    for step in range(1, len(steps) + 1):
        assert writers.start(tmp_path, write="f", text=new, step=step, act="kill").signal == 9
        found.append((tmp_path / "f").read_text())
        (tmp_path / "f").write_text(old)
    assert writers.start(tmp_path, write="f", text=new, half=(1, 0.5)).signal == 9
    assert (tmp_path / "f").read_text() == old
    last = found.index(new)
    assert steps[last - 1] == "write_atomic: temporary.replace(path)"
    assert found == [old] * last + [new] * (len(steps) - last)
    assert {is_leftover(name) for name in names(tmp_path) if name not in "fg"} == {True}


def test_a_new_file_is_new_and_goes_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_new(tmp_path / "f", b"a")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "f", b"b")
    assert (tmp_path / "f").read_bytes() == b"a"
    monkeypatch.setattr(os, "fsync", refuses(errno.EIO))
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))):
        write_new(tmp_path / "g", b"b")
    assert names(tmp_path) == ["f"]


def test_a_new_file_is_flushed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    write_atomic(tmp_path / "f", b"a")
    assert done == ["fsync", "replace", "fsync"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path) -> None:
    sync_folder(tmp_path / "none")
    sync_folder(tmp_path)


# ---- a folder tried ------------------------------------------------------------------------------------------------


def test_a_folder_is_made_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "a" / "b" / "f").write_bytes(b"a")
    prepare_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["f"]


def test_two_that_try_one_folder_do_not_meet(writers: Writers, tmp_path: Path) -> None:
    """Ranks of one job begin at one time in one folder: neither takes the other's trial for a closed door."""
    at: dict[str, Any] = {"prepare": True, "before": ("prepare_folder", "unlink("), "act": "stop"}
    a, b = writers.start(tmp_path / "run", **at), writers.start(tmp_path / "run", **at)
    assert (a.state, b.state) == ("stopped", "stopped")
    assert all(is_leftover(name) for name in names(tmp_path / "run"))  # so that a kill leaves nothing strange
    ends = [writers.go(a), writers.go(b)]
    assert [(said.result, said.error) for said in ends] == [(True, "")] * 2
    assert names(tmp_path / "run") == []


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"a")
    with pytest.raises(InputError, match=r"Cannot write to '.*f': File exists\. Give another --out\."):
        prepare_folder(tmp_path / "f")
    monkeypatch.setattr(Path, "write_bytes", refuses(errno.EROFS))
    with pytest.raises(InputError, match="Read-only file system"):
        prepare_folder(tmp_path)


# ---- names ---------------------------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=()))
NEAR = st.text("aA/\\_. -:é\u0301", max_size=5)  # texts that are made the same by cutting and replacing
DEVICES = ["con", "NUL", "aux.txt", "prn.tar.gz", *(f"{d}{n}" for d, n in product(("COM", "lpt"), "09"))]
ODD = ["", ".", "..", "/", "\0", "a/b", "a\\b", "C:\\a", "~", "a ", "a.", " a", ".a", "\ud800", "\u202e", "🐱"]


def check_name(name: str) -> None:
    assert name
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert all(c.isalnum() or c in "_.-=" for c in name)
    assert name[0] != "."
    assert name[-1] not in ". "
    assert len(name.encode()) <= 140
    assert name.partition(".")[0].upper() not in {
        *("CON", "PRN", "AUX", "NUL"),
        *(f"{d}{n}" for d, n in product(("COM", "LPT"), string.digits + "¹²³")),
    }


@example("é" * 59 + "/")
@settings(deadline=None)
@given(ANY | NEAR | st.text(min_size=100, max_size=300))
def test_a_file_name_is_one_for_every_system(text: str) -> None:
    check_name(file_name(text))
    assert file_name(text) == file_name(text)


@pytest.mark.parametrize("text", [*ODD, *DEVICES], ids=ascii)
def test_odd_texts_have_names(tmp_path: Path, text: str) -> None:
    check_name(file_name(text))
    assert file_name(text) != text
    (tmp_path / file_name(text)).write_bytes(b"")
    assert names(tmp_path) == [file_name(text)]


@pytest.mark.parametrize("text", ["grad_cam", "a.b", "Größe", "a=1", "IMG-20240101", "con1", "nulls.png", "猫"])
def test_plain_texts_are_their_own_names(text: str) -> None:
    assert file_name(text) == text


@settings(deadline=None)
@given(st.lists(NEAR | ANY, max_size=30, unique=True))
def test_different_texts_have_different_names(texts: list[str]) -> None:
    assert len({file_name(text) for text in texts}) == len(texts)


def test_texts_that_differ_behind_the_cut_have_different_names() -> None:
    """20,000 images deep in one folder; six digits would make some ten of them one file."""
    texts = [f"{'deep-' * 30}{k}" for k in range(20_000)]
    assert len({file_name(text) for text in texts}) == len(texts)
    assert len({file_name(text) for text in [*ODD, *DEVICES]}) == len([*ODD, *DEVICES])


def test_leftovers_are_known_by_name(tmp_path: Path) -> None:
    assert is_leftover(_files._beside(tmp_path / "f.json").name)
    for name in ("f.tmp", ".f.tmp", ".f.json", "f.0123456789ab.tmp", ".f.0123456789AB.tmp", ".f.0123456789ab.tmp.gz"):
        assert not is_leftover(name)
