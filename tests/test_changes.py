"""Two runs over the same images: what flipped, by how much, whose focus moved, and which runs are refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whylens
from test_compare import BOX, CORNER, COUNT, EVERYWHERE, images, model
from whylens import InputError, interval
from whylens.comparison.changes import Changes, ClassChange, Flip
from whylens.comparison.runs import _flips as flips
from whylens.comparison.runs import _least_moved, changes
from whylens.interval import Interval

__all__ = ["images"]  # a fixture

METRICS = ["energy_inside"]


@pytest.fixture(scope="module")
def runs(images: whylens.Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, whylens.Run]:
    """A net that looks at the corner, one that looks at the object, the same with the focus unmeasured."""
    folder = tmp_path_factory.mktemp("runs")
    parts = {"corner": CORNER, "object": BOX, "everywhere": EVERYWHERE}
    made = {
        name: whylens.audit(model(part, "net"), images, out=folder / name, metrics=METRICS, workers=1)
        for name, part in parts.items()
    }
    bare = (whylens.audit(model(BOX, "net"), images, out=folder / "bare", methods=["saliency", "grad_cam"], workers=1),)
    return {**made, "bare": bare[0]}


@pytest.fixture(scope="module")
def found(runs: dict[str, whylens.Run]) -> Changes:
    return whylens.compare([runs["corner"], runs["object"]])


def test_what_flipped(found: Changes, images: whylens.Images) -> None:
    """The corner lies in image 0, 4 and 8, all red; nothing is lost."""
    assert [flip.key for flip in found.flips] == [images.ids[k] for k in (0, 4, 8)]
    assert {(f.label, f.before, f.after, f.change) for f in found.flips} == {("red", "green", "red", "wrong to right")}
    assert found.other_wrong == 0
    assert found.accuracy_before == interval.wilson(9, 12)
    assert found.accuracy_after == interval.wilson(12, 12)
    by_hand = interval.mean(np.array([1.0 if k in (0, 4, 8) else 0.0 for k in range(COUNT)]))
    assert found.accuracy_change == by_hand
    assert 0 <= by_hand.low < 0.25 < by_hand.high < 1


def test_whose_focus_moved(found: Changes) -> None:
    """From nothing inside the object to all of it; of red only three have kept their target, too few to say."""
    assert {c.name: (c.images, c.moved) for c in found.classes} == {"red": (6, False), "green": (6, True)}
    for change, same in zip(sorted(found.classes, key=lambda c: c.name), (6, 3), strict=True):
        assert change.focus is not None
        assert (change.focus.value, change.focus.n) == (pytest.approx(1.0), same)
        assert change.alike.value == pytest.approx(0.0, abs=1e-6)
    assert found.moved == ("green",)
    assert found.alike.n == 9
    assert "3 images have another target now" in found.text()


def test_the_other_way_round(runs: dict[str, whylens.Run], found: Changes) -> None:
    back = whylens.compare([runs["object"], runs["corner"]])
    assert [f.key for f in back.flips] == [f.key for f in found.flips]
    assert {f.change for f in back.flips} == {"right to wrong"}
    assert back.accuracy_change.value == -found.accuracy_change.value
    assert back.alike == found.alike


def test_nothing_changed(runs: dict[str, whylens.Run]) -> None:
    same = whylens.compare([runs["object"], runs["object"]])
    assert same.flips == ()
    assert same.moved == ()
    assert (same.accuracy_change.value, same.alike.value) == (0.0, pytest.approx(1.0))
    assert all(c.focus is not None and c.focus.value == 0 for c in same.classes)


def test_the_energy_is_that_of_the_store(runs: dict[str, whylens.Run]) -> None:
    wide = whylens.compare([runs["object"], runs["everywhere"]])
    column = "metric.energy_inside.grad_cam"
    tables = [runs[name].table(["label", "prediction", column]).to_pylist() for name in ("object", "everywhere")]
    pairs = [(a, b) for a, b in zip(*tables, strict=True) if a["label"] == "red" and a["prediction"] == b["prediction"]]
    by_hand = np.mean([b[column] - a[column] for a, b in pairs])
    (red,) = (c for c in wide.classes if c.name == "red")
    assert red.focus is not None
    assert red.focus.value == pytest.approx(by_hand, abs=1e-6)
    assert red.focus.value < 0
    assert 0 < red.alike.value < 1


def test_maps_alone_say_what_changed(runs: dict[str, whylens.Run]) -> None:
    """Where no focus was measured, a class whose maps are less alike than all maps are has moved."""
    bare = whylens.compare([runs["object"], runs["bare"]])
    assert bare.method == "grad_cam"
    assert all(c.focus is None and not c.moved for c in bare.classes)
    assert "not whether for the better" in bare.rule
    named = whylens.compare([runs["bare"], runs["object"]], methods="grad-cam")
    assert named.method == "grad_cam"


def test_classes_of_which_one_moves(monkeypatch: pytest.MonkeyPatch, runs: dict[str, whylens.Run]) -> None:
    from whylens.comparison import runs as module

    odd = np.array([0.2 if k % 2 else 0.9 for k in range(COUNT)]) + np.linspace(0, 0.01, COUNT)
    monkeypatch.setattr(module, "_alike", lambda *_: odd)
    found = whylens.compare([runs["object"], runs["bare"]])
    assert found.moved == ("green",)
    assert [c.name for c in found.classes] == ["green", "red"]


def test_the_order_of_what_flipped() -> None:
    """What was lost first, then by how sure the net now is."""

    def row(number: int, correct: bool, sure: float) -> dict[str, Any]:
        word = "a" if correct else "b"
        return {"image_id": number, "key": f"{number}.png", "label": "a", "prediction": word, "probability": sure,
                "correct": correct}  # fmt: skip

    given = [(False, True, 0.9), (True, False, 0.6), (True, False, 0.8), (True, True, 0.7), (False, True, 0.95)]
    pairs = [(row(k, one, 0.5), row(k, two, sure)) for k, (one, two, sure) in enumerate(given)]
    found = [(flip.key, flip.change, flip.probability_after) for flip in flips(pairs)]
    assert found == [
        ("2.png", "right to wrong", 0.8), ("1.png", "right to wrong", 0.6),
        ("4.png", "wrong to right", 0.95), ("0.png", "wrong to right", 0.9),
    ]  # fmt: skip


def test_classes_without_a_shared_target_come_last() -> None:
    def change(name: str, focus: float | None, alike: float, moved: bool = False) -> ClassChange:
        nothing = interval.wilson(0, 0)
        shift = None if focus is None else Interval(focus, focus, focus, 6)
        return ClassChange(name, 6, nothing, nothing, shift, Interval(alike, alike, alike, 6), moved)

    nan = float("nan")
    given = [change("a", nan, nan), change("b", 0.1, 0.9), change("c", -0.3, 0.2), change("d", 0.05, 0.9, True)]
    assert [c.name for c in sorted(given, key=_least_moved)] == ["d", "c", "b", "a"]
    given = [change("a", None, nan), change("b", None, 0.9), change("c", None, 0.2)]
    assert [c.name for c in sorted(given, key=_least_moved)] == ["c", "b", "a"]


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_runs_that_do_not_compare(runs: dict[str, whylens.Run], images: whylens.Images, tmp_path: Path) -> None:
    def other(name: str, **given: Any) -> whylens.Run:
        asked = {"model": model(BOX, "net"), "images": images, "methods": ["grad_cam"], **given}
        return whylens.audit(asked.pop("model"), asked.pop("images"), out=tmp_path / name, workers=1, **asked)

    one = runs["object"]
    others = {
        "images": other("fewer", images=images.subset(slice(0, 6))),
        "targets": other("aimed", target=0),
        "scores": other("probable", score="probability"),
    }
    for what, run in others.items():
        with pytest.raises(InputError, match=rf"the {what} of '.*object' and '.*' differ\. Audit both models over"):
            whylens.compare([one, run])
    renamed = whylens.Model(model(BOX).net, preprocess=model().preprocess, classes=["a", "b"], layer="cells")
    with pytest.raises(InputError, match="the classes of"):
        whylens.compare([one, other("renamed", model=renamed)])
    settings = [other(f"rise-{n}", methods=[whylens.Method("rise", params={"samples": n}, label="r")]) for n in (4, 5)]
    with pytest.raises(InputError, match="the settings of r of"):
        whylens.compare(settings)
    with pytest.raises(InputError, match="no method in common: grad_cam and r"):
        whylens.compare([one, settings[0]])
    with pytest.raises(InputError, match="No method in this run 'saliency'"):
        whylens.compare([one, runs["bare"]], methods="saliency")


def test_what_cannot_be_asked_of_runs(runs: dict[str, whylens.Run], images: whylens.Images) -> None:
    one = runs["object"]
    with pytest.raises(InputError, match=r"two runs can be compared, and nothing beside them\. Got 1"):
        whylens.compare([one])
    with pytest.raises(InputError, match="two runs can be compared"):
        whylens.compare([one, model()])  # type: ignore[list-item]
    with pytest.raises(InputError, match="Leave images out"):
        whylens.compare([one, one], images)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="Name one"):
        whylens.compare([one, one], methods=["grad_cam", "saliency"])


# ---- written ---------------------------------------------------------------------------------------------------------


def test_as_files(found: Changes, tmp_path: Path) -> None:
    folder = found.save(tmp_path / "out")
    assert {p.name for p in folder.iterdir()} == {
        "flips.csv", "classes.csv", "changes.md", "changes.html", "changes.json",
    }  # fmt: skip
    rows = list(csv.DictReader(StringIO((folder / "flips.csv").read_text("utf-8"))))
    assert [row["change"] for row in rows] == ["wrong to right"] * 3
    assert float(rows[0]["p after"]) == pytest.approx(found.flips[0].probability_after, abs=1e-3)
    assert len(list(csv.DictReader(StringIO((folder / "classes.csv").read_text("utf-8"))))) == 2
    said = json.loads((folder / "changes.json").read_text("utf-8"))
    assert (said["format"], len(said["flips"]), said["accuracy_change"]["n"]) == (1, 3, COUNT)
    page = (folder / "changes.html").read_text("utf-8")
    assert page.count('<table class="sortable">') == 2
    assert "Classes: 1 moved" in page


def test_as_text(found: Changes) -> None:
    text = found.text()
    assert "Flipped: 0 from right to wrong, 3 from wrong to right; 0 from one wrong class to another." in text
    assert "change +0.250 [+0.000, +0.500]" in text or "change +0.250 [+0.083, +0.500]" in text
    many = replace(found, flips=tuple(replace(found.flips[0], key=f"{k}.png") for k in range(30)))
    assert "and 10 more flipped images" in many.text()
    assert "29.png" in many.markdown()


def test_a_name_that_a_table_program_would_run(found: Changes) -> None:
    odd = replace(found, flips=(Flip("=1+1.png", "-", "@a", "b", float("nan"), 0.5, "right to wrong"),))
    assert odd.csv().splitlines()[1] == "'=1+1.png,'-,'@a,b,'-,0.500,right to wrong"


def test_the_command(command: Callable[..., Any], runs: dict[str, whylens.Run], found: Changes, tmp_path: Path) -> None:
    folders = [runs[name].folder for name in ("corner", "object")]
    said = command("compare", *folders, "--out", tmp_path / "out")
    assert said.code == 0, said
    assert said.out == f"{found.text()}\nWritten to {tmp_path / 'out'}\n"
    assert json.loads(command("compare", *folders, "--json").out) == json.loads(json.dumps(found.as_dict()))
    assert changes([runs["corner"], runs["object"]]).text() == found.text()
