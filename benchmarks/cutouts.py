"""Every method on real cut-outs with true masks: insertion, deletion, energy inside, pointing, seconds.

    python benchmarks/cutouts.py [--half report] [--scenes 24] [--methods a,b] [--settings 'igos_pp:steps=10,size=28']
                                 [--minutes 120] [--pairs 100] [--threads 2] [--table-only]

EfficientNet-Lite0 on the scenes of `cutouts_scenes.py`; only those it gets right, the predicted class as target.
Settings are tried on the half `choose` and reported on the half `report`; the two share no stamp. `--settings` may be
given several times; each is a row of its own, and they take the place of the method's default row. `--pairs 100` takes
more scenes for insertion of the methods that are compared in pairs. Results are kept scene by scene in the cache
folder, so a stopped run goes on; those of a method whose file has changed since are computed again, and what failed is
tried again. The table of what the call asked for goes to `cutouts.json` and, as Markdown, to standard output. Seconds
are those of `explain` alone, one method at a time: let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from cutouts_controls import CONTROLS
from cutouts_results import Clock, Results, digest
from cutouts_scenes import APART, BACKGROUNDS, CACHE, Half, Scene, fetch, images_of, rates, scenes_of
from cutouts_table import Table, markdown, table_of

import whylens
from whylens import _plugins

HERE = Path(__file__).parent
TOGETHER = 4  # scenes explained in one call
INSERTIONS = ("insertion", "insertion:mode=igospp")
METRICS = (*INSERTIONS, "deletion", "energy_inside", "pointing_game")
PAIRED = ("grad_cam", "igos", "igos_pp")


# ---- what is asked -------------------------------------------------------------------------------------------------


def requests(methods: Sequence[str], settings: Sequence[str]) -> list[whylens.Method]:
    """The methods asked for, or all local ones and the controls; settings take the place of a method's defaults."""
    chosen = [whylens.Method.read(words) for words in settings]
    replaced = {request.plain_name for request in chosen}
    known = {function.__name__: function for function in CONTROLS}
    asked = list(methods) or [*known, *_plugins.names("methods")]
    plain = [whylens.Method.read(known.get(name, name)) for name in asked]
    found = [*(request for request in plain if request.plain_name not in replaced), *chosen]
    for request in found:
        if request.facts.scope == "global":
            print(f"{request.key} explains no single image and is left out.", file=sys.stderr)
    return [request for request in found if request.facts.scope == "local"]


# ---- one piece of work ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What all pieces of work share."""

    model: whylens.Model
    tree: Path
    commit: str

    def run(self, request: whylens.Method, scenes: Sequence[Scene], metrics: Sequence[str]) -> dict[str, Any]:
        """One method on a few scenes, timed alone, then measured."""
        said = {"label": request.key, "method": request.plain_name, "code": digest(request), "commit": self.commit}
        try:
            return {**said, **self._measured(request, scenes, metrics)}
        except (whylens.WhylensError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError) as error:
            return {**said, "failed": f"{type(error).__name__}: {error}"[:500], "ids": [scene.id for scene in scenes]}

    def _measured(self, request: whylens.Method, scenes: Sequence[Scene], metrics: Sequence[str]) -> dict[str, Any]:
        images = images_of(self.tree, scenes)
        began = time.perf_counter()
        found = whylens.explain(self.model, images, method=request, precision="auto")
        seconds = (time.perf_counter() - began) / len(scenes)
        values = {m: whylens.measure(self.model, images, found, metric=m).values.tolist() for m in metrics}
        return {
            "ids": [scene.id for scene in scenes],
            "params": {key: str(value) for key, value in found.params.items()},
            "map": list(found.maps.shape[1:]),
            "layer": found.layer,
            "seconds": round(seconds, 4),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 2),
            "forwards": found.cost["forwards"],
            "backwards": found.cost["backwards"],
            "flags": {
                name: int(v.sum()) for name, v in found.checks.items() if v.dtype == torch.bool and bool(v.any())
            },
            "values": {m: [None if v != v else round(v, 6) for v in row] for m, row in values.items()},
        }


@dataclass(frozen=True)
class Job:
    """One method on scenes that lack one of these metrics."""

    request: whylens.Method
    scenes: Sequence[Scene]
    metrics: Sequence[str]

    def pieces(self) -> list[Job]:
        """The same in pieces of a few scenes."""
        starts = range(0, len(self.scenes), TOGETHER)
        return [Job(self.request, self.scenes[start : start + TOGETHER], self.metrics) for start in starts]


def work(bench: Bench, results: Results, jobs: Sequence[Job], stop: float) -> None:
    """All jobs, piece by piece in turn, so that a run that is stopped has every method on the same scenes."""
    pieces = [piece for turn in zip_longest(*(job.pieces() for job in jobs)) for piece in turn if piece is not None]
    clock = Clock(stop, len(pieces))
    waiting = Counter(piece.request.key for piece in pieces)
    failed: set[str] = set()
    for piece in pieces:
        label = piece.request.key
        waiting[label] -= 1
        if label in failed or not clock.fits(label):
            continue
        began = time.perf_counter()
        row = bench.run(piece.request, piece.scenes, piece.metrics)
        results.add(row)
        if "failed" in row:
            failed.add(label)
            print(f"{label} failed. {row['failed']}", file=sys.stderr)
        clock.tick(label, time.perf_counter() - began, waiting)


# ---- the command ---------------------------------------------------------------------------------------------------


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("choose", "report"), default="report")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--methods", default="", help="names with commas between; all of the registry where left out")
    parser.add_argument("--settings", action="append", default=[], help="name:parameter=value,...; may be repeated")
    parser.add_argument("--pairs", type=int, default=0, help=f"scenes for insertion of {', '.join(PAIRED)}")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backgrounds", default=",".join(BACKGROUNDS), help=f"also {', '.join(APART)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table-only", action="store_true", help="no work, only the table of what is there")
    parser.add_argument("--out", type=Path, default=HERE / "cutouts.json")
    return parser.parse_args()


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../src"], cwd=HERE).returncode
    return (found.stdout.strip() or "unknown") + ("+changes" if changed else "")


def main() -> int:
    options = read_options()
    torch.set_num_threads(options.threads)
    stop = time.perf_counter() + min(60 * options.minutes, 3600 * options.hours)
    tree, model = fetch(), whylens.load_model("efficientnet-lite0", device="cpu")
    half: Half = options.half
    backgrounds = tuple(options.backgrounds.split(","))
    scenes = scenes_of(model, tree, half, max(options.scenes, options.pairs), options.seed, backgrounds)
    asked = requests([name for name in options.methods.replace("-", "_").split(",") if name], options.settings)
    results = Results.read(CACHE / "cutouts.jsonl")
    if not options.table_only:
        jobs = [Job(r, results.missing(r, scenes[: options.scenes], METRICS), METRICS) for r in asked]
        further = [r for r in asked if options.pairs and r.plain_name in PAIRED]
        jobs += [Job(r, results.missing(r, scenes[options.scenes :], INSERTIONS), INSERTIONS) for r in further]
        work(Bench(model, tree, commit()), results, jobs, stop)
    rows = {request.key: list(results.current(request)) for request in asked}
    table = table_of(half, rows, scenes, options.scenes, METRICS, PAIRED)
    write(options, table, rates(model, tree, options.seed))
    print(markdown(table))
    return int(bool(table.failed))


def write(options: argparse.Namespace, table: Table, shares: Mapping[str, float]) -> None:
    """The JSON file: what was run where, and the table of this half beside that of the other."""
    held = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    said = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {options.threads} threads, no GPU",
        "torch": str(torch.__version__),
        "model": "efficientnet-lite0",
        "seed": options.seed,
        "backgrounds": options.backgrounds.split(","),
        "share of all stamps that the model gets right, by background": dict(shares),
        "halves": {**held.get("halves", {}), table.half: table.as_json()},
    }
    options.out.write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
