"""The report of a run: groups worth a look and acts as they are, the newest of them; a page that a browser likes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whylens
from synthetic_shortcut import shortcut, write
from test_page import Read
from whylens import InputError
from whylens.act_record import read_record, records_of
from whylens.errors import DamageError
from whylens.view.effects import acts_of
from whylens.view.groups import CROPS, groupings

AXE = Path(__file__).parents[1] / "viewer/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my pictures")


@pytest.fixture(scope="module")
def run(folder: Path) -> whylens.Run:
    """Audited, not grouped."""
    images = write(folder / "test", 200, seed=1)
    return whylens.audit(shortcut(), images, out=folder / "run", methods=["layer_cam"], workers=1)


@pytest.fixture(scope="module")
def acted(run: whylens.Run, folder: Path) -> tuple[whylens.Run, whylens.Groups, list[Any]]:
    """The run, copied and grouped, and three acts on the group of what is green."""
    copy = whylens.open_run(shutil.copytree(run.folder, folder / "grouped"))
    groups = whylens.group(copy, model=shortcut())
    images = write(folder / "swapped", 50, seed=2, swapped=True)
    train = write(folder / "train", 200, seed=0)
    asked: list[tuple[str, dict[str, Any]]] = [
        *(("keep", {}), ("mask", {})),
        ("retrain", {"train": train, "images": images, "share": 0.4}),
    ]
    acts = [whylens.act(copy, groups[0], action, model=shortcut(), **more) for action, more in asked]
    return copy, groups, acts


@pytest.fixture
def copy(acted: Any, tmp_path: Path) -> whylens.Run:
    """Of the run with groups and acts, to be altered."""
    return whylens.open_run(shutil.copytree(acted[0].folder, tmp_path / "copy"))


def page(run: whylens.Run, tmp_path: Path, **more: Any) -> tuple[str, Read]:
    html = whylens.report(run, tmp_path / "report.html", **more).read_text("utf-8")
    return html, Read(html)


def section(html: str, name: str) -> str:
    """A section of the page."""
    return re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)[0]  # type: ignore[index]


def table(html: str, name: str) -> list[list[str]]:
    """The cells of the table of that name."""
    body = re.search(rf'aria-label="{name}".*?<tbody>(.*?)</tbody>', html, re.DOTALL)[1]  # type: ignore[index]
    return [re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]


# ---- what it shows ---------------------------------------------------------------------------------------------------


def test_a_run_without_groups_has_neither_sections_nor_links(run: whylens.Run, tmp_path: Path) -> None:
    _, read = page(run, tmp_path)
    assert not [s for s in read.all("section") if "id" in s] + read.all("nav") + read.all("a") + read.all("svg")
    assert "Accuracy" in read.text
    assert groupings(run) == []


def test_groups_worth_a_look_are_told_in_words_figures_and_pictures(acted: Any, tmp_path: Path) -> None:
    run, groups, _ = acted
    html, read = page(run, tmp_path)
    odd = [g for g in groups if g.reasons > 1]
    assert len(odd) == 2
    assert [a["href"] for a in read.all("a")] == ["#groups", "#acts"]
    rows = table(html, "groups worth a look")
    assert [row[:2] for row in rows] == [[g.name, str(g.size)] for g in odd]
    for row, g in zip(rows, odd, strict=True):
        pairs = [("decides", "decides_control"), ("needed", "needed_control"), ("carries", "carries_control")]
        shares = [f"{getattr(g.tested, a).value:.0%} ({getattr(g.tested, b).value:.0%})" for a, b in pairs]
        assert row[2:] == [f"{i.value:.0%}" for i in (g.share, g.accuracy, g.accuracy_rest)] + shares
        tests = table(html, f"tests of {g.name}")
        assert [row[1:] for row in tests] == [[str(getattr(g.tested, a)), str(getattr(g.tested, b))] for a, b in pairs]
        beside = {row[0]: row[1:] for row in table(html, f"{g.name} beside its class")}
        assert beside["confidence"] == [str(g.confidence), str(g.confidence_rest)]
        shown = [i["alt"] for i in read.all("img") if i["alt"].startswith(f"evidence of {g.name} in ")]
        nearest = list(
            dict.fromkeys(run.table(["key"]).column(0)[int(groups.points.image[p])].as_py() for p in g.points)
        )
        assert shown == [f"evidence of {g.name} in {key}" for key in nearest[:CROPS]]
    assert "green = 1: 100% here, 0% elsewhere" in read.text
    assert f"stability {groups.stability:.2f}" in read.text
    assert [i for i in read.all("img") if i["alt"].startswith("Map of all points")]


def test_every_act_stands_beside_its_controls(acted: Any, tmp_path: Path) -> None:
    run, groups, acts = acted
    html, _ = page(run, tmp_path)
    parts = section(html, "acts").split("<article>")[1:]
    assert len(parts) == 3
    for part, effect in zip(parts, acts, strict=True):
        assert f"<h3>{effect.action} &#x27;{groups[0].name}&#x27;: {effect.verdict}</h3>" in part
        assert f"{effect.measured}: {effect.before} before, {effect.after} after, on {effect.n} images." in part
        rows = table(part, f"changes by {effect.action} of {groups[0].name}")
        assert [[row[0], row[1], row[3]] for row in rows] == [
            [effect.action, str(effect.change), ""],
            *([f"control: {k}", str(v), str(effect.beyond[k])] for k, v in effect.controls.items()),
        ]
    assert "share 0.4" in parts[2]
    assert "`" not in section(html, "acts")


def test_changes_are_drawn_to_one_scale(acted: Any, tmp_path: Path) -> None:
    html, _ = page(acted[0], tmp_path)
    part, effect = section(html, "acts").split("<article>")[3], acted[2][2]
    drawn = re.findall(r"<svg.*?</svg>", part)
    changes = [effect.change, *effect.controls.values()]
    assert len(drawn) == len(changes)
    zeros = {re.search(r'class="zero" x1="([\d.]+)"', one)[1] for one in drawn}  # type: ignore[index]
    (zero,) = map(float, zeros)
    at = [float(re.search(r'cx="([\d.]+)"', one)[1]) - zero for one in drawn]  # type: ignore[index]
    scale = at[0] / effect.change.value
    drawn_at = [float(x) for x in re.findall(r' (?:x1|x2|cx)="([\d.]+)"', part)]
    assert (min(drawn_at), max(drawn_at)) == (6, 218)  # all of the width, but for a dot's room
    np.testing.assert_allclose(at, [scale * found.value for found in changes], atol=0.11)
    low, high = map(float, re.search(r'<line x1="([\d.]+)" x2="([\d.]+)"', drawn[0]).groups())  # type: ignore[union-attr]
    np.testing.assert_allclose(
        [low - zero, high - zero], [scale * effect.change.low, scale * effect.change.high], atol=0.11
    )


def test_the_grouping_written_last_is_shown_unless_another_is_named(copy: whylens.Run, tmp_path: Path) -> None:
    main = whylens.open_groups(copy)
    other = whylens.group(copy, name="images", per="image", tests=0, model=shortcut())
    assert groupings(copy) == ["images", "main"]
    assert "Grouping 'images', version 1" in page(copy, tmp_path)[1].text
    assert "Grouping 'main', version 1" in page(copy, tmp_path, grouping="main")[1].text
    named = main.rename(0, "gr<ee>n")
    os.utime(main.folder / "v0002.json", ns=(2**62, 2**62))
    text = page(copy, tmp_path)[1].text
    assert "Grouping 'main', version 2" in text
    assert "gr<ee>n" in text
    assert f"keep '{main[0].name}': helped" in text  # as it was called then
    assert len(named) == len(main)
    assert len(other) > 0
    with pytest.raises(InputError, match=r"No grouping in this run 'mian'\. Did you mean 'main'"):
        whylens.report(copy, tmp_path / "none.html", grouping="mian")
    assert not (tmp_path / "none.html").exists()


def test_where_no_class_has_two_reasons_the_largest_groups_are_shown(copy: whylens.Run, tmp_path: Path) -> None:
    groups = whylens.open_groups(copy)
    odd = [g for g in groups if g.reasons > 1]
    left = groups.merge([g.name for g in odd])
    assert all(g.reasons == 1 for g in left)
    html, read = page(copy, tmp_path)
    assert "nothing is worth a look" in read.text
    assert 'aria-label="groups worth a look"' not in html
    largest = sorted(left, key=lambda g: -g.size)
    assert re.findall(r"<h3>(.*?)</h3>", section(html, "groups")) == [g.name for g in largest]


# ---- what is damaged or gone -----------------------------------------------------------------------------------------


def test_a_damaged_grouping_or_record_is_said_and_the_rest_is_shown(copy: whylens.Run, tmp_path: Path) -> None:
    folder = copy.folder / "derived" / "groups" / "main"
    (folder / "acts" / "0002.json").write_text("{")
    said = json.loads((folder / "acts" / "0003.json").read_text())
    (folder / "acts" / "0003.json").write_text(json.dumps({**said, "format": 2}))
    text = page(copy, tmp_path)[1].text
    assert "0002.json' is damaged" in text
    assert "0003.json' is of a newer format" in text
    assert "keep 'warm" in text
    assert "mask 'warm" not in text
    (folder / "v0001.json").write_text("{}")
    text = page(copy, tmp_path)[1].text
    assert "v0001.json' is damaged" in text
    assert "keep 'warm" in text
    assert "Accuracy" in text
    (folder / "v0001.json").unlink()  # killed before its first version: no grouping yet
    assert groupings(copy) == []


def test_without_photos_the_figures_remain(acted: Any, tmp_path: Path) -> None:
    where = acted[0].folder.parent / "test"
    where.rename(where.with_name("gone"))
    try:
        html, read = page(acted[0], tmp_path)
    finally:
        where.with_name("gone").rename(where)
    assert read.text.count(f"{CROPS} photos are not at hand") == 2
    assert "evidence of" not in html
    assert len(table(html, "groups worth a look")) == 2


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_record_is_read_back_as_it_was(acted: Any, tmp_path: Path) -> None:
    run, groups, acts = acted
    assert [path.name for path in records_of(groups.folder)] == ["0001.json", "0002.json", "0003.json"]
    held, lost = acts_of(run, ["main"])
    assert lost == []
    assert [done.effect for done in held] == acts
    assert [done.params for done in held] == [{}, {}, {"share": 0.4}]
    assert {(done.group, done.image_ids, done.version) for done in held} == {(groups[0].name, groups[0].ids, 1)}
    assert held[0].effect.record == acts[0].record
    for text in ("", "[]", "{}", '{"format": 1}', '{"format": "a"}', '{"format": 1, "effect": {}, "image_ids": []}'):
        (tmp_path / "0001.json").write_text(text)
        with pytest.raises(DamageError, match="is damaged: it is no record of an act"):
            read_record(tmp_path / "0001.json")
    with pytest.raises(DamageError):
        read_record(tmp_path / "none.json")


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1300, 390])
def test_a_browser_finds_nothing_wrong(acted: Any, tmp_path: Path, browser: Any, width: int) -> None:
    page(acted[0], tmp_path)
    uri = (tmp_path / "report.html").as_uri()
    heard: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 800})
    opened = context.new_page()
    opened.on("console", lambda m: heard.append(m.text))
    opened.on("pageerror", lambda e: heard.append(str(e)))
    opened.on("request", lambda r: r.url.startswith(("data:", uri)) or heard.append(r.url))
    opened.goto(uri)
    assert opened.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    widths = opened.evaluate("() => [...document.images].map(i => i.naturalWidth)")
    assert min(widths) > 0
    opened.keyboard.press("Tab")
    opened.keyboard.press("Tab")
    assert opened.evaluate("() => document.activeElement.hash") == "#acts"
    opened.keyboard.press("Enter")
    top = opened.locator("#acts").bounding_box()["y"]
    assert top < 800
    opened.keyboard.press("Tab")
    inside = "() => document.getElementById('acts').contains(document.activeElement)"
    assert opened.evaluate(inside)  # a wide table can be scrolled by keys
    assert heard == []
    context.close()
    free = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True)
    tested = free.new_page()
    tested.goto(uri)
    tested.add_script_tag(path=str(AXE))
    found = tested.evaluate("async () => (await axe.run()).violations.map(v => [v.id, v.nodes[0].html])")
    free.close()
    assert found == []
