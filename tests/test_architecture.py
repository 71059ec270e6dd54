"""The house: who may import whom, what is public, what a bare import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import whylens

SOURCE = Path(whylens.__file__).parent

LAYERS = [
    "errors _check _plugins _state _progress _files",
    "placement detections pixels dicom decode annotations masks images sources explanation words colour sheet picture"
    " outlines figure",
    "preprocess grid layers black_box stages rcnn segmenter model places calls rules excitation target fused folding"
    " engine passes probe conductance",
    "contract baseline regions residual embedding interval surrogate student inquiry hierarchy scoring penalty optimise"
    " mask_search augmentation removal imputation overlap similarity randomisation agreement",
    "methods metrics structured",
    "references collect batches trial located explain scores measure zoo testing attention attention_figure graph",
    "run",
    "groups",
    "study study_summary",
    "separation spread right_wrong gap snapshot fixed_set pixel_class record film trainers recorder",
    "effect act_record task learn precision redetection",
    "actions",
    "act",
    "view",
    "output catalogue comparison compare",
    "demo",
    "cli __main__",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}

PUBLIC = [
    "AttentionGraph", "Detections", "Explanation", "Gap", "Groups", "Images", "InputError", "Instances", "Maps",
    "Method", "MethodFacts", "Metric", "MetricFacts", "MissingExtra", "Model", "Placement", "Preprocess", "Probe",
    "Range", "Record", "Recorder", "Region", "Run", "Scores", "Trial", "Values", "WhylensError", "__version__",
    "act", "attention_graph", "audit", "compare", "explain", "explain_many", "figure", "gap", "group",
    "load_images", "load_model", "measure", "open_groups", "open_record", "open_run", "report", "save_model",
]  # fmt: skip

FILES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


def room(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


def imports(file: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever the import stands, but not for types alone."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    depth = len(file.relative_to(SOURCE).parts)
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        inside = depth - node.level  # folders still between here and the package
        if inside > 0:
            found.add(room(file))
        elif node.module:
            found.add(node.module.split(".")[0])
        else:
            found |= {alias.name for alias in node.names if alias.name in RANK}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_down(file: Path) -> None:
    here = room(file)
    assert here in RANK, f"{here} has no layer in LAYERS"
    for other in imports(file):
        assert other in RANK, f"{file.name} imports {other}, which has no layer"
        assert RANK[other] <= RANK[here], f"{file.name} (layer {RANK[here]}) imports {other} (layer {RANK[other]})"


def test_no_circles_within_a_layer() -> None:
    draws_itself = {"explanation": {"figure"}}  # Explanation.figure(), imported when called
    graph: dict[str, set[str]] = {}
    for file in FILES:
        here = room(file)
        graph.setdefault(here, set()).update(imports(file) - {here} - draws_itself.get(here, set()))
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_a_plugin_imports_no_plugin() -> None:
    for room in ("methods", "metrics"):
        for file in (SOURCE / room).glob("*.py"):
            assert not {"methods", "metrics"} & imports(file)


def test_public_names() -> None:
    assert sorted(whylens.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(whylens, name) is not None
    assert dir(whylens) == sorted(PUBLIC)


def test_modules_do_not_take_the_place_of_verbs() -> None:
    import whylens.explain
    import whylens.figure

    assert callable(whylens.explain)
    assert callable(whylens.figure)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = whylens.nonsense  # type: ignore[attr-defined]


def test_a_bare_import_loads_nothing_heavy() -> None:
    code = "import sys, whylens; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "PIL",
        "skimage",
        "pyarrow",
        "matplotlib",
        "typer",
        "rich",
        "safetensors",
    }
    assert not heavy & set(loaded)


def test_house_rules_of_style() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.Assert), f"{where}: a user's error is never an assert"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{where}: bare except"
        assert file.stem not in {"utils", "helpers", "common", "base", "misc"}
