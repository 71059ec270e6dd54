"""The graph page and the quiz in a real browser: hover, pointer, keys, pixels; nothing fetched, no error, axe clean."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthetic_graphs import attention_graph, photo, segmented_graph, uri
from whylens.view.graph import graph_page
from whylens.view.quiz import quiz_page, summarise

ROOT = Path(__file__).parents[1]
VIEWER = ROOT / "viewer"
AXE = VIEWER / "node_modules/axe-core/axe.min.js"
WAIT = 20_000

Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a document from a file; at the end nothing was fetched and nothing went wrong, unless `faults` says so."""
    heard: list[str] = []
    contexts = []

    def open_(html: str, *, width: int = 1300, height: int = 900, anchor: str = "", **options: Any) -> Any:
        file = tmp_path / "page.html"
        file.write_text(html, "utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.heard = heard
        page.on("request", lambda r: r.url.startswith(("data:", "blob:", file.as_uri())) or heard.append(r.url))
        page.on("console", lambda m: m.type in ("error", "warning") and heard.append(m.text))
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.goto(file.as_uri() + anchor)
        page.locator("[data-ready='1']").wait_for(timeout=WAIT, state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert heard == []


@pytest.fixture(scope="module")
def graph() -> dict[str, Any]:
    return attention_graph(roots=3, size=3, depth=2, seed=1)


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """Ten roots, two hundred nodes and more."""
    made = attention_graph(roots=10, size=6, depth=3, seed=2, frame=(120, 160))
    assert len(made["nodes"]) >= 200
    return made


def node(page: Any, index: int) -> Any:
    return page.locator(f"[data-node='{index}']")


def has(page: Any, role: str) -> set[int]:
    """Numbers of the nodes that are shown in this role."""
    return numbers(page, f".node.{role} > [data-node]", "node")


def visible(page: Any) -> set[int]:
    return numbers(page, "[data-node]", "node")


def pressed(page: Any) -> set[int]:
    """Patches that are kept on the large photo."""
    return numbers(page, "[data-patch][aria-pressed='true']", "patch")


def numbers(page: Any, selector: str, what: str) -> set[int]:
    read = "([s, w]) => [...document.querySelectorAll(s)].map(b => Number(b.dataset[w]))"
    return set(page.evaluate(read, [selector, what]))


def pixels(canvas: Any) -> np.ndarray[Any, Any]:
    """What a canvas shows (rows, columns, 3)."""
    picture = canvas.evaluate("c => c.toDataURL()")
    return np.asarray(Image.open(BytesIO(base64.b64decode(picture.partition(",")[2]))).convert("RGB"))


def red(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where a picture has the colour of an outline."""
    r, g, b = (picture[..., i].astype(int) for i in range(3))
    return (r > 190) & (g < 40) & (b < 40)


def is_outlined(page: Any, index: int, patch: int) -> bool:
    """Whether this patch and no other has an outline on a node's picture."""
    picture = pixels(node(page, index).locator("canvas"))
    rows, columns = np.nonzero(red(picture))
    side = picture.shape[0] / 7
    row, column = divmod(patch, 7)
    down = row * side - 4 <= rows.min() and rows.max() <= (row + 1) * side + 4
    across = column * side - 4 <= columns.min() and columns.max() <= (column + 1) * side + 4
    return bool(len(rows) > 20 and down and across)


def ends(graph: dict[str, Any], index: int) -> tuple[set[int], set[int]]:
    """Parents and children of a node."""
    edges = graph["edges"]
    return {e["parent"] for e in edges if e["child"] == index}, {e["child"] for e in edges if e["parent"] == index}


# ---- the pictures ------------------------------------------------------------------------------------------------


def test_kept_patches_are_in_colour_and_the_rest_is_grey_and_dark(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    picture = pixels(page.locator(".stage canvas")).astype(int)
    root = graph["nodes"][0]["patches"]
    side = picture.shape[0] / 7
    frame = photo().astype(int)
    for patch in range(49):
        row, column = divmod(patch, 7)
        # The middle of the patch, away from its neighbours.
        y, x = (slice(int((k + 0.3) * side), int((k + 0.7) * side)) for k in (row, column))
        v, u = (slice(int((k + 0.3) * 160 / 7), int((k + 0.7) * 160 / 7)) for k in (row, column))
        mean, own = picture[y, x].mean((0, 1)), frame[v, u].mean((0, 1))
        if patch in root:
            assert np.abs(mean - own).max() < 12, patch
        else:
            assert np.ptp(mean) < 6, patch
            assert mean.max() < 0.45 * own.max() + 3, patch


def test_a_graph_without_a_node_is_a_page_that_says_so(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph | {"nodes": [], "edges": []}))
    assert "No set of patches was found" in page.locator("header").inner_text()
    page.locator("[data-patch='3']").click()
    assert pressed(page) == {3}


def test_segments_of_any_shape_are_shown_and_switched(opened: Open) -> None:
    graph = segmented_graph(300)
    page = opened(graph_page(graph))
    canvas = page.locator(".stage canvas")
    canvas.click(position={"x": 10, "y": canvas.bounding_box()["height"] * 0.5 + 0.2})
    assert pressed(page) == {*graph["nodes"][0]["patches"], 150}
    assert pixels(canvas).std() > 10


# ---- hover and pin -----------------------------------------------------------------------------------------------


def test_a_node_in_hand_brings_out_its_parents_its_children_and_the_patch_that_differs(
    graph: dict[str, Any], opened: Open
) -> None:
    page = opened(graph_page(graph), anchor="#fold=0")
    middle = next(n for n in graph["nodes"] if len(n["patches"]) == 2 and n["expanded"])
    before = pixels(node(page, middle["id"]).locator("canvas"))
    node(page, middle["id"]).hover()
    parents, children = ends(graph, middle["id"])
    assert children
    assert has(page, "active") == {middle["id"]}
    assert has(page, "parent") == parents
    assert has(page, "child") == children
    removed = {(e["parent"], e["child"]): e["removed"] for e in graph["edges"]}
    for child in children:
        lost = round(100 * (middle["relative"] - graph["nodes"][child]["relative"]))
        assert node(page, child).locator(".badge").inner_text() == f"child −{lost}"
        assert is_outlined(page, child, removed[middle["id"], child])
    for parent in parents:
        lost = round(100 * (graph["nodes"][parent]["relative"] - middle["relative"]))
        assert node(page, parent).locator(".badge").inner_text() == f"parent −{lost}"
        assert is_outlined(page, parent, removed[parent, middle["id"]])
    assert np.array_equal(pixels(node(page, middle["id"]).locator("canvas")), before)
    others = visible(page) - parents - children - {middle["id"]} - has(page, "similar")
    veil = "b => getComputedStyle(b.querySelector('.frame'), '::after').opacity"
    assert {node(page, i).evaluate(veil) for i in others} == {"0.7"}
    assert {node(page, i).evaluate(veil) for i in parents | children | {middle["id"]}} == {"1"}
    page.mouse.move(2, 2)
    page.locator(".board:not(.focused)").wait_for(timeout=WAIT)
    assert not has(page, "child")


def test_similar_sets_follow_the_slider(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph), anchor="#fold=0")
    own = set(graph["nodes"][0]["patches"])
    parents, children = ends(graph, 0)

    def alike(least: float) -> set[int]:
        overlap = {n["id"]: len(own & {*n["patches"]}) / len(own | {*n["patches"]}) for n in graph["nodes"]}
        return {i for i, share in overlap.items() if share >= least} - {0} - parents - children

    for percent in (50, 20, 0):
        page.locator("[name=alike]").evaluate(f"s => {{ s.value = {percent}; s.dispatchEvent(new Event('input')) }}")
        node(page, 0).hover()
        assert has(page, "similar") == alike(percent / 100)
        page.mouse.move(2, 2)
    assert len(alike(0)) > len(alike(0.5))


def test_a_click_pins_and_the_address_opens_the_same_again(graph: dict[str, Any], opened: Open) -> None:
    html = graph_page(graph)
    page = opened(html)
    node(page, 1).click()
    page.mouse.move(2, 2)
    assert has(page, "active") == {1}
    assert node(page, 1).get_attribute("aria-pressed") == "true"
    assert page.url.endswith("#node=1")
    again = opened(html, anchor="#node=1")
    assert has(again, "active") == {1}
    node(page, 1).click()
    page.mouse.move(2, 2)
    assert has(page, "active") == set()
    page.evaluate("() => { location.hash = 'node=2' }")
    page.locator(".node.active [data-node='2']").wait_for(timeout=WAIT)


# ---- patches -----------------------------------------------------------------------------------------------------


def ranked(graph: dict[str, Any], patches: set[int]) -> list[tuple[int, int, float]]:
    """Distance, number and score of all nodes, the nearest first, counted in bits."""
    mask = sum(1 << p for p in patches)
    far = [((mask ^ sum(1 << p for p in n["patches"])).bit_count(), n["id"], n["relative"]) for n in graph["nodes"]]
    return sorted(far, key=lambda row: (row[0], -row[2], row[1]))


def said(rows: list[str]) -> list[tuple[int, int]]:
    """Distances and whole percents of the listed sets."""
    found = []
    for text in rows:
        score, distance = re.fullmatch(r"(< 1|\d+) % [●◐○]\s+(this set|\d+).*", text).groups()  # type: ignore[union-attr]
        found.append((0 if distance == "this set" else int(distance), 0 if score == "< 1" else int(score)))
    return found


def test_switching_patches_finds_the_nearest_sets_and_their_scores(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    page.get_by_role("button", name="Keep none").click()
    chosen: set[int] = set()
    for patch in (0, *graph["nodes"][2]["patches"]):
        page.locator(f"[data-patch='{patch}']").click()
        chosen ^= {patch}
        listed = said(page.locator(".panel .rows button").all_inner_texts())
        assert listed == [(d, int(100 * r + 1e-9)) for d, _, r in ranked(graph, chosen)[:5]]
        assert "Not in the graph. A guess from" in page.locator(".caption").inner_text()
        few = [(d, i) for d, i, _ in ranked(graph, chosen)[:4]]
        near = {i for d, i in few if d <= few[0][0] + 1}
        assert has(page, "near") == near & visible(page)
        assert near & visible(page)
    page.locator("[data-patch='0']").click()
    exact = graph["nodes"][2]
    assert f"In the graph: keeps {int(100 * exact['relative'])} %" in page.locator(".caption").inner_text()
    assert said(page.locator(".panel .rows button").all_inner_texts())[0][0] == 0
    assert f"keep={'.'.join(map(str, exact['patches']))}" in page.url
    page.locator(".panel .rows button").first.click()
    assert has(page, "active") == {2}


def test_patches_are_switched_by_keys(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    page.locator("[data-patch='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    held = page.evaluate("() => document.activeElement.dataset.patch")
    assert held == "7"
    page.keyboard.press("Space")
    assert pressed(page) == {*graph["nodes"][0]["patches"]} ^ {7}
    assert page.locator(".caption").get_attribute("role") == "status"
    page.keyboard.press("Escape")
    assert pressed(page) == {*graph["nodes"][0]["patches"]}


# ---- keys --------------------------------------------------------------------------------------------------------


def held_node(page: Any) -> int:
    return int(page.evaluate("() => document.activeElement.dataset.node ?? -1"))


def test_arrows_lead_to_parents_children_and_neighbours(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph), anchor="#fold=0")
    while held_node(page) < 0:
        page.keyboard.press("Tab")
    at = held_node(page)
    assert graph["nodes"][at]["root"]
    best = max(ends(graph, at)[1], key=lambda i: graph["nodes"][i]["relative"])
    page.keyboard.press("ArrowDown")
    assert held_node(page) == best
    assert has(page, "active") == {best}
    page.keyboard.press("End")
    last = held_node(page)
    page.keyboard.press("Home")
    first = held_node(page)
    level = [n["id"] for n in graph["nodes"] if len(n["patches"]) == 2]
    seen = [first]
    for _ in level[1:]:
        page.keyboard.press("ArrowRight")
        seen.append(held_node(page))
    assert seen[-1] == last
    assert sorted(seen) == level
    page.keyboard.press("ArrowUp")
    assert held_node(page) == max(ends(graph, last)[0], key=lambda i: graph["nodes"][i]["relative"])
    page.keyboard.press("Enter")
    assert f"node={held_node(page)}" in page.url
    page.keyboard.press("Escape")
    assert "node=" not in page.url


def test_one_stop_of_the_tab_key_is_the_whole_graph(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph), anchor="#fold=0")
    assert page.locator("[data-node][tabindex='0']").count() == 1
    assert page.locator("[data-patch][tabindex='0']").count() == 1


def test_low_children_are_folded_and_unfolded_by_button_and_key(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    relative = {n["id"]: n["relative"] for n in graph["nodes"]}
    roots = {n["id"] for n in graph["nodes"] if n["root"]}
    assert {i for i in visible(page) if i not in roots} == {i for i, r in relative.items() if r >= 0.4} - roots
    parent = next(i for i in visible(page) if any(relative[c] < 0.4 for c in ends(graph, i)[1]))
    low = {c for c in ends(graph, parent)[1] if relative[c] < 0.4}
    chip = page.locator(f"li:has([data-node='{parent}']) .chip")
    assert chip.inner_text() == f"+{len(low)}"
    chip.click()
    assert low <= visible(page)
    assert f"open={parent}" in page.url
    assert held_node(page) == parent
    page.keyboard.press("-")
    assert not low & visible(page)
    page.keyboard.press("+")
    assert low <= visible(page)


def test_the_question_mark_lists_the_keys(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    assert "pin the node" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.count() == 0


# ---- size, access, safety ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 1300])
def test_two_hundred_nodes_lie_apart_and_within_the_page(large: dict[str, Any], opened: Open, width: int) -> None:
    page = opened(graph_page(large), width=width, anchor="#fold=0")
    assert len(visible(page)) == len(large["nodes"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(
        "() => [...document.querySelectorAll('[data-node]')].map(b => b.getBoundingClientRect().toJSON())"
    )
    lefts, tops, rights, bottoms = (np.array([b[k] for b in boxes]) for k in ("left", "top", "right", "bottom"))
    across = np.minimum(rights[:, None], rights) - np.maximum(lefts[:, None], lefts)
    down = np.minimum(bottoms[:, None], bottoms) - np.maximum(tops[:, None], tops)
    overlaps = (across > 0.5) & (down > 0.5)
    assert overlaps.sum() == len(boxes)  # each with itself
    node(page, 0).hover()
    assert has(page, "child") == ends(large, 0)[1]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 360)])
def test_axe_finds_nothing(graph: dict[str, Any], large: dict[str, Any], opened: Open, scheme: str, width: int) -> None:
    for html in (graph_page(graph), quiz_page([large, graph])):
        page = opened(html, width=width, color_scheme=scheme, bypass_csp=True)
        assert violations(page) == []
        if page.get_by_role("button", name="Start").count():
            page.get_by_role("button", name="Start").click()
            page.locator("[data-question='1']").wait_for(timeout=WAIT)
            assert violations(page) == []


def violations(page: Any) -> list[str]:
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
    return [f"{v['id']}: {[n['html'] for n in v['nodes']]}" for v in found["violations"]]


def test_axe_would_find_something(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph), bypass_csp=True)
    page.locator("[data-node='0']").evaluate("b => { b.removeAttribute('aria-label'); b.replaceChildren() }")
    assert any(v.startswith("button-name") for v in violations(page))


def test_nodes_say_what_they_are(graph: dict[str, Any], opened: Open) -> None:
    page = opened(graph_page(graph))
    root = graph["nodes"][0]
    row, column = divmod(root["patches"][0], 7)
    says = node(page, 0).get_attribute("aria-label")
    assert says.startswith(f"Root; keeps {int(100 * root['relative'])} % of the score, holds; 3 patches: ")
    assert f"row {row + 1}, column {column + 1}; " in says
    assert "0 parents, 3 children" in says


def test_names_are_text_and_the_policy_stops_what_is_not_the_pages_own(graph: dict[str, Any], opened: Open) -> None:
    evil = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    named = graph | {"target": {"index": 0, "name": evil}, "model": evil}
    page = opened(graph_page(named))
    assert evil in page.title()
    assert evil in page.locator("header").inner_text()
    page.evaluate("() => fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert any("Content Security Policy" in text for text in page.heard)
    page.heard.clear()
    assert quiz_page([graph], names=[evil]).count("<script") == 2


# ---- the quiz ----------------------------------------------------------------------------------------------------


def test_a_quiz_is_answered_from_end_to_end_and_its_answers_read_back(opened: Open, tmp_path: Path) -> None:
    graphs = [attention_graph(roots=2, size=3, depth=3, seed=seed) for seed in range(3)]
    maps = {"=grad_cam": [uri(np.full((16, 16, 3), 70 * i, np.uint8)) for i in range(3)]}
    page = opened(quiz_page(graphs, maps=maps, questions=2, names=["a", "-b", "c, d"]))
    page.locator("[name=reader]").fill("7")
    page.get_by_role("button", name="Start").click()
    helps = set()
    for number in range(6):
        page.locator(f"[data-question='{number + 1}']").wait_for(timeout=WAIT)
        asked = page.locator(".pictures canvas").first
        assert pixels(asked).std() > 5
        board, picture = page.locator(".board").count(), page.locator(".map img").count()
        helps.add((board, picture))
        if board:
            assert has(page, "near")
        if number % 2:
            page.locator("[data-says='loses']").click()
        else:
            page.keyboard.press("k")
    assert helps == {(0, 0), (1, 0), (0, 1)}
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the answers").click()
    file = tmp_path / "answers.csv"
    download.value.save_as(file)
    assert download.value.suggested_filename == "whylens-quiz-7.csv"

    import csv

    rows = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    assert [row["answer"] for row in rows] == ["keeps", "loses"] * 3
    assert {row["photo"] for row in rows} == {"a", "'-b", "c, d"}
    assert {row["condition"] for row in rows} == {"none", "graph", "'=grad_cam"}
    by_name = dict(zip(["a", "'-b", "c, d"], graphs, strict=True))
    for row in rows:
        patches = [int(p) for p in row["patches"].split()]
        (own,) = (n for n in by_name[row["photo"]]["nodes"] if n["patches"] == patches)
        assert float(row["relative"]) == pytest.approx(own["relative"], abs=1e-6)
        assert row["truth"] == ("keeps" if own["relative"] >= 0.5 else "loses")
        assert row["correct"] == str(int(row["truth"] == row["answer"]))
        assert 0 < float(row["seconds"]) < 60
    found = summarise(file)
    assert [f.condition for f in found] == ["none", "graph", "=grad_cam"]
    assert [f.accuracy.n for f in found] == [2, 2, 2]
    table = [r.split("\t") for r in page.locator("tbody tr").all_inner_texts()]
    right = [sum(r["correct"] == "1" and r["condition"].lstrip("'") == f.condition for r in rows) for f in found]
    assert [[t[0], t[1], t[2]] for t in table] == [
        [f.condition, "2", str(n)] for f, n in zip(found, right, strict=True)
    ]


# ---- the build ---------------------------------------------------------------------------------------------------


def test_the_built_scripts_are_those_of_the_source(tmp_path: Path) -> None:
    assert AXE.exists(), "The packages of viewer/ are not installed. Run tools/viewer."
    subprocess.run(["node", VIEWER / "build.mjs", str(tmp_path)], cwd="/", check=True)
    committed = ROOT / "src/whylens/view/static"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in committed.iterdir())
    for built in tmp_path.iterdir():
        assert built.read_bytes() == (committed / built.name).read_bytes(), (
            f"{built.name}: run npm run build in viewer/"
        )
