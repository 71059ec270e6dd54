"""What `cutouts.py` has done so far and how long the rest will take."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutouts_scenes import Scene

import whylens


@dataclass
class Results:
    """Rows of the results file; a row is one method on a few scenes, or the reason why it failed there."""

    file: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> Results:
        data = file.read_bytes() if file.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # stopped while it wrote the last row
            file.write_bytes(whole)
        return cls(file, [json.loads(line) for line in whole.splitlines()])

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")

    def current(self, request: whylens.Method) -> Iterator[dict[str, Any]]:
        """The rows of a request as its code stands."""
        code = digest(request)
        return (row for row in self.rows if row["label"] == request.key and row["code"] == code)

    def missing(self, request: whylens.Method, scenes: Sequence[Scene], metrics: Sequence[str]) -> list[Scene]:
        """The scenes that lack one of the metrics."""
        rows = [row for row in self.current(request) if "failed" not in row]
        known = {(name, metric) for row in rows for metric in row["values"] for name in row["ids"]}
        return [scene for scene in scenes if any((scene.id, metric) not in known for metric in metrics)]


@dataclass
class Clock:
    """How long pieces took, what is left, and when to stop."""

    deadline: float
    total: int
    began: float = field(default_factory=time.perf_counter)
    done: int = 0
    taken: dict[str, float] = field(default_factory=dict)  # seconds of a label's last piece

    def fits(self, label: str) -> bool:
        """Whether a piece as long as the label's last one ends in time."""
        return time.perf_counter() + self.taken.get(label, 0.0) < self.deadline

    def tick(self, label: str, seconds: float, waiting: Mapping[str, int]) -> None:
        """Count a piece; `waiting` are the pieces left by label."""
        self.taken[label] = seconds
        self.done += 1
        typical = sum(self.taken.values()) / len(self.taken)
        left = sum(count * self.taken.get(other, typical) for other, count in waiting.items())
        rate = 60 * self.done / (time.perf_counter() - self.began)
        print(
            f"{self.done}/{self.total} pieces, {rate:.1f} a minute, {left / 60:.0f} min left; {label}: {seconds:.1f} s",
            file=sys.stderr,
        )


def digest(request: whylens.Method) -> str:
    """Of the method's own code; its results are computed again when it changes."""
    function = request.function
    text = (
        Path(inspect.getfile(function)).read_text("utf-8")
        if isinstance(request.name, str)
        else inspect.getsource(function)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]
