"""Config: ``audit.toml``, which repeats a run; what the command line and the file call a setting is one word."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._files import write_atomic
from ..errors import InputError, no_such
from .plan import Part, Plan

NAME = "audit.toml"

KEYS = (
    "data", "masks", "recursive", "model", "weights", "classes", "preprocess", "layer", "task", "output", "device",
    "method", "metric", "target", "score", "seed", "batch_size", "precision", "store", "shard_rows", "threads",
    "workers", "out",
)  # fmt: skip


def write(folder: Path, plan: Plan, parts: Sequence[Part]) -> None:
    """Write the file beside the run, with what was added to it; what words cannot repeat is said in it."""
    import tomli_w

    said, lost = as_config(plan, parts)
    head = "# Repeats this run: whylens audit --config audit.toml --out NEW\n"
    head += "".join(f"# Not repeated: {what}\n" for what in lost)
    write_atomic(folder / NAME, (head + tomli_w.dumps(said)).encode())


def as_config(plan: Plan, parts: Sequence[Part]) -> tuple[dict[str, Any], list[str]]:
    """Settings by key, and what they leave out, in words."""
    said: dict[str, Any] = {}
    lost = []
    methods = [m for part in parts for m in part.methods if m.label in part.keeps]
    metrics = list({m.key: m for part in parts for m in part.metrics}.values())
    if plan.images["origin"] is None:
        lost.append("the images, which were given in Python")
    said |= plan.images["origin"] or {}
    source = plan.model["source"]
    if plan.model["closed"]:
        lost.append(f"the model: {plan.model['closed']}")
    else:
        said |= {"model": source["spec"], "weights": source["weights"]}
        said |= source["given"]
    said["device"] = plan.model["device"]
    lost += [f"the method {m.label}, a function" for m in methods if not m.repeats]
    lost += [f"the metric {m.key}, a function" for m in metrics if not m.repeats]
    said["method"] = [_method(m) for m in methods if m.repeats]
    said["metric"] = [
        {"name": m.metric, "label": m.key, **({"params": _params(m.params)} if m.params else {})}
        for m in metrics
        if m.repeats
    ]
    target = plan.settings["target"]
    if isinstance(target, dict):
        lost.append("the targets, which were given in Python")
    elif target is not None:
        said["target"] = target
    settings = ("score", "seed", "batch_size", "precision", "store", "threads")
    said |= {k: plan.settings[k] for k in settings}
    said["shard_rows"] = plan.shard_rows
    return _bare(said), lost


def read(path: Path) -> dict[str, Any]:
    """Settings by key; InputError for a file that is none, or a key that is none."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: no file '{path}'.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config: '{path}' cannot be read: {error}.") from None
    for key in said:
        if key.replace("-", "_") not in KEYS:
            raise no_such("setting", key, list(KEYS), f"'{path.name}' may hold: {', '.join(KEYS)}.")
    return {key.replace("-", "_"): value for key, value in said.items()}


def _method(stored: Any) -> dict[str, Any]:
    said = {"name": stored.method, "label": stored.label, "layer": stored.asked_layer, "target": stored.target}
    params = {"params": _params(stored.params)} if stored.params else {}
    return {k: v for k, v in said.items() if v is not None} | params


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the file holds them: none is a word there."""
    return {k: "none" if v is None else v for k, v in params.items()}


def _bare(said: Mapping[str, Any]) -> dict[str, Any]:
    """TOML knows no null."""
    return {
        k: {a: b for a, b in v.items() if b is not None} if isinstance(v, dict) else v
        for k, v in said.items()
        if v is not None
    }
