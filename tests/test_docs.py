"""README and documentation: every snippet runs, every quoted error exists, every table is true, one word per idea."""

from __future__ import annotations

import ast
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import whylens
from whylens import _plugins, demo
from whylens.catalogue import describe_methods
from whylens.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- no-run: (.{10,}) -->")

MOST_NOT_RUN = 5
"""Blocks in all that may be marked no-run, each with its reason in the line before."""

ELSEWHERE = ("pip install ", "./demo", "./check")
"""Commands a bash block may hold beside `whylens ...`; they install things and are run by ./check itself."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    rest: str
    body: str
    before: str

    @property
    def runs(self) -> bool:
        return self.rest != "no-run"

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].partition(" ")
        line = text[: match.start()].count("\n")
        indent = match["indent"]
        body = "".join(row.removeprefix(indent) for row in match["body"].splitlines(keepends=True))
        before = text.splitlines()[line - 1] if line else ""
        found.append(Block(page.name, line + 1, language, rest.strip(), body, before))
    return found


def commands(block: Block) -> list[str]:
    """The lines of a bash block, continued ones joined."""
    joined = block.body.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def name(page: Path) -> str:
    return page.stem


# ---- snippets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the photos that the pages name, to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for photo in demo.photos():
        shutil.copy(photo, tmp_path)
        shutil.copy(photo, tmp_path / "photos")
    log = logging.getLogger("whylens")
    level = log.level
    yield tmp_path
    log.setLevel(level)


def provide(text: str, folder: Path) -> None:
    """The files of a user's own that a page names."""
    if "classes.txt" in text:
        (folder / "classes.txt").write_text("yes\nno\nmaybe\n")
    if "weights.pt" in text:
        import torchvision

        torch.manual_seed(0)
        net = torchvision.models.resnet18(weights=None, num_classes=3)
        torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, folder / "weights.pt")
    if "model.onnx" in text:
        write_onnx(folder / "model.onnx")


def write_onnx(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["mean"]), helper.make_node("Flatten", ["mean"], ["scores"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 32, 32]), ("scores", ["n", 3]))
    ]
    graph = helper.make_graph(nodes, "mean", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def run_python(block: Block, namespace: dict[str, Any], folder: Path) -> None:
    titled = re.fullmatch(r'title="([\w.]+)"', block.rest)
    if titled:
        (folder / titled[1]).write_text(block.body, "utf-8")
        return
    assert block.rest == "", f"{block.where}: unknown words behind the language: {block.rest!r}"
    code = compile("\n" * block.line + block.body, block.page, "exec", dont_inherit=True)
    exec(code, namespace)


def run_bash(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands(block):
        if not line.startswith("whylens "):
            assert line.startswith(ELSEWHERE), f"{block.where}: '{line}' is neither run nor known to run elsewhere"
            continue
        told = re.search(r"# exit code (\d)", line)
        expected = int(told[1]) if told else 0
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as left:
            main()
        assert (left.value.code or 0) == expected, f"{block.where}: '{line}' ended with {left.value.code}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_snippets_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(page.read_text("utf-8"), workplace)
    namespace: dict[str, Any] = {"__name__": f"snippets_of_{page.stem}"}
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "python":
            run_python(block, namespace, workplace)
        elif block.language == "bash":
            run_bash(block, monkeypatch)
        else:
            assert block.language == "text", f"{block.where}: a block is python, bash or text. Got {block.language!r}"


def test_no_block_is_skipped_without_a_reason() -> None:
    skipped = [block for page in PAGES for block in blocks(page) if not block.runs]
    for block in skipped:
        assert REASON.fullmatch(block.before.strip()), f"{block.where}: say why: <!-- no-run: reason -->"
    assert len(skipped) <= MOST_NOT_RUN, f"{len(skipped)} blocks are not run: {[b.where for b in skipped]}"


def test_no_fence_escapes_the_reader() -> None:
    for page in PAGES:
        fences = len(re.findall(r"^[ >]*(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE))
        assert fences == 2 * len(blocks(page)), f"{page.name}: {fences} fences, {len(blocks(page))} blocks"


def test_a_broken_snippet_is_seen(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def block(language: str, body: str) -> Block:
        return Block("page.md", 1, language, "", body, "")

    with pytest.raises(ZeroDivisionError):
        run_python(block("python", "1 / 0"), {}, workplace)
    with pytest.raises(AssertionError, match="ended with 2"):
        run_bash(block("bash", "whylens explain nowhere.png"), monkeypatch)
    with pytest.raises(AssertionError, match="neither run nor known"):
        run_bash(block("bash", "rm -r photos"), monkeypatch)


# ---- quoted errors -------------------------------------------------------------------------------------------------

NEAREST = re.compile(r"(whylens: )?No [a-z ]+ '[^']+'\. Did you mean '[^']+'\? .+")  # errors.no_such


def templates() -> list[re.Pattern[str]]:
    """Every text of the package as a pattern, what is filled in left open."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            words = [p.value if isinstance(p, ast.Constant) else None for p in parts]
            if any(isinstance(w, str) for w in words) and sum(len(w) for w in words if isinstance(w, str)) >= 15:
                found.append("".join(re.escape(w) if isinstance(w, str) else ".*" for w in words))
    return [re.compile(f".*{pattern}", re.DOTALL) for pattern in found]


def quoted() -> list[str]:
    texts = [b.body.strip() for b in blocks(DOCS / "troubleshooting.md") if b.language == "text"]
    return texts + [
        b.body.strip() for b in blocks(DOCS / "cli.md") if b.language == "text" and b.body.startswith("whylens: ")
    ]


def test_quoted_errors_are_those_of_the_package() -> None:
    known = templates()
    sentences = quoted()
    assert len(sentences) > 15
    for sentence in sentences:
        there = NEAREST.fullmatch(sentence) or any(template.fullmatch(sentence) for template in known)
        assert there, f"No text of the package reads: {sentence}"


def test_an_invented_error_is_seen() -> None:
    known = templates()
    assert not any(t.fullmatch("target: there must be as many targets as images, but 4 are not 1.") for t in known)


# ---- tables and lists ----------------------------------------------------------------------------------------------


def rows(page: Path) -> list[list[str]]:
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_readme_says_of_methods_what_they_declare() -> None:
    known = {row["method"]: row for row in describe_methods()}
    listed = rows(ROOT / "README.md")
    assert len(listed) > 5
    for method, kind, passes, needs in listed:
        declared = known[method]
        assert [kind, passes, needs] == [declared["map"], declared["passes"], declared["needs"]], method


def test_the_matrix_holds_methods_that_exist() -> None:
    methods = [row[0] for row in rows(DOCS / "matrix.md")]
    assert len(methods) > 5
    assert set(methods) <= set(_plugins.names("methods"))


def test_the_gallery_shows_every_method() -> None:
    lines = rows(DOCS / "gallery.md")
    assert [line[0] for line in lines if len(line) > 3] == [line[0] for line in lines]
    assert {line[0] for line in lines} == set(_plugins.names("methods"))
    for picture in re.findall(r"\]\((pictures/[^)]+)\)", (DOCS / "gallery.md").read_text("utf-8")):
        assert (DOCS / picture).exists(), picture


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    missing = [n for n in whylens.__all__ if n != "__version__" and f"<!-- api: {n} -->" not in page]
    assert not missing, f"docs/api.md lacks {missing}"


def test_links_of_files_beside_the_docs_lead_somewhere() -> None:
    for file in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / file).read_text("utf-8")):
            assert link.startswith("https://") or (ROOT / link).exists(), f"{file}: {link}"


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {whylens.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in changelog
    assert f"## [{whylens.__version__}]" in changelog


# ---- one word per idea ---------------------------------------------------------------------------------------------

RIVALS = re.compile(r"\battrs?\b(?!-defined)|\bheat ?maps?\b|\bn_iter\b|\bnt_samples\b", re.IGNORECASE)
"""`attr-defined` is mypy's word."""

EXEMPT = {"from_captum.md", "from_grad_cam.md", "glossary.md"}


def test_one_word_per_idea() -> None:
    files = [*(ROOT / "src").rglob("*.py"), *DOCS.glob("*.md"), *DOCS.glob("*.py"), ROOT / "README.md"]
    for file in files:
        if file.name in EXEMPT:
            continue
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            rival = RIVALS.search(line)
            assert rival is None, f"{file.relative_to(ROOT)}:{number}: '{rival and rival[0]}' has another word here"


def test_a_rival_is_seen() -> None:
    assert RIVALS.search("the heatmap of it")
    assert RIVALS.search("attr = maps")
    assert not RIVALS.search("getattr(x, 'y')  # type: ignore[attr-defined]")
