"""Audits, groups and acts on a detector's objects, on scenes whose truth is known to the pixel."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import detector
import whylens
from test_page import Read
from test_report import table
from whylens import InputError, Instances, redetection
from whylens.detections import Detections
from whylens.embedding import embed
from whylens.groups.grouping import _worth
from whylens.interval import clustered
from whylens.located import around
from whylens.masks import Annotated
from whylens.placement import Placement
from whylens.precision import Judged, average_precision
from whylens.references import Reference, matched, references
from whylens.run import local
from whylens.run.commit import Table, commit, record_path
from whylens.run.verify import withdraw
from whylens.view.objects import picked

NET = "import sys; sys.path.insert(0, {folder!r})\nimport detector\n\n\ndef make():\n    return detector.model()\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def facts(place: Path) -> list[dict[str, Any]]:
    return detector.scenes(place, 36)[2]


@pytest.fixture(scope="module")
def images(place: Path, facts: Any) -> whylens.Images:
    return whylens.load_images(place / "photos", masks=place / "instances.json")


@pytest.fixture(scope="module")
def run(place: Path, images: whylens.Images) -> whylens.Run:
    return whylens.audit(detector.model(), images, out=place / "run", methods=["grad_cam"], shard_rows=16, batch_size=8)


@pytest.fixture(scope="module")
def groups(run: whylens.Run, images: whylens.Images) -> whylens.Groups:
    pytest.importorskip("hdbscan")
    return whylens.group(run, images=images)


def printed(run: whylens.Run, facts: list[dict[str, Any]]) -> list[bool]:
    """Of every object of the run, whether it has a print."""
    known = {(f["image"], detector.PLACES[f["place"]]): f["printed"] for f in facts}
    return [known[row["image_id"], tuple(row["box"])] for row in run.instances().to_pylist()]


# ---- the run -------------------------------------------------------------------------------------------------------


def test_a_run_holds_every_object_with_what_is_known_of_it(
    run: whylens.Run, images: whylens.Images, facts: list[dict[str, Any]]
) -> None:
    rows = run.instances(embeddings=True).to_pylist()
    assert len(rows) == len(facts) == 72
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    model = detector.model()
    for number in (0, 20, 35):
        frame, _ = model.prepare(images[number].pixels)
        (found,) = model.detect(frame[None])
        own = [row for row in rows if row["image_id"] == number]
        assert [row["instance"] for row in own] == list(range(len(found)))
        torch.testing.assert_close(torch.tensor([row["box"] for row in own]), found.boxes)
        torch.testing.assert_close(torch.tensor([row["score"] for row in own]), found.scores)
        assert found.masks is not None
        assert [row["mask_area"] for row in own] == found.masks.sum((1, 2)).tolist()
        objects = images.objects(number)
        assert objects is not None
        for k, row in enumerate(own):
            inside = objects[row["reference"]].inside
            assert inside is not None
            share = float((found.masks[k] & inside).sum() / inside.sum())
            assert row["covered"] == pytest.approx(share)
            assert (row["overlap"], row["incomplete"]) == (1.0, share < 0.9)
            assert row["class"] == objects[row["reference"]].name
    assert [row["incomplete"] for row in rows] == printed(run, facts)
    summary = run.summary()
    assert (summary.objects, summary.incomplete and summary.incomplete.value) == (72, sum(printed(run, facts)) / 72)
    assert (summary.missed and summary.missed.n) == 72
    assert run.table(["instances", "references", "missed", "status"]).to_pylist()[0] == {
        "instances": 2, "references": 2, "missed": 0, "status": "ok",
    }  # fmt: skip
    assert "72 objects found" in str(summary)
    assert run.verify().ok


def test_maps_scores_and_embeddings_are_those_of_explain(run: whylens.Run, images: whylens.Images) -> None:
    model = detector.model()
    e = whylens.explain(model, images.subset([3, 17]), method="grad_cam")
    numbers = [n for n, row in enumerate(run.instances().to_pylist()) if row["image_id"] in (3, 17)]
    stored = run.explanation("grad_cam", numbers)
    assert stored.ids == e.ids
    assert [str(one) for one in stored.instances] == [str(one) for one in e.instances]
    assert stored.layer == e.layer == "level.0"
    torch.testing.assert_close(stored.scores, e.scores)
    torch.testing.assert_close(stored.maps, e.maps, rtol=2e-3, atol=1e-3 * float(e.maps.max()))
    ids, vectors = run.embeddings("grad_cam").tensor()
    assert ids.tolist() == list(range(72))
    for k, number in enumerate(numbers):
        frame, _ = model.prepare(images[17 if k > 1 else 3].pixels)
        features = model.net.backbone(model.normalised(frame[None]))["0"]
        near = torch.nn.functional.adaptive_avg_pool2d(around(e.instances[k].box, frame)[None, None], (16, 16))
        expected = embed(features, e.maps[k : k + 1] * near).vectors[0]
        torch.testing.assert_close(vectors[number], expected.detach(), rtol=1e-4, atol=1e-5)
        whole = embed(features, e.maps[k : k + 1]).vectors[0]
        assert not torch.allclose(expected, whole, rtol=1e-3)  # the other object counts there
    torch.testing.assert_close(run.maps("grad_cam", "003.png #1"), stored.maps[1:2])
    with pytest.raises(InputError, match=r"The run has no object '003\.png #7'"):
        run.maps("grad_cam", ["003.png #7"])
    assert len(run.files("instances")) == 3
    picked = [40, 0, 71, 40]
    assert run.instances_at(picked).equals(run.instances().take(picked))
    assert run.instances_at("003.png #1").equals(run.instances().slice(numbers[1], 1))


def test_a_run_stops_goes_on_and_is_made_anew_where_it_is_damaged(
    run: whylens.Run, images: whylens.Images, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": ["grad_cam"], "shard_rows": 16, "batch_size": 8}
    half = whylens.audit(detector.model(), images, out=tmp_path / "run", **options)
    path = half.files("instances")[1]
    path.write_bytes(path.read_bytes()[:-40])
    found = whylens.open_run(tmp_path / "run").verify()
    assert [(f.kind, f.file) for f in found.found] == [("damaged", f"instances/{path.name}")]
    assert withdraw(whylens.open_run(tmp_path / "run"), found) == ["commit/00000/00000001.json"]
    assert whylens.open_run(tmp_path / "run").committed == 20
    again = whylens.audit(detector.model(), images, out=tmp_path / "run", **options)
    assert again.instances(embeddings=True).equals(run.instances(embeddings=True))
    with pytest.raises(InputError, match="keeps the methods it was made with"):
        whylens.audit(detector.model(), images, out=tmp_path / "run", methods=["grad_cam", "saliency"])
    with pytest.raises(InputError, match="was made with target"):
        whylens.audit(detector.model(), images, out=tmp_path / "run", target=Instances(threshold=0.2))


def test_rows_that_are_no_objects_of_the_images_are_seen(run: whylens.Run, tmp_path: Path) -> None:
    import pyarrow as pa

    from whylens.run.objects import check_rows

    def rows(*pairs: tuple[int, int]) -> pa.Table:
        return pa.table({"image_id": [a for a, _ in pairs], "instance": [b for _, b in pairs]})

    assert check_rows(rows((4, 0), (4, 1), (6, 0)), 4, 8)
    for wrong in (rows((3, 0)), rows((8, 0)), rows((5, 0), (4, 0)), rows((4, 1)), rows((4, 0), (4, 2))):
        assert not check_rows(wrong, 4, 8)


def test_verify_counts_the_objects(run: whylens.Run, tmp_path: Path) -> None:
    from pyarrow import parquet

    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    record = run.records[""][1]
    path = record_path(folder, "", 1)
    path.unlink()
    tables = {f.family: parquet.read_table(folder / f.name) for f in record.files}
    tables["instances"] = tables["instances"].slice(0, len(tables["instances"]) - 1)
    assert commit(folder, "", 1, {family: Table(rows, 64) for family, rows in tables.items()})
    found = whylens.open_run(folder).verify().found
    assert [f.says for f in found if f.kind == "damaged"] == ["its rows are not the objects of images 16 to 31"]


def test_another_process_would_give_the_same_rows(place: Path, images: whylens.Images, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.format(folder=str(Path(__file__).parent)))
    model = whylens.load_model(f"{tmp_path / 'net.py'}:make", device="cpu")
    made = whylens.audit(model, images, out=tmp_path / "run", shard_rows=16, workers=1)
    worker = local.ready(made.folder, made.plan, "")  # what a process of its own begins with
    tables, _ = worker.tables(1, lambda _: None)
    stored = made.instances(embeddings=True).drop_columns(["key"])
    first = sum(row["image_id"] < 16 for row in stored.to_pylist())
    assert tables["instances"].rows.equals(stored.slice(first, tables["instances"].rows.num_rows))
    assert made.model().finds_boxes
    assert 'target = "instances:threshold=0.5,of=class"' in (tmp_path / "run" / "audit.toml").read_text()


def test_images_without_objects_and_without_references(images: whylens.Images, tmp_path: Path) -> None:
    bare = whylens.load_images([torch.zeros(3, 64, 64, dtype=torch.uint8), images[0].pixels])
    run = whylens.audit(detector.model(), bare, out=tmp_path / "run")
    assert run.table(["instances", "references", "status"]).to_pydict() == {
        "instances": [0, 2], "references": [None, None], "status": ["ok", "ok"],
    }  # fmt: skip
    assert run.instances().column("covered").null_count == 2
    assert run.verify().ok
    with pytest.raises(InputError, match=r"no image has an object to explain\. The first, 0: no detection"):
        whylens.audit(detector.model(), bare.subset([0]), out=tmp_path / "none")


def test_more_images_than_objects(place: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    shutil.copy(place / "photos" / "000.png", tmp_path / "d.png")
    run = whylens.audit(detector.model(), tmp_path, out=tmp_path / "run", methods=["grad_cam"])
    assert run.instances().column("image_id").to_pylist() == [3, 3]
    assert run.images_at(3).ids == ("d.png",)
    assert run.images_at("d.png")[0].pixels.max() > 0
    with pytest.raises(InputError, match=r"no image 4\. It holds 4 images"):
        run.images_at(4)
    with pytest.raises(InputError, match=r"no object 2\. It holds 2 objects"):
        run.maps("grad_cam", 2)
    assert "2 objects in 4 images" in whylens.report(run, tmp_path / "r.html").read_text("utf-8")


def test_objects_are_exported(run: whylens.Run, tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = run.instances()
    assert parquet.read_table(run.export(tmp_path / "rows.parquet")).equals(rows)
    with run.export(tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["key"], int(line["instance"])) for line in lines] == [
        (row["key"], row["instance"]) for row in rows.to_pylist()
    ]
    held = np.load(run.export(tmp_path / "maps.npz", what="maps"))
    assert held["object"].tolist() == list(range(72))
    torch.testing.assert_close(torch.from_numpy(held["maps"]), run.maps("grad_cam", slice(None)))
    vectors = parquet.read_table(run.export(tmp_path / "vectors.parquet", what="embeddings"))
    assert vectors.column_names == ["object", "embeddings"]
    torch.testing.assert_close(torch.tensor(vectors.column(1).to_pylist()), run.embeddings("grad_cam").tensor()[1])


def test_what_a_run_of_objects_cannot_do_is_said(run: whylens.Run, images: whylens.Images, tmp_path: Path) -> None:
    model = detector.model()
    with pytest.raises(InputError, match="cannot be stored for objects"):
        whylens.audit(model, images, out=tmp_path / "a", metrics=["deletion"])
    with pytest.raises(InputError, match="cannot be said in words"):
        whylens.audit(model, images, out=tmp_path / "b", target=Instances(boxes=[[]] * 36))
    for what, verb in (
        (lambda: whylens.gap(run), "gap"),
        (lambda: whylens.compare([run, run]), "compare"),
    ):
        with pytest.raises(InputError, match=f"{verb}: .* holds objects of a detector"):
            what()


def test_targets_in_words_and_back() -> None:
    asked = Instances(threshold=0.25, classes=("screw", 2), of="mask")
    assert asked.words == "instances:threshold=0.25,of=mask,classes=screw|2"
    assert Instances.spelled(asked.words) == asked
    assert Instances.spelled("screw") is None
    for wrong in ("instances:high=3", "instances:threshold=x", "instances:threshold=2", "instances:of=box"):
        with pytest.raises(InputError):
            Instances.spelled(wrong)


def test_an_audit_of_a_segmentation_net_has_one_row_per_image(images: whylens.Images, tmp_path: Path) -> None:
    class Cutter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Conv2d(6, 2, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.head(self.body(x).relu())}

    model = whylens.Model(Cutter(), task="segmentation", classes=["ground", "screw"], layer="body")
    some = images.subset(list(range(5)))
    run = whylens.audit(model, some, out=tmp_path / "run", target="screw", metrics=["deletion:steps=4"], batch_size=2)
    e = whylens.explain(model, some, target="screw")
    torch.testing.assert_close(run.explanation("grad_cam", slice(None)).scores, e.scores)
    values = whylens.measure(model, some, e, metric="deletion", params={"steps": 4}).values
    stored = run.table(["metric.deletion:steps=4.grad_cam"]).column(0).to_pylist()
    torch.testing.assert_close(torch.tensor(stored), values, rtol=1e-4, atol=1e-5)
    assert run.verify().ok


# ---- references ----------------------------------------------------------------------------------------------------


def square(box: tuple[float, ...], side: int = 20) -> torch.Tensor:
    left, top, right, bottom = (int(edge) for edge in box)
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


def test_the_surest_detection_of_the_class_takes_the_object_it_overlaps_most() -> None:
    boxes = [(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 8.0, 10.0), (10.0, 10.0, 20.0, 20.0), (10.0, 10.0, 20.0, 12.0)]
    masks = torch.stack([square(box) for box in boxes])
    found = Detections(torch.tensor(boxes), torch.tensor([1, 1, 2, 2]), torch.tensor([0.9, 0.8, 0.7, 0.6]), masks)
    known = [
        Reference(1, True, boxes[0], square(boxes[0])),
        Reference(1, True, boxes[2], square(boxes[2])),  # another class there
        Reference(2, True, (10.0, 10.0, 20.0, 17.0), square((10.0, 10.0, 20.0, 17.0))),
    ]
    first, second, third, fourth = matched(found, known)
    assert (first and first.reference, first and first.incomplete) == (0, False)
    assert second is None  # taken by a surer one
    assert third is not None
    assert (third.reference, third.covered, third.incomplete) == (2, 1.0, False)
    assert third.overlap == pytest.approx(0.7)
    assert fourth is None
    alone = matched(found.take(torch.tensor([3])), [known[2]])[0]
    assert alone is None  # two rows of seven: 0.29 is not of it
    assert matched(found.take(torch.tensor([1])), known)[0].covered == pytest.approx(0.8)  # type: ignore[union-attr]
    unnamed = [Reference(None, False, boxes[2], None)]
    of_any = matched(found, unnamed)[2]
    assert of_any is not None
    assert of_any.incomplete is None
    assert matched(found, [Reference(None, True, boxes[2], None)])[2] is None  # named, and no class of the model


def test_references_are_laid_into_the_frame() -> None:
    placement = Placement((10, 10), (20, 40), scale=(2.0, 2.0), offset=(0.0, 10.0))
    objects = [
        Annotated("screw", (8.0, 4.0, 20.0, 12.0), square((8, 4, 20, 12), 40)[:20]),
        Annotated("nail", (20.0, 0.0, 28.0, 20.0)),
        Annotated("screw", (0.0, 0.0, 9.0, 5.0), square((0, 0, 9, 5), 40)[:20]),  # outside the frame
    ]
    first, second = references(objects, detector.model(), placement)
    assert (first.label, first.box) == (1, (0.0, 2.0, 5.0, 6.0))
    assert first.inside is not None
    assert int(first.inside.sum()) == 20
    assert (second.label, second.named, second.inside) == (None, True, None)
    (half,) = references(
        [Annotated("screw", (13.0, 4.0, 20.0, 12.0), square((13, 4, 20, 12), 40)[:20])], detector.model(), placement
    )
    assert half.inside is not None
    assert half.inside[2:6, 1:5].all()  # its first column covers half of the frame's pixels


def test_what_is_near_a_box() -> None:
    near = around((20.0, 10.0, 40.0, 30.0), torch.empty(64, 64))
    rows, columns = near.amax(1).nonzero().flatten(), near.amax(0).nonzero().flatten()
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (7, 33, 17, 43)


def test_objects_of_annotations_one_by_one(images: whylens.Images, place: Path) -> None:
    objects = images.objects(0)
    assert objects is not None
    assert [one.name for one in objects] == ["screw", "screw"]
    said = json.loads((place / "instances.json").read_text())
    left, top, width, height = said["annotations"][0]["bbox"]
    assert objects[0].box == (left, top, left + width, top + height)
    assert whylens.load_images([torch.zeros(3, 4, 4)]).objects(0) is None
    mask = torch.zeros(4, 6)
    mask[1:3, 2:5] = 1
    (one,) = whylens.load_images([torch.zeros(3, 4, 6)], masks=[mask]).objects(0) or ()
    assert (one.name, one.box) == (None, (2.0, 1.0, 5.0, 3.0))
    assert whylens.load_images([torch.zeros(3, 4, 6)], masks=[mask * 0]).objects(0) == ()


# ---- average precision ---------------------------------------------------------------------------------------------


def judged(scores: list[list[float]], hits: list[list[bool]]) -> Judged:
    """Images with one object each; a hit is its box, a miss lies elsewhere."""
    box, other = (0.0, 0.0, 10.0, 10.0), (40.0, 40.0, 50.0, 50.0)
    found = [
        Detections(
            torch.tensor([box if hit else other for hit in own]).reshape(-1, 4),
            torch.ones(len(own), dtype=torch.long),
            torch.tensor(score),
        )
        for score, own in zip(scores, hits, strict=True)
    ]
    return tallied(found, [[Reference(1, True, box, None)]] * len(found))


def tallied(found: Sequence[Detections], known: Sequence[Sequence[Reference]]) -> Judged:
    made = Judged()
    for one, own in zip(found, known, strict=True):
        made.add(one, own)
    return made


def test_average_precision_of_a_worked_case() -> None:
    pytest.importorskip("pycocotools")
    assert judged([[0.9], [0.8]], [[True], [True]]).ap() == pytest.approx(1.0)
    # by score: hit, miss, hit: precision 1 up to recall 1/2, then 2/3, at 101 recalls
    assert judged([[0.9, 0.8], [0.7]], [[True, False], [True]]).ap() == pytest.approx((51 + 50 * 2 / 3) / 101)
    one = judged([[0.9], [0.9]], [[True], [False]])
    assert one.ap() == pytest.approx(51 / 101 * 0.5, abs=0.26)
    assert one.ap(np.array([0, 0])) == pytest.approx(1.0)
    assert one.ap(np.array([1, 1])) == 0.0
    (own, other), (change,) = average_precision([one, judged([[0.9], [0.9]], [[True], [True]])])
    assert (own.low, own.high, own.n) == (0.0, 1.0, 2)
    assert (other.low, other.high) == (1.0, 1.0)
    assert change.value == pytest.approx(1 - own.value)


def test_average_precision_agrees_with_the_tools_own_summary() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    rng = torch.Generator().manual_seed(0)
    found, known = [], []
    for _ in range(12):
        corners = torch.rand(3, 2, generator=rng) * 20
        boxes = torch.cat([corners, corners + 12 + 6 * torch.rand(3, 2, generator=rng)], 1)
        known.append([Reference(1 + k % 2, True, tuple(b), None) for k, b in enumerate(boxes.tolist())])
        moved = boxes + 1.5 * torch.randn(3, 4, generator=rng)
        found.append(Detections(moved, torch.tensor([1, 2, 1]), torch.rand(3, generator=rng)))
    truth, said = coco.COCO(), coco.COCO()
    for made, entries in (
        (truth, [(i, r.label, r.box, 1.0) for i, own in enumerate(known) for r in own]),
        (
            said,
            [
                (i, int(d.labels[k]), tuple(d.boxes[k].tolist()), float(d.scores[k]))
                for i, d in enumerate(found)
                for k in range(3)
            ],
        ),
    ):
        made.dataset = {
            "images": [{"id": i} for i in range(12)],
            "categories": [{"id": 1}, {"id": 2}],
            "annotations": [
                {"id": n + 1, "image_id": i, "category_id": c, "iscrowd": 0, "score": s,
                 "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "area": (b[2] - b[0]) * (b[3] - b[1])}
                for n, (i, c, b, s) in enumerate(entries)
            ],
        }  # fmt: skip
        made.createIndex()
    tool = COCOeval(truth, said, "bbox")
    tool.evaluate()
    tool.accumulate()
    tool.summarize()
    assert 0.1 < tool.stats[0] < 0.9
    assert tallied(found, known).ap() == pytest.approx(tool.stats[0])


def test_an_interval_over_images_is_wider_where_their_objects_agree() -> None:
    values = np.repeat([0.0, 1.0], 50)
    alone, together = clustered(values, np.arange(100)), clustered(values, np.repeat(np.arange(10), 10))
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.n == 100
    assert np.isnan(clustered(values, np.zeros(100)).low)


# ---- groups and acts -----------------------------------------------------------------------------------------------


def test_objects_with_a_print_are_a_group_with_incomplete_masks(
    groups: whylens.Groups, run: whylens.Run, facts: list[dict[str, Any]]
) -> None:
    first = groups[0]
    assert sorted(first.ids) == np.array(printed(run, facts)).nonzero()[0].tolist()
    assert (first.incomplete.value, first.incomplete.n) == (1.0, first.size)
    assert first.incomplete_rest.value == 0.0
    assert first.incomplete.low < 1
    assert first.class_name == "screw"
    assert first.keys[0].count(" #") == 1
    assert "incomplete masks: 1.000" in str(groups)
    assert f"{first.size} objects, 33%" in str(groups)
    assert first.tested is None
    assert groups.settings["per"] == "image"
    assert [g.ids for g in whylens.open_groups(run)] == [g.ids for g in groups]


def test_groups_with_incomplete_masks_come_first(groups: whylens.Groups) -> None:
    printed_, plain = groups[0], next(g for g in groups if g.class_name == "screw" and g.number != groups[0].number)
    plain = replace(plain, share=printed_.share)
    assert _worth(printed_) < _worth(plain)
    told = {"incomplete": plain.incomplete, "incomplete_rest": plain.incomplete_rest}
    other = {"incomplete": printed_.incomplete, "incomplete_rest": printed_.incomplete_rest}
    assert _worth(replace(printed_, **told)) > _worth(replace(plain, **other))


def test_filling_the_print_makes_the_masks_whole_and_other_fills_do_not(
    groups: whylens.Groups, run: whylens.Run, images: whylens.Images
) -> None:
    pytest.importorskip("pycocotools")
    effect = whylens.act(run, groups[0], "mask", model=detector.model(), images=images)
    assert (effect.verdict, effect.of, effect.n) == ("helped", "objects", groups[0].size)
    assert (effect.before.value, effect.after.value) == (0.0, 1.0)
    assert effect.controls["random regions of equal area"].value < 0.1
    assert (effect.said["incomplete_before"], effect.said["incomplete_after"]) == (1.0, 0.0)
    before, after = effect.said["mean_average_precision_of_masks_before"], effect.said["after"]
    assert effect.said["its_change"].low > 0
    assert effect.said["its_change"].value == pytest.approx(after.value - before.value)
    assert effect.said["its_change_with_random_regions"].value < 0.05
    assert effect.said["random_objects_of_equal_number"].startswith("change")
    assert effect.record is not None
    assert json.loads(effect.record.read_text())["effect"]["said"]["its_change"]["n"] == before.n
    again = whylens.act(run, groups[0], "mask", model=detector.model(), images=images)
    assert again == effect
    with pytest.raises(InputError, match=r"act keep: .* holds objects of a detector"):
        whylens.act(run, groups[0], "keep", model=detector.model(), images=images)


def test_an_act_needs_annotated_masks(images: whylens.Images, place: Path, tmp_path: Path) -> None:
    pytest.importorskip("hdbscan")
    bare = whylens.load_images(place / "photos").subset(list(range(12)))
    run = whylens.audit(detector.model(), bare, out=tmp_path / "run")
    groups = whylens.group(run, images=bare)
    assert np.isnan(groups.facts.correct).all()
    with pytest.raises(InputError, match=r"no object of .* is matched to an annotated mask"):
        whylens.act(run, groups[0], "mask", model=detector.model(), images=bare)


def test_a_sheet_shows_the_objects(groups: whylens.Groups, images: whylens.Images) -> None:
    from whylens.groups.draw import sheet

    made = sheet(groups, [0], columns=3, images=images)
    pictures = [image.get_array() for axes in made.axes for image in axes.get_images()]
    assert len(pictures) == 3
    for picture in pictures:
        height, width = picture.shape[:2]
        print_ = picture[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].reshape(-1, 3).mean(0)
        assert print_[2] > 1.5 * print_[0]  # the blue print in the middle, in colour


def test_the_map_says_that_points_are_objects(groups: whylens.Groups, images: whylens.Images) -> None:
    from whylens.groups.draw import scatter

    assert "one per object" in scatter(groups, images=images)[1].get_title()


def test_evidence_on_an_object_is_filled_with_the_object() -> None:
    frame = torch.zeros(3, 24, 24)
    own = square((9.0, 2.0, 15.0, 22.0), 24)
    stripe = square((9.0, 6.0, 15.0, 18.0), 24)  # from rim to rim: most of what is around it is ground
    frame[0][own], frame[1][stripe] = 1.0, 0.5
    frame[2, 5, 9:11] = 0.8  # a speck beside it: the colour is the usual one around it, not the mean
    part = stripe[None]
    filled = redetection._filled(frame, part, own, 16)
    assert torch.equal(filled[:, stripe], torch.tensor([[1.0], [0.0], [0.0]]).expand(3, int(stripe.sum())))
    assert torch.equal(filled[:, ~stripe], frame[:, ~stripe])
    assert torch.equal(redetection._filled(frame, torch.ones_like(part), own, 16), frame)  # nothing is around it
    ground = redetection._filled(frame, own[None], own, 16)  # nothing of the object is around it
    assert not ground.any()


def test_an_object_s_own_mask_is_that_of_its_box_and_class() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [4, 4, 15, 15], [4, 4, 14, 15]])
    masks = torch.stack([square(tuple(box)) for box in boxes.tolist()])
    found = Detections(boxes, torch.tensor([1, 1, 2]), torch.tensor([0.9, 0.8, 0.7]), masks)
    row = {"box": [4.2, 4, 14, 15], "class_index": 1}
    assert torch.equal(redetection._own_mask(found, row), masks[1])
    assert redetection._own_mask(found, {**row, "class_index": 3}) is None
    assert redetection._span(row) == pytest.approx(9.8)


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report_of_objects(
    run: whylens.Run, groups: whylens.Groups, facts: list[dict[str, Any]], tmp_path: Path
) -> None:
    act = whylens.act(run, groups[0], "mask", model=detector.model())
    html = whylens.report(run, tmp_path / "my report.html").read_text("utf-8")
    read = Read(html)
    prints, incomplete = sum(f["printed"] for f in facts), run.summary().incomplete
    assert f"Incomplete {incomplete} of 72 masks with a reference." in read.text
    assert "Missed 0.000" in read.text
    classes = {row[0]: row[1:] for row in table(html, "classes")}
    rows = run.instances().to_pylist()
    assert set(classes) == {row["class"] for row in rows}
    for name, (count, score, there, share) in classes.items():
        own = [row for row in rows if row["class"] == name]
        assert int(count) == len(own)
        assert score.startswith(f"{np.mean([row['score'] for row in own]):.3f} [")
        assert there.startswith("1.000 [")
        assert share.startswith(f"{np.mean([row['incomplete'] for row in own]):.3f} [")
    odd = [g for g in groups if g.reasons > 1]
    worth = table(html, "groups worth a look")
    assert [row[0] for row in worth] == [g.name for g in odd]
    assert worth[0][-2:] == [f"{odd[0].incomplete.value:.0%}", f"{odd[0].incomplete_rest.value:.0%}"] == ["100%", "0%"]
    assert f"on {act.n} objects." in read.text
    assert "the frame is searched again" in read.text
    assert str(act.said["its_change"]) in read.text  # an interval, not its parts
    shown = [img["alt"] for img in read.all("img") if img["alt"].startswith("grad_cam on")]
    assert len(shown) == min(prints, 12) + 12


def test_a_run_that_is_going_is_reported_and_its_objects_are_counted_anew(run: whylens.Run, tmp_path: Path) -> None:
    going = whylens.open_run(shutil.copytree(run.folder, tmp_path / "going"))
    record = record_path(going.folder, "", 0)
    held = record.read_bytes()
    record.unlink()
    going.refresh()
    key = f"{going.instances().column('key')[0].as_py()} #0"
    assert going.ids(key) == [0]
    assert torch.equal(going.maps("grad_cam", key), run.maps("grad_cam", key))
    assert "It is still going: 20 images" in whylens.report(going, tmp_path / "r.html").read_text("utf-8")
    record.write_bytes(held)
    going.refresh()
    assert going.ids(key) == run.ids(key) != [0]
    assert torch.equal(going.maps("grad_cam", key), run.maps("grad_cam", key))


def test_images_without_annotations_stand_apart_in_the_report(
    images: whylens.Images, place: Path, tmp_path: Path
) -> None:
    said = json.loads((place / "instances.json").read_text())
    said["images"] = [one for one in said["images"] if one["id"] < 2]
    said["annotations"] = [one for one in said["annotations"] if one["image_id"] < 2]
    (tmp_path / "few.json").write_text(json.dumps(said))
    some = whylens.load_images(place / "photos", masks=tmp_path / "few.json").subset(list(range(6)))
    run = whylens.audit(detector.model(), some, out=tmp_path / "run", methods=["grad_cam"])
    references = [row["reference"] is not None for row in run.instances().to_pylist()]
    shown = {title: numbers for title, numbers, _ in picked(run, 100)}
    assert shown["Objects"]
    assert not any(references[n] for n in shown["Objects"])
    assert all(references[n] for n in shown["As annotated"])
    assert sorted(n for numbers in shown.values() for n in numbers) == list(range(len(references)))


def test_the_report_of_objects_says_what_was_missed(images: whylens.Images, tmp_path: Path) -> None:
    few = Instances(classes=["washer"])
    run = whylens.audit(detector.model(), images, out=tmp_path / "run", methods=["grad_cam"], target=few)
    html = whylens.report(run, tmp_path / "r.html").read_text("utf-8")
    counts = run.table(["key", "references", "missed"]).to_pylist()
    most = [row["missed"] for row in counts if row["missed"]]
    listed = table(html, "images with missed objects")
    assert len(listed) == 12 < len(most)
    assert [int(row[2]) for row in listed] == sorted(most, reverse=True)[:12]
    assert f"and {len(most) - 12} more images with missed objects" in html
