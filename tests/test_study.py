"""The locality study: one record per photo, safe and resumed; curves and shares by hand; files that say the same."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from test_sufficient import conv
from whylens import InputError, Model, Preprocess
from whylens.graph import attention_graph
from whylens.interval import wilson
from whylens.study import Study, open_study, study
from whylens.study_summary import curve

QUICK: dict[str, Any] = {"grid": 3, "baseline": "black", "beam": 2}


def small() -> Model:
    model = conv()
    return Model(model.net, preprocess=Preprocess((24, 24), 24), classes=["a", "b", "c"], layer="2", name="small")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos of noise, the fourth broken."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for k in range(5):
        Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    (folder / "3.png").write_bytes(b"\x89PNG broken")
    return folder


def run(photos: Path, out: Path, **more: Any) -> Study:
    return study(small(), photos, out=out, methods=["grad_cam"], params=QUICK, **more)


def test_every_photo_has_a_record(photos: Path, tmp_path: Path) -> None:
    made = run(photos, tmp_path / "study")
    assert [row["key"] for row in made.rows] == [f"{k}.png" for k in range(5)]
    assert list(made.failures) == ["3.png"]
    for row in made.done:
        assert set(row["needed"]) == {"igos:iterations=2,steps=20", "grad_cam"}
        for score in row["scores"]:
            assert score > 0.9 * row["full"]
        assert row["areas"] == pytest.approx([len(patches) / 9 for patches in row["sets"]])
    assert not list((tmp_path / "study").rglob("*.tmp"))


def test_a_row_is_what_the_graph_says(photos: Path, tmp_path: Path) -> None:
    row = run(photos, tmp_path / "study").rows[0]
    graph = attention_graph(small(), photos / "0.png", grid=3, baseline="black", params={"beam": 2})
    assert row["overlap"] == dict(graph.overlap)
    assert row["full"] == graph.score_full
    roots = [list(node.patches) for node in graph.roots]
    assert all(patches in row["sets"] for patches in roots)


def test_what_a_ranking_needs_by_hand(photos: Path, tmp_path: Path) -> None:
    row = run(photos, tmp_path / "study").rows[1]
    model, image = small(), whylens.load_images(photos / "1.png")
    cam = whylens.explain(model, image, method="grad_cam").at((24, 24))[0, 0]
    frame = model.prepare(image[0].pixels)[0]
    values = [float(cam[8 * (k // 3) : 8 * (k // 3) + 8, 8 * (k % 3) : 8 * (k % 3) + 8].mean()) for k in range(9)]
    order = sorted(range(9), key=lambda k: -values[k])
    for count in range(10):
        shown = torch.zeros(24, 24)
        for k in order[:count]:
            shown[8 * (k // 3) : 8 * (k // 3) + 8, 8 * (k % 3) : 8 * (k % 3) + 8] = 1
        if float(model.predict((frame * shown)[None])[0, row["target"]]) > 0.9 * row["full"]:
            break
    assert row["needed"]["grad_cam"] == count


def test_a_stopped_study_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(photos, tmp_path / "whole")
    out, asked = tmp_path / "stopped", []
    module = importlib.import_module("whylens.study")

    plain = module.sufficient

    def stops(probe: Any, **more: Any) -> Any:
        asked.append(probe)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return plain(probe, **more)

    monkeypatch.setattr(module, "sufficient", stops)
    with pytest.raises(KeyboardInterrupt):
        run(photos, out)
    assert [row["key"] for row in open_study(out).rows] == ["0.png", "1.png"]
    torn = out / "records" / "00000" / "00000001.json"
    torn.write_bytes(torn.read_bytes()[:40])
    assert len(open_study(out).rows) == 1
    asked[:] = [None] * 3
    made = run(photos, out)
    assert len(asked) == 3 + 3  # the torn one, the one it stopped at, and the last; the broken photo is not searched
    for one, other in zip(made.rows, whole.rows, strict=True):
        skip = ("seconds", "sha256")
        assert {k: v for k, v in one.items() if k not in skip} == {k: v for k, v in other.items() if k not in skip}
    before = {p: p.stat().st_mtime_ns for p in (out / "records").rglob("*.json")}
    run(photos, out)
    assert {p: p.stat().st_mtime_ns for p in (out / "records").rglob("*.json")} == before


def test_another_study_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    run(photos, out)
    with pytest.raises(InputError, match="other settings: seed was 0 and is 1"):
        run(photos, out, seed=1)
    with pytest.raises(InputError, match="other settings: target was None and is 1"):
        run(photos, out, target=1)
    with pytest.raises(InputError, match="other settings: rankings"):
        study(small(), photos, out=out, methods=["saliency"], params=QUICK)
    (photos / "5.png").write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(InputError, match="other images"):
        run(photos, out)
    other = small()
    torch.nn.init.ones_(other.net[0].bias)
    with pytest.raises(InputError, match="with another model: their weights differ"):
        study(other, photos, out=out, methods=["grad_cam"], params=QUICK)
    with pytest.raises(InputError, match="holds other files"):
        run(photos, photos)
    with pytest.raises(InputError, match="holds no study"):
        open_study(photos)


def test_a_method_that_raises_is_a_reason(photos: Path, tmp_path: Path) -> None:
    made = study(small(), photos, out=tmp_path / "s", params={"grid": 5, "search": "exhaustive"}, guide="none")
    assert len(made.failures) == 5
    assert "at most 16 units. Got 25" in made.failures["0.png"]
    assert "5 photos, 5 failed" in str(made)
    assert made.write(tmp_path / "out")


def test_a_curve_by_hand() -> None:
    values = [1 / 49, 10 / 49, 11 / 49, 2.0]
    found = curve(values)
    assert len(found) == 101
    assert [found[k] for k in (0, 2, 3, 20, 21, 22, 23, 100)] == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert curve([0.2, 0.1 + 0.1 + 1e-9])[20] == 1.0
    assert curve([]) == []


def test_the_summary_counts(photos: Path, tmp_path: Path) -> None:
    made = run(photos, tmp_path / "study")
    said = made.summary()
    areas = [min(row["areas"]) for row in made.done]
    within = sum(area <= 0.2 + 1e-6 for area in areas)
    assert (said["photos"], said["done"], said["failed"]) == (5, 4, 1)
    assert said["within a fifth"]["search"]["value"] == pytest.approx(within / 4)
    assert said["within a fifth"]["search"]["high"] == pytest.approx(wilson(within, 4).high, abs=1e-4)
    several = sum(row["overlap"]["t1"] > 1 for row in made.done)
    assert said["more than one"]["t1"]["value"] == pytest.approx(several / 4)
    assert said["smallest area"]["search"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)
    assert all(values == sorted(values) for values in said["curves"].values())
    json.dumps(said, allow_nan=False)


def test_the_files_say_the_same(photos: Path, tmp_path: Path) -> None:
    made = run(photos, tmp_path / "study")
    assert made.write(tmp_path / "out") == ["photos.csv", "curves.csv", "study.png", "summary.json"]
    rows = list(csv.DictReader((tmp_path / "out" / "photos.csv").open(encoding="utf-8")))
    assert [row["key"] for row in rows] == [f"{k}.png" for k in range(5)]
    assert rows[3]["status"] == "error"
    for row, held in zip((rows[0], rows[4]), (made.rows[0], made.rows[4]), strict=True):
        assert [list(map(int, part.split())) for part in row["sets"].split(";")] == held["sets"]
        assert int(row["smallest_patches"]) == min(map(len, held["sets"]))
        assert int(row["needed.grad_cam"]) == held["needed"]["grad_cam"]
    said = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    curves = list(csv.DictReader((tmp_path / "out" / "curves.csv").open(encoding="utf-8")))
    assert [float(row["grad_cam"]) for row in curves] == said["curves"]["grad_cam"]
    assert Image.open(tmp_path / "out" / "study.png").size[0] > 300


def test_the_command_studies_a_folder(photos: Path, place: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    words = (
        "--study",
        "--model",
        f"{place / 'nets.py'}:model",
        "--grid",
        "2",
        "--guide",
        "none",
        "--baseline",
        "black",
    )
    said = command("graph", photos, *words, "--out", tmp_path / "study")
    assert said.code == 3, said
    assert "5 photos, 1 failed" in said.out
    assert (tmp_path / "study" / "tables" / "summary.json").exists()
    again = command("graph", photos, *words, "--out", tmp_path / "study", "--json")
    assert again.code == 3
    assert json.loads(again.out)["done"] == 4
