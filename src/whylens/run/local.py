"""Local engine: one worker in this process, or several processes that are told shard numbers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..contract import Method, Metric
from ..errors import InputError, WhylensError, no_such
from ..explain import jobs_for
from ..images import Images
from ..model import Model
from .plan import Measured, Part, Plan, Stored, additions, read_images
from .reopen import open_again
from .shard import Told, Worker, decoders

log = logging.getLogger("whylens")

TRIES = 3
"""Workers that may die on one shard before the run gives up."""


def ready(
    folder: Path,
    plan: Plan,
    part: str,
    *,
    workers: int = 1,
    model: Model | None = None,
    images: Images | None = None,
    methods: Sequence[Method] | None = None,
    metrics: Sequence[Metric] | None = None,
    target: Any = None,
) -> Worker:
    """A worker of one part of a run; what is not given is opened again as the plan says."""
    parts = {p.name: p for p in (plan.base, *additions(folder))}
    if part not in parts:
        raise no_such("part", part, list(parts), f"'{folder}' has {len(parts)} parts.")
    own = parts[part]
    model = model or open_again(plan.model)
    if methods is None:
        methods = [method_of(m) for m in own.methods]
    if metrics is None:
        metrics = [metric_of(m) for m in own.metrics]
    target = plan.settings["target"] if target is None else target
    if target == PER_IMAGE:
        target = read_images(folder, plan, columns=["target"]).column("target").to_pylist()
    jobs = jobs_for(model, methods, target=target, count=plan.rows, seed=plan.settings["seed"])
    for job, stored in zip(jobs, own.methods, strict=True):
        job.features = stored.features if stored.label in own.keeps else None
    return Worker(folder, plan, own, model, jobs, metrics, images, decoders(workers))


PER_IMAGE = {"per image": True}
"""How a plan says that its targets stand in the image list."""


def method_of(stored: Stored) -> Method:
    """The request that a stored method was."""
    return Method(
        stored.method,
        layer=stored.asked_layer,
        target=stored.target,
        params=stored.params or None,
        label=stored.label,
    )


def metric_of(measured: Measured) -> Metric:
    """The request that a stored metric was."""
    return Metric(measured.metric, params=measured.params or None, label=measured.key)


def inline(worker: Worker, todo: Sequence[int], told: Told) -> None:
    """All shards in this process."""
    for shard in todo:
        worker.run(shard, told)


def pool(folder: Path, part: Part, plan: Plan, todo: Sequence[int], workers: int, told: Told) -> None:
    """All shards by so many processes; one that dies is replaced, and its shard done again."""
    engine = _Pool(folder, part, plan, deque(todo), workers)
    try:
        engine.run(told)
    finally:
        engine.close()


class _Pool:
    """Processes, each with a thread here that tells it shards and hears its answers."""

    def __init__(self, folder: Path, part: Part, plan: Plan, todo: deque[int], workers: int) -> None:
        self.folder, self.part, self.plan, self.todo, self.workers = folder, part, plan, todo, workers
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.deaths: Counter[int] = Counter()
        self.alive: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()
        self.closed = False

    def run(self, told: Told) -> None:
        """Until every shard is done; what fails for good is raised."""
        left = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.workers)]
        for thread in left:
            thread.start()
        served = len(left)
        while served:
            kind, value = self.events.get()
            if kind == "done":
                told(value)
            elif kind == "failed":
                raise value
            else:
                served -= 1

    def close(self) -> None:
        """End the processes that are still there, by pid."""
        with self.lock:
            self.closed = True
            running = list(self.alive)
        for process in running:
            process.kill()
            process.wait()

    def _serve(self) -> None:
        try:
            while self.todo and not self.closed:
                self._one_process()
        except BaseException as error:  # handed to the thread that waits
            self.events.put(("failed", error))
        self.events.put(("over", None))

    def _one_process(self) -> None:
        """Shards for one process until none is left or it dies."""
        shard: int | None = None
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said, self._process(said) as process:
            answers = iter(process.stdout or ())
            if self._answer(answers, None) is None:
                self._died(process, said, None, 0)
                return
            while True:
                try:
                    shard = self.todo.popleft()
                except IndexError:
                    return
                told = [0]
                if self._tell(process, shard) and self._answer(answers, told) is not None:
                    continue
                self._died(process, said, shard, told[0])
                return

    @contextmanager
    def _process(self, said: Any) -> Iterator[subprocess.Popen[str]]:
        own = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONIOENCODING": "utf-8"}
        own |= {"OMP_NUM_THREADS": str(self.plan.settings["threads"])}
        with self.lock:
            if self.closed:
                raise InputError("The run was ended.")
            process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, "-m", __package__ + ".worker", str(self.folder), self.part.name, str(self.workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
                env=os.environ | own,
            )
            self.alive.add(process)
        try:
            yield process
        finally:
            with contextlib.suppress(OSError):
                (process.stdin or said).close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            (process.stdout or said).close()
            with self.lock:
                self.alive.discard(process)

    def _tell(self, process: subprocess.Popen[str], shard: int) -> bool:
        try:
            if process.stdin is not None:
                process.stdin.write(f"{shard}\n")
                process.stdin.flush()
        except OSError:
            return False
        return True

    def _answer(self, answers: Iterator[str], told: list[int] | None) -> dict[str, Any] | None:
        """The answer that ends a shard, progress passed on; None when the process died."""
        for line in answers:
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                log.info("A worker said:\n%s", said["traceback"])
                if said["code"] is not None and said["known"]:
                    raise OSError(said["code"], said["error"])
                raise WhylensError(said["error"] if said["known"] else f"A worker failed: {said['error']}")
            if "done" in said and told is not None:
                told[0] += said["done"]
                self.events.put(("done", said["done"]))
                continue
            return said
        return None

    def _died(self, process: subprocess.Popen[str], said: Any, shard: int | None, told: int) -> None:
        """Give the shard back, unless too many died on it."""
        process.wait()
        key = -1 if shard is None else shard
        with self.lock:
            self.deaths[key] += 1
        self.events.put(("done", -told))
        if self.closed:
            return
        if self.deaths[key] >= TRIES:
            said.seek(0)
            last = "".join(said.readlines()[-5:]).strip()
            where = "before it began" if shard is None else f"on images {self.plan.bounds(shard)[0]} and following"
            raise WhylensError(
                f"A worker died {TRIES} times {where} (exit code {process.returncode}). What is committed is kept; "
                f"--workers 1 shows where. It said: {last or 'nothing'}"
            )
        log.warning("A worker died (exit code %s); another one takes over.", process.returncode)
        if shard is not None:
            self.todo.append(shard)
