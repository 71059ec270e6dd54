"""Side by side: runs of several programs in one process, taken in turn, and ratios of their medians."""

from __future__ import annotations

import copy
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent

Clock = Callable[[], float]
Seconds = dict[str, list[float]]


def interleaved(
    runs: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = True, clock: Clock = time.perf_counter
) -> Seconds:
    """Seconds of each run, taken in turn so that a busy moment of the machine meets all of them."""
    if warm:
        for run in runs.values():
            run()
    seconds: Seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def rounded(seconds: Seconds) -> Seconds:
    return {name: [round(s, 3) for s in values] for name, values in seconds.items()}


def channels_last(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to(memory_format=torch.channels_last)


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../src"], cwd=HERE).returncode
    return (found.stdout.strip() or "unknown") + ("+changes" if changed else "")


def written(path: Path, rows: list[dict[str, Any]], **more: Any) -> None:
    """The report of these rows, with commit and machine, as a file; without the single seconds, on the terminal."""
    report = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, no GPU",
        "torch": str(torch.__version__),
        **more,
        "rows": rows,
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps({k: v for k, v in row.items() if k != "seconds"}, indent=1))
