"""Grouping at size: seconds and peak memory of `whylens.group` by stage, and how well landmarks place the rest.

    python benchmarks/group_scale.py [--points 100000] [--threads 2] [--work FOLDER] [--out FILE]

A run of so many rows is made up and written by the run's own commit rule, with the regions of its one method: vectors
of 1,280, as of a ReLU, around planted middles, one to four per predicted class, a twentieth of them around none. What
is timed is what a user runs: `whylens.group(run, tests=0)` in a fresh process, from the files on disk to the version on
disk. Interventions are left out: they need the model and do not grow with the rows. Each case is a process of its own,
whose largest resident size is its peak. `--work` keeps the runs.

Placing: as many landmarks as asked are laid out and the rest placed; beside it everything is laid out. Overlap is the
share of a point's 15 nearest neighbours in PCA space that are among its 15 nearest in the picture, on 2,000 points.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from run_scale import DIM, small_run
from side_by_side import HERE, written

import whylens
from whylens.groups import cluster, evidence, project
from whylens.run import schema
from whylens.run.commit import Table, commit
from whylens.run.plan import write_images
from whylens.run.read import open_run

LABEL = "grad_cam"
JUDGED, NEIGHBOURS = 2000, 15
CASES = {
    "100 classes": (100, "class"),
    "10 classes": (10, "class"),
    "whole set": (100, "set"),
}
"""By name: how many predicted classes there are, and what is grouped together."""


# ---- a run ----------------------------------------------------------------------------------------------


def middles(classes: int) -> list[np.ndarray]:
    """By class, the middles of its one to four reasons ``(r, DIM)``: what the class shares, and what each adds."""
    rng = np.random.default_rng([7, classes])
    return [rng.standard_normal(DIM) + rng.standard_normal((1 + k % 4, DIM)) for k in range(classes)]


def drawn(classes: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, reason (-1: none) and vector of so many points."""
    rng, known = np.random.default_rng([11, classes, start]), middles(classes)
    of_class = rng.integers(0, classes, stop - start)
    reason = np.array([min(int(rng.exponential(1.0)), len(known[c]) - 1) for c in of_class])
    centre = np.stack([known[c][r] for c, r in zip(of_class, reason, strict=True)])
    lost = rng.random(stop - start) < 0.05
    centre[lost] = rng.standard_normal((int(lost.sum()), DIM)) * 1.4
    found = np.maximum(centre + 0.8 * rng.standard_normal(centre.shape), 0).astype(np.float32)
    return of_class, np.where(lost, -1, reason), found


def made_up(folder: Path, count: int, classes: int) -> Path:
    """A run of so many rows, one region each, under a real plan."""
    out = folder / f"run-{count}-{classes}"
    if (out / "done").exists():
        return out
    plan = small_run(folder / f"small-{count}-{classes}").plan
    method = replace(plan.base.methods[0], dim=DIM)
    base = replace(plan.base, methods=(method,), keeps=(LABEL,))
    kinds = {"uri": pa.string(), "label": pa.string(), "label_index": pa.int32(), "mask": pa.string()}
    kinds |= {"content": pa.string(), "target": pa.int32()}
    empty = {name: pa.nulls(count, kind) for name, kind in kinds.items()}
    table = pa.table({"image_id": pa.array(range(count)), "key": [f"{i}.jpg" for i in range(count)], **empty})
    out.mkdir(parents=True)
    plan = replace(plan, rows=count, shard_rows=4096, base=base, parts=write_images(out, table, "made up rows"))
    (out / "run.json").write_bytes(plan.to_bytes())
    for shard in range(plan.shards):
        start, stop = plan.bounds(shard)
        of_class, _, found = drawn(classes, start, stop)
        commit(out, "", shard, tables(base, method, start, stop, of_class, found))
    run = open_run(out)
    regions = evidence.Regions(run, LABEL, None)
    regions.write_facts()
    for shard in range(plan.shards):
        start, stop = plan.bounds(shard)
        of_class, _, found = drawn(classes, start, stop)
        ones = np.ones(stop - start, np.float32)
        regions.write(shard, evidence.Points(np.arange(start, stop), np.zeros(stop - start, np.int16), ones, found))
    (out / "done").touch()
    return out


def tables(base: Any, method: Any, start: int, stop: int, of_class: np.ndarray, found: np.ndarray) -> dict[str, Table]:
    """Rows and maps of one shard."""
    n, rng = stop - start, np.random.default_rng([13, start])
    values: dict[str, Any] = {f.name: pa.nulls(n, f.type) for f in schema.rows_schema(base)}
    values |= {"image_id": pa.array(range(start, stop)), "key": [f"{i}.jpg" for i in range(start, stop)]}
    values |= {"status": ["ok"] * n, "prediction": [f"class {c}" for c in of_class], "correct": rng.random(n) < 0.8}
    values |= {"prediction_index": of_class, "probability": rng.random(n, np.float32)}
    values |= {f"scale.{LABEL}": rng.random(n, np.float32)}
    values[f"embedding.{LABEL}"] = schema.vectors(found, np.ones(n, np.bool_))
    size = int(np.prod(method.shape)) * np.dtype(method.dtype).itemsize
    maps = {"image_id": values["image_id"], f"map.{LABEL}": pa.array([bytes(size)] * n, pa.binary(size))}
    return {
        "rows": Table(schema.table(schema.rows_schema(base), values), n),
        "maps": Table(schema.table(schema.maps_schema(base), maps), schema.MAPS_PER_GROUP),
    }


# ---- one case -------------------------------------------------------------------------------------------


class Stages:
    """By stage, seconds that passed and seconds of the processor; a stage within a stage counts to the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._inside = False

    def watch(self, room: Any, function: str, name: str) -> None:
        plain: Callable[..., Any] = getattr(room, function)

        def timed(*given: Any, **more: Any) -> Any:
            if self._inside:
                return plain(*given, **more)
            with self._timing(name):
                return plain(*given, **more)

        setattr(room, function, timed)

    @contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        self._inside, began = True, (time.perf_counter(), time.process_time())
        try:
            yield
        finally:
            took = (time.perf_counter() - began[0], time.process_time() - began[1])
            self.seconds[name] = [a + b for a, b in zip(self.seconds.get(name, (0.0, 0.0)), took, strict=True)]
            self._inside = False


def case(folder: Path, within: str, threads: int) -> dict[str, Any]:
    """`whylens.group` on a run, in this process."""
    from sklearn.metrics import adjusted_rand_score

    from whylens.groups import group as room

    torch.set_num_threads(threads)
    stages = Stages()
    stages.watch(room, "facts_of", "read the rows")
    stages.watch(room, "points", "read the vectors")
    stages.watch(room, "_reduced", "PCA")
    stages.watch(cluster, "clusters", "HDBSCAN and merging")
    stages.watch(cluster, "agreement", "stability")
    stages.watch(project, "layout", "t-SNE and placing")
    stages.watch(room, "Groups", "describe")
    stages.watch(room, "_write", "write")
    run = open_run(folder)
    name = f"scale {within} {time.time_ns()}"
    began, cpu = time.perf_counter(), time.process_time()
    found = whylens.group(run, within=within, tests=0, name=name)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    count, classes = map(int, folder.name.split("-")[1:])
    parts = [drawn(classes, *run.plan.bounds(shard))[:2] for shard in range(run.plan.shards)]
    truth = np.concatenate([np.where(reason < 0, -1, 4 * of_class + reason) for of_class, reason in parts])
    own = truth >= 0
    return {
        "points": count,
        "seconds in all": round(seconds, 1),
        "peak GB": peak,
        "seconds of the processor": round(cpu, 1),
        "stages: seconds, of the processor": {k: [round(s, 1) for s in v] for k, v in stages.seconds.items()},
        "groups": len(found),
        "planted": len(np.unique(truth[own])),
        "agreement with what is planted": round(float(adjusted_rand_score(truth[own], found.state.labels[own])), 3),
        "stability": round(found.stability, 3),
        "trustworthiness": round(found.layout.trust, 3),
        "placed": int(found.layout.placed.sum()),
    }


# ---- placing --------------------------------------------------------------------------------------------


def placing(folder: Path, landmarks: int, threads: int) -> dict[str, Any]:
    """Neighbour overlap of points that landmarks placed, beside that of the same points where all are laid out."""
    torch.set_num_threads(threads)
    run = open_run(folder)
    held = evidence.points(run, LABEL)
    vectors = project.normalised(held.vectors)
    del held
    reduced = project.pca(vectors).reduced(vectors)
    del vectors
    strata = np.concatenate(
        [drawn(int(folder.name.split("-")[2]), *run.plan.bounds(shard))[0] for shard in range(run.plan.shards)]
    )
    began = time.perf_counter()
    some = project.layout(reduced, strata=strata, landmarks=landmarks)
    between = time.perf_counter()
    every = project.layout(reduced, strata=strata, landmarks=len(reduced))
    ended = time.perf_counter()
    rest, own = some.placed.nonzero()[0], (~some.placed).nonzero()[0]
    rng = np.random.default_rng(3)
    rest, own = (np.sort(rng.permutation(rows)[:JUDGED]) for rows in (rest, own))
    return {
        "points": len(reduced),
        "landmarks": landmarks,
        "placed": int(some.placed.sum()),
        "seconds": {"landmarks": round(between - began, 1), "all laid out": round(ended - between, 1)},
        "overlap of placed points": overlap(reduced, some.at, rest),
        "the same points, all laid out": overlap(reduced, every.at, rest),
        "overlap of landmarks": overlap(reduced, some.at, own),
        "by chance": round(NEIGHBOURS / (len(reduced) - 1), 5),
        "trustworthiness": [round(some.trust, 3), round(every.trust, 3)],
    }


def overlap(reduced: np.ndarray, at: np.ndarray, rows: np.ndarray) -> float:
    """The share of nearest neighbours in PCA space that are nearest in the picture, among all points."""
    from sklearn.neighbors import NearestNeighbors

    near = [
        NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm=how).fit(space).kneighbors(space[rows])[1]
        for space, how in ((reduced, "brute"), (at, "kd_tree"))
    ]
    shared = [len((set(a) & set(b)) - {row}) / NEIGHBOURS for a, b, row in zip(*near, rows, strict=True)]
    return round(float(np.mean(shared)), 3)


def alone(*words: str) -> dict[str, Any]:
    """A case in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "group")
    parser.add_argument("--cases", nargs="*", default=[*CASES, "placing", "beyond the landmarks"])
    parser.add_argument("--out", type=Path, default=HERE / "group_scale.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, what, value = options.one
        work = placing(Path(folder), int(value), options.threads) if what == "place" else None
        print(json.dumps(work or case(Path(folder), value, options.threads)))
        return
    threads = ("--threads", str(options.threads))
    os.environ |= {"OMP_NUM_THREADS": str(options.threads)}
    held = json.loads(options.out.read_text("utf-8"))["rows"] if options.out.exists() else []
    rows = {row["case"]: row for row in held}
    n = options.points
    for name in options.cases:
        if name == "placing":
            found = alone("--one", str(made_up(options.work, n // 5, 100)), "place", str(n // 20), *threads)
        elif name == "beyond the landmarks":
            found = alone("--one", str(made_up(options.work, n + 3 * n // 10, 100)), "group", "class", *threads)
        else:
            classes, within = CASES[name]
            found = alone("--one", str(made_up(options.work, n, classes)), "group", within, *threads)
        rows[name] = {"case": name, "load": round(os.getloadavg()[0], 1), **found}
        written(options.out, list(rows.values()))


if __name__ == "__main__":
    main()
