"""Runs at size: one image's maps by id from 100,000 rows, all embeddings streamed, memory of a long audit.

    python benchmarks/run_scale.py [--rows 100000] [--images 20000] [--out benchmarks/run_scale.json]

The 100,000 rows are made up (six maps of 56 x 56, embeddings of 1,280) and written by the commit rule. Maps are asked
for by random id in an own process: the first touch of a file (opened, size and footer checked, page checksums on) and
again when it is open. The audit is of 20,000 photos of 64 x 64 by one worker; its resident memory is read every
half second.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

import whylens
from whylens.run import schema
from whylens.run.commit import Table, commit
from whylens.run.plan import Stored, write_images
from whylens.run.read import Run, open_run

HERE = Path(__file__).parent
DIM = 1280
METHODS = 6


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2)
        )
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x).relu().mean((2, 3)))
        return out


def small_run(folder: Path) -> Run:
    model = whylens.Model(Net().eval(), preprocess=whylens.Preprocess((64, 64)), layer="features")
    return whylens.audit(model, [np.zeros((64, 64, 3), np.uint8)] * 2, out=folder / "small", methods=["grad_cam"])


def large_run(folder: Path, rows: int) -> Run:
    """Made-up rows under a real plan."""
    plan = small_run(folder).plan
    one: Stored = plan.base.methods[0]
    methods = tuple(
        replace(one, label=f"m{k}", dim=DIM if k == 0 else 0, raw=(1, 56, 56), shape=(1, 56, 56))
        for k in range(METHODS)
    )
    base = replace(plan.base, methods=methods, keeps=tuple(m.label for m in methods))
    empty = {
        name: pa.nulls(rows, kind)
        for name, kind in (
            ("uri", pa.string()),
            ("label", pa.string()),
            ("label_index", pa.int32()),
            ("mask", pa.string()),
            ("content", pa.string()),
            ("target", pa.int32()),
        )
    }
    table = pa.table({"image_id": pa.array(range(rows)), "key": [f"class/{i}.jpg" for i in range(rows)], **empty})
    out = folder / "large"
    out.mkdir()
    plan = replace(plan, rows=rows, shard_rows=4096, base=base, parts=write_images(out, table, "made up rows"))
    (out / "run.json").write_bytes(plan.to_bytes())
    rng = np.random.default_rng(0)
    noise = rng.random((256, 56 * 56), np.float32)
    for shard in range(plan.shards):
        start, stop = plan.bounds(shard)
        n = stop - start
        values: dict[str, Any] = {f.name: pa.nulls(n, f.type) for f in schema.rows_schema(base)}
        values |= {"image_id": pa.array(range(start, stop)), "status": ["ok"] * n}
        values |= {f"scale.{m.label}": pa.array(rng.random(n, np.float32)) for m in methods}
        values["embedding.m0"] = schema.vectors(rng.random((n, DIM), np.float32), np.ones(n, np.bool_))
        maps: dict[str, Any] = {"image_id": values["image_id"]}
        for m in methods:
            raw = (noise[rng.integers(0, 256, n)] + noise[rng.integers(0, 256, n)]).astype("<f2")
            maps[f"map.{m.label}"] = pa.array([row.tobytes() for row in raw], pa.binary(56 * 56 * 2))
        tables = {
            "rows": Table(schema.table(schema.rows_schema(base), values), n),
            "maps": Table(schema.table(schema.maps_schema(base), maps), schema.MAPS_PER_GROUP),
        }
        commit(out, "", shard, tables)
        print("rows", stop, flush=True)
    return open_run(out)


def lookups(run: Run, count: int = 300) -> dict[str, Any]:
    """Milliseconds to one method's map, and to all six, of a random id."""
    rng = np.random.default_rng(1)
    shards = run.plan.shards
    first = []
    for shard in rng.permutation(shards):
        number = int(shard) * run.plan.shard_rows + int(rng.integers(0, 1000))
        began = time.perf_counter()
        run.maps("m0", [number])
        first.append(1000 * (time.perf_counter() - began))
    one, six = [], []
    for number in rng.integers(0, len(run), count):
        began = time.perf_counter()
        run.maps("m0", [int(number)])
        one.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        for label in run.labels:
            run.maps(label, [int(number)])
        six.append(1000 * (time.perf_counter() - began))

    def said(values: list[float]) -> dict[str, float]:
        ordered = sorted(values)
        return {"p50": round(statistics.median(ordered), 2), "p95": round(ordered[int(0.95 * len(ordered))], 2)}

    return {"first touch of a file": said(first), "one map": said(one), "all six maps": said(six)}


def streamed(run: Run) -> dict[str, Any]:
    began, count, total = time.perf_counter(), 0, 0.0
    for ids, vectors in run.embeddings("m0"):
        count += len(ids)
        total += float(vectors.sum())
    seconds = time.perf_counter() - began
    return {"vectors": count, "seconds": round(seconds, 2), "MB per second": round(count * DIM * 4 / 1e6 / seconds, 1)}


def memory_curve(folder: Path, count: int) -> dict[str, Any]:
    """Resident memory of a process that audits, by images done."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            folder / "photos" / f"{i}.png", compress_level=0
        )
    code = (
        "import sys, whylens; sys.path.insert(0, sys.argv[3]); from run_scale import Net\n"
        "model = whylens.Model(Net().eval(), preprocess=whylens.Preprocess((64, 64)), layer='features')\n"
        "whylens.audit(model, sys.argv[1], out=sys.argv[2], methods=['grad_cam', 'saliency'], workers=1)\n"
    )
    out = folder / "run"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, str(folder / "photos"), str(out), str(HERE)])
    curve: list[tuple[int, float]] = []
    over = threading.Event()

    def watch() -> None:
        rows = None
        while not over.wait(0.5):
            if rows is None and (out / "run.json").exists():
                rows = json.loads((out / "run.json").read_bytes())["shard_rows"]
            done = len(list((out / "commit").rglob("[0-9]*.json"))) * rows if rows else 0
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
            if held:
                curve.append((done, round(held[0] / 1024, 1)))

    thread = threading.Thread(target=watch)
    thread.start()
    process.wait()
    over.set()
    thread.join()
    assert process.returncode == 0
    going = [(d, m) for d, m in curve if d]
    tenth = [next(m for d, m in going if d >= share * count / 10) for share in range(1, 10)]
    return {
        "images": count,
        "seconds": round(time.perf_counter() - began, 1),
        "MB at each tenth": tenth,
        "largest over the first tenth": round(max(m for _, m in going) / tenth[0], 3),
        "curve": [going[k] for k in range(0, len(going), max(1, len(going) // 40))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=HERE / "run_scale.json")
    options = parser.parse_args()
    torch.set_num_threads(2)
    rev = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    said: dict[str, Any] = {
        "commit": rev.strip(),
        "machine": f"{platform.machine()}, 2 cores, torch {torch.__version__}",
    }
    with tempfile.TemporaryDirectory() as room:
        run = large_run(Path(room), options.rows)
        said |= {"rows": options.rows, "milliseconds to maps by id": lookups(run), "embeddings": streamed(run)}
        checked = time.perf_counter()
        assert run.verify().ok
        said["seconds to verify"] = round(time.perf_counter() - checked, 1)
        said["MB on disk"] = round(sum(p.stat().st_size for p in run.folder.rglob("*") if p.is_file()) / 1e6)
    with tempfile.TemporaryDirectory() as room:
        said["memory"] = memory_curve(Path(room), options.images)
    options.out.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    print(json.dumps({k: v for k, v in said.items() if k != "memory"}, indent=1))
    print({k: v for k, v in said["memory"].items() if k != "curve"})


if __name__ == "__main__":
    main()
