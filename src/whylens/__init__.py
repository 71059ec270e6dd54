"""whylens explains, audits and repairs PyTorch vision models.

Importing it loads no torch: every public name is fetched from its module when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AttentionGraph": "attention",
    "Detections": "detections",
    "Explanation": "explanation",
    "Gap": "right_wrong",
    "Groups": "groups.grouping",
    "Images": "images",
    "InputError": "errors",
    "Instances": "places",
    "Maps": "contract",
    "Method": "contract",
    "MethodFacts": "contract",
    "Metric": "contract",
    "MetricFacts": "contract",
    "MissingExtra": "errors",
    "Model": "model",
    "Placement": "placement",
    "Preprocess": "preprocess",
    "Probe": "probe",
    "Range": "_check",
    "Record": "record",
    "Recorder": "recorder",
    "Region": "places",
    "Run": "run.read",
    "Scores": "scores",
    "Trial": "contract",
    "Values": "contract",
    "WhylensError": "errors",
    "act": "act",
    "attention_graph": "graph",
    "audit": "run.audit",
    "compare": "compare",
    "explain": "explain",
    "explain_many": "explain",
    "figure": "figure",
    "gap": "gap",
    "group": "groups.group",
    "load_images": "sources",
    "load_model": "zoo",
    "measure": "measure",
    "open_groups": "groups.group",
    "open_record": "record",
    "open_run": "run.read",
    "report": "view.report",
    "save_model": "zoo.folder",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - strings all of them, tested

if TYPE_CHECKING:
    from ._check import Range as Range
    from .act import act as act
    from .attention import AttentionGraph as AttentionGraph
    from .compare import compare as compare
    from .contract import Maps as Maps
    from .contract import Method as Method
    from .contract import MethodFacts as MethodFacts
    from .contract import Metric as Metric
    from .contract import MetricFacts as MetricFacts
    from .contract import Trial as Trial
    from .contract import Values as Values
    from .detections import Detections as Detections
    from .errors import InputError as InputError
    from .errors import MissingExtra as MissingExtra
    from .errors import WhylensError as WhylensError
    from .explain import explain as explain
    from .explain import explain_many as explain_many
    from .explanation import Explanation as Explanation
    from .figure import figure as figure
    from .gap import gap as gap
    from .graph import attention_graph as attention_graph
    from .groups.group import group as group
    from .groups.group import open_groups as open_groups
    from .groups.grouping import Groups as Groups
    from .images import Images as Images
    from .measure import measure as measure
    from .model import Model as Model
    from .placement import Placement as Placement
    from .places import Instances as Instances
    from .places import Region as Region
    from .preprocess import Preprocess as Preprocess
    from .probe import Probe as Probe
    from .record import Record as Record
    from .record import open_record as open_record
    from .recorder import Recorder as Recorder
    from .right_wrong import Gap as Gap
    from .run.audit import audit as audit
    from .run.read import Run as Run
    from .run.read import open_run as open_run
    from .scores import Scores as Scores
    from .sources import load_images as load_images
    from .view.report import report as report
    from .zoo import load_model as load_model
    from .zoo.folder import save_model as save_model


class _Package(ModuleType):
    """``whylens.explain`` is the verb; the module of that name must not take its place when it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in ("demo", "testing"):
            return import_module(f".{name}", __name__)
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'whylens' has no attribute '{name}'")
        return getattr(import_module(f".{home}", __name__), name)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Package
