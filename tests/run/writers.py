"""Writers that can be stopped, killed or made to fail before any line of the commit rule.

Run as a script it is a server that loads pyarrow and the rule, and no torch, and forks one process per job; `Writers`
is its client. A step is a line, or a return, of the rule's two files; a child counts its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import linecache
import os
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType, SimpleNamespace
from typing import IO, Any, NoReturn

import pyarrow as pa

from whylens import _files
from whylens.run import commit as rule

RULE = {_files.__file__, rule.__file__}
ROWS = 4


def tables(shard: int, who: str, *, rows: int = ROWS, width: int = 32) -> dict[str, rule.Table]:
    """What `who` writes for a shard: the rows that belong there, in values that tell one writer from another."""
    ids = list(range(shard * rows, (shard + 1) * rows))
    number = pa.array(ids, pa.int64())
    maps = [Random(f"{who} {i}").randbytes(width) for i in ids]
    held = {"image_id": number, "key": pa.array([f"a/{i}\\ü.png" for i in ids]), "who": pa.array([who] * rows)}
    return {
        "rows": rule.Table(pa.table(held), rows),
        "maps": rule.Table(pa.table({"image_id": number, "map": pa.array(maps, pa.binary(width))}), 2),
    }


# ---- the client ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """How a job stands: `state` is started, stopped, killed, done or "ended before"; done has a result or an error."""

    job: int
    state: str
    signal: int = 0
    place: str = ""
    result: Any = None
    error: str = ""
    errno: int | None = None
    text: str = ""
    steps: Sequence[str] = ()


class Writers:
    """The server, as seen from a test."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self.server = subprocess.Popen(
            [*prefix, sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.loaded: list[str] = self._read()["loaded"]

    def start(self, folder: Path, shard: int = 0, who: str = "A", **job: Any) -> Said:
        """Begin a job; unless `wait` is False, until it stops or ends. See `_child` for what a job may be."""
        return self._ask(do="start", job={"folder": str(folder), "shard": shard, "who": who, **job})

    def go(self, said: Said, *, wait: bool = True) -> Said:
        """Let a stopped one go on, until it stops again or ends."""
        return self._ask(do="go", id=said.job, wait=wait)

    def join(self, said: Said) -> Said:
        """Wait for one."""
        return self._ask(do="join", id=said.job)

    def close(self) -> None:
        """End the server and what it left running."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(20)
        self.server.stdout.close()

    def _ask(self, **question: Any) -> Said:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        return Said(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of writers ended with {self.server.wait(20)}")
        said: dict[str, Any] = json.loads(line)
        return said


# ---- the server ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child per job; questions and answers are lines of JSON."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    sys.meta_path.insert(0, _NoPandas())
    for file in RULE:
        linecache.getlines(file)
    gc.collect()
    gc.freeze()  # a child that collects would copy every page of its parent
    gc.disable()
    pipes: dict[int, int] = {}
    print(json.dumps({"loaded": sorted(m for m in sys.modules if "." not in m)}), flush=True)
    try:
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line), pipes)), flush=True)
    finally:
        for child in pipes:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class _NoPandas:
    """Where pandas is installed pyarrow imports it for the first list it converts: in every child anew."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _answer(question: Mapping[str, Any], pipes: dict[int, int]) -> dict[str, Any]:
    wait = question.get("wait", True)
    if question["do"] == "start":
        wait = question["job"].get("wait", True)
        child, pipe = _fork(question["job"])
        pipes[child] = pipe
    else:
        child = question["id"]
        if child not in pipes:
            return {"job": child, "state": "ended before"}
        if question["do"] == "go":
            os.kill(child, signal.SIGCONT)
    return _wait(child, pipes) if wait else {"job": child, "state": "started"}


def _fork(job: Mapping[str, Any]) -> tuple[int, int]:
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for end in (0, 1):  # a child that outlives the server must not keep its client waiting
            os.dup2(nowhere, end)
        _child(job, outlet)
    os.close(outlet)
    fcntl.fcntl(inlet, fcntl.F_SETFL, os.O_NONBLOCK)
    return child, inlet


def _wait(child: int, pipes: dict[int, int]) -> dict[str, Any]:
    _, status = os.waitpid(child, os.WUNTRACED)
    held = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(pipes[child], 1 << 16):
            held += more
    said: dict[str, Any] = {"job": child}
    for line in held.splitlines():
        said |= json.loads(line)
    if os.WIFSTOPPED(status):
        return {**said, "state": "stopped"}
    os.close(pipes.pop(child))
    if os.WIFSIGNALED(status):
        return {**said, "state": "killed", "signal": os.WTERMSIG(status)}
    if status:
        raise RuntimeError(f"a writer ended with {status}: {said}")
    return {**said, "state": "done"}


# ---- a child -------------------------------------------------------------------------------------------------------


def _child(job: Mapping[str, Any], outlet: int) -> NoReturn:
    """Do a job and say how it ended.

    links: whether there are hard links.  patient: whether to sleep between two looks at a torn file.  looks: how many.
    step, act: what to do before the n-th step: kill, stop, or the name of an exception.  count: tell all steps.
    before, act: the same at a step given by function, a piece of its line, and how many times it was passed before.
    half: number of a file that is written, and how many of its bytes until the kill.  limit: bytes a file may have.
    hold: stop before anything.  shards: commit so many.
    Instead of a commit: make: a file to create once, or `shards` of them.  write, text: a file to write.  prepare.
    """
    signal.alarm(60)

    def tell(**said: Any) -> None:
        os.write(outlet, json.dumps(said).encode() + b"\n")

    try:
        if not job.get("links", True):
            os.link = no_links
        if not job.get("patient", False):
            _files.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[assignment]
        _files._PATIENCE = job.get("looks", _files._PATIENCE)
        if "half" in job:
            _kill_while_writing(*job["half"])
        if "limit" in job:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], resource.RLIM_INFINITY))
        if job.get("hold"):
            os.kill(os.getpid(), signal.SIGSTOP)
        work = _work(job)
        steps = Steps(tell, job)
        if {"step", "before", "count"} & set(job):
            sys.settrace(steps)
        try:
            tell(result=work())
        finally:
            sys.settrace(None)
        if "count" in job:
            tell(steps=steps.passed)
    except BaseException as error:
        tell(error=type(error).__name__, errno=getattr(error, "errno", None), text=str(error))
    os._exit(0)


def _work(job: Mapping[str, Any]) -> Callable[[], Any]:
    folder, shard, who = Path(job["folder"]), job["shard"], job["who"]
    if "write" in job:
        return lambda: _files.write_atomic(folder / job["write"], job["text"].encode())
    if "prepare" in job:
        return lambda: bool(_files.prepare_folder(folder))
    if "make" in job:
        text = f"<{who}>" * 40
        names = [folder / f"{job['make']}-{k}" for k in range(job.get("shards", 1))]
        return lambda: [_files.create_once(n, text.encode(), whole=lambda d: d.endswith(b">")) for n in names]
    if "shards" in job:
        given = [tables(k, who) for k in range(job["shards"])]
        return lambda: [rule.commit(folder, "", k, made) for k, made in enumerate(given)]
    made = tables(shard, who, width=job.get("width", 32))
    return lambda: rule.commit(folder, "", shard, made, job.get("notes"))


class Steps:
    """A trace function that counts the steps of the rule, acts before one of them, and tells which that was."""

    def __init__(self, tell: Callable[..., None], job: Mapping[str, Any]) -> None:
        self.tell, self.act = tell, job.get("act", "")
        self.step = job.get("step", 0)
        self.before = tuple(job.get("before", ()))
        self.skip = job.get("skip", 0)
        self.passed: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Steps | None:
        if frame.f_code.co_filename not in RULE:
            return None
        if event in ("line", "return"):
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            self.passed.append(f"{frame.f_code.co_name}: {line}" + (" (return)" if event == "return" else ""))
            if len(self.passed) == self.step or (event == "line" and self._there(frame, line)):
                self._do()
        return self

    def _there(self, frame: FrameType, line: str) -> bool:
        if not self.before or frame.f_code.co_name != self.before[0] or self.before[1] not in line:
            return False
        self.skip -= 1
        return bool(self.skip < 0)

    def _do(self) -> None:
        self.before = ()
        self.tell(place=self.passed[-1])
        if self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.act == "KeyboardInterrupt":
            raise KeyboardInterrupt
        else:
            raise OSError(getattr(errno, self.act), os.strerror(getattr(errno, self.act)))


def no_links(*_: Any) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _kill_while_writing(number: int, share: float) -> None:
    """SIGKILL when that share of the bytes of the n-th new file is in the file: 0 none, 1 all."""
    opened: list[None] = []
    real = pathlib.Path.open

    def halved(self: Path, mode: str = "r", *rest: Any, **named: Any) -> IO[Any]:
        file = real(self, mode, *rest, **named)
        if "x" in mode:
            opened.append(None)
            if len(opened) == number:
                return _Halved(file, share)  # type: ignore[return-value]
        return file

    pathlib.Path.open = halved  # type: ignore[assignment,method-assign]


class _Halved:
    def __init__(self, file: IO[Any], share: float) -> None:
        self.file, self.share = file, share

    def __enter__(self) -> _Halved:
        return self

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("it was to be killed")

    def write(self, data: bytes) -> None:
        os.write(self.file.fileno(), data[: round(len(data) * self.share)])
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
