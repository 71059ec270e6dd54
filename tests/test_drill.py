"""The drill case: scenes whose truth is known, and a small detector that a drill's print leads astray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

import whylens
from whylens import InputError
from whylens.annotations import CocoFile
from whylens.demo import detector, drill, scenes, workpieces
from whylens.demo.drill import Drills, fill, plant_drills
from whylens.demo.scenes import SIZE

FEW = {"train": 6, "test": 3, "drills": 4}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Drills:
    return plant_drills(tmp_path_factory.mktemp("drills") / "set", **FEW)


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


# ---- scenes ----------------------------------------------------------------------------------------------


def test_the_faces_of_a_drill_differ_by_the_print_alone() -> None:
    for k in range(8):
        (printed, other) = (scenes.drilled(rng(k), printed=face) for face in (True, False))
        mark = printed.things[0].mark
        differs = (printed.pixels != other.pixels).any(-1)
        assert differs[mark].mean() > 0.2
        assert not differs[~binary_dilation(mark)].any()  # a stroke's edge may round a pixel out of the area
        assert (printed.things[0].mask == other.things[0].mask).all()
        assert (mark & ~printed.things[0].mask).sum() == 0


def test_things_are_apart_or_touch_as_a_stack() -> None:
    stacked = 0
    for k in range(40):
        things = scenes.trained(rng(1, k)).things
        assert 1 <= len(things) <= 4
        assert sum(t.mask.astype(int) for t in things).max() == 1
        for a, one in enumerate(things):
            assert one.mask.sum() > 100
            assert not one.mask[[0, -1]].any()
            assert not one.mask[:, [0, -1]].any()
            for other in things[a + 1 :]:
                near = bool((binary_dilation(one.mask, iterations=2) & other.mask).any())
                stacked += near
                assert not near or (one.kind, other.kind) == ("package", "block")
    assert stacked >= 5


def test_only_packages_are_printed_and_nothing_is_a_drill() -> None:
    for kind, (make, _) in workpieces.TRAINED.items():
        for piece in make(rng(2)):
            assert bool(piece.strokes) == (piece.kind == "package"), kind
            assert piece.kind != "drill"


# ---- the folder ------------------------------------------------------------------------------------------


def test_the_folder_holds_what_was_drawn(planted: Drills) -> None:
    for split in drill.SPLITS:
        images, coco = getattr(planted, split), CocoFile(planted.folder / f"{split}.json")
        assert len(images) == FEW[split]
        for k, name in enumerate(images.ids):
            scene = drill._scene(0, split, k, split == "drills" and k % 2 == 0)
            assert (images[k].pixels.permute(1, 2, 0).numpy() == scene.pixels).all()
            objects = coco.find(name).objects
            assert len(objects) == len(scene.things)
            for held, thing in zip(objects, scene.things, strict=True):
                assert (held.pixels((SIZE, SIZE)) == thing.mask).all()
                left, top, width, height = (int(v) for v in held.box)
                assert thing.mask[top : top + height, left : left + width].sum() == thing.mask.sum()
                assert thing.mask[top].any()
                assert thing.mask[:, left].any()
                assert thing.mask[top + height - 1].any()
                assert thing.mask[:, left + width - 1].any()
            whole = np.any([t.mask for t in scene.things], axis=0)
            assert (images.mask(k).inside.numpy() == whole).all()


def test_columns_say_which_face_is_up(planted: Drills) -> None:
    assert [int(v) for v in planted.drills.columns["printed"]] == [1, 0, 1, 0]
    marks = planted.marks()
    for k in range(4):
        scene = drill._scene(0, "drills", k, True)
        assert (marks.mask(k).inside.numpy() == scene.things[0].mark).all()


def test_an_image_does_not_depend_on_how_many_there_are(planted: Drills, tmp_path: Path) -> None:
    more = plant_drills(tmp_path, train=7, test=4, drills=5)
    for split in drill.SPLITS:
        for name in getattr(planted, split).ids:
            assert (more.folder / name).read_bytes() == (planted.folder / name).read_bytes()


def test_half_a_set_is_finished_and_another_refused(tmp_path: Path) -> None:
    small = {"train": 2, "test": 1, "drills": 2}
    done = plant_drills(tmp_path, **small)
    whole = {f: f.read_bytes() for f in sorted(done.folder.rglob("*")) if f.is_file()}
    (tmp_path / "scenes.json").rename(tmp_path / "drilling.json")
    (tmp_path / "drills.csv").unlink()
    (tmp_path / "drills" / "00001.png").unlink()
    plant_drills(tmp_path, **small)
    assert {f: f.read_bytes() for f in sorted(done.folder.rglob("*")) if f.is_file()} == whole
    with pytest.raises(InputError, match="holds another set: its seed is 0, not 1"):
        plant_drills(tmp_path, seed=1, **small)
    with pytest.raises(InputError, match="train must be"):
        plant_drills(tmp_path, train=0)


def test_the_annotations_are_coco_s(planted: Drills) -> None:
    said = json.loads((planted.folder / "drills.json").read_text("utf-8"))
    assert [a["kind"] for a in said["annotations"]] == ["drill"] * 4
    for one in said["annotations"]:
        assert sum(one["segmentation"]["counts"]) == SIZE * SIZE
        assert sum(one["segmentation"]["counts"][1::2]) == one["area"]


def test_fill_takes_the_colour_around() -> None:
    pixels = np.zeros((9, 9, 3), np.uint8)
    pixels[:, :6] = (10, 20, 30)
    region, within = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    region[3:5, 2:4], within[:, :6] = True, True
    pixels[3:5, 2:4] = 255
    filled = fill(pixels, region, within)
    assert (filled[:, :6] == (10, 20, 30)).all()
    assert (pixels[3:5, 2:4] == 255).all()  # a copy
    assert (fill(pixels, within, within) == pixels).all()  # nothing is next to it


# ---- the detector ----------------------------------------------------------------------------------------


def test_a_detector_is_made_without_a_trace() -> None:
    before = torch.get_rng_state()
    net = detector.load()
    assert (torch.get_rng_state() == before).all()
    assert not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_a_run_can_open_the_detector_again(planted: Drills, tmp_path: Path) -> None:
    model = drill.open_detector()
    assert (model.task, model.classes) == ("detection", detector.CLASSES)
    assert detector.SIZE == SIZE
    run = whylens.audit(model, planted.drills, out=tmp_path / "run", methods=["grad_cam"], workers=1)
    again = run.model()
    frame = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.detect(frame)[0].boxes, model.detect(frame)[0].boxes)
    covered = run.instances().column("covered").to_pylist()
    assert sum(share is not None for share in covered) == len(planted.drills)  # the COCO file's masks are there


def test_levels_by_the_size_of_the_box() -> None:
    from torchvision.ops.poolers import LevelMapper

    net = detector.make()
    levels = net.backbone(torch.zeros(1, 3, SIZE, SIZE))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [(detector.WIDTH, n, n) for n in (32, 16, 8)]
    pool = net.roi_heads.box_roi_pool
    mapper = LevelMapper(2, 4, pool.canonical_scale, pool.canonical_level)
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 60, 60], [0, 0, 115, 115]])
    assert mapper([boxes]).tolist() == [0, 1, 2]


def test_the_print_spoils_the_mask_of_a_drill() -> None:
    """The case itself: the same drills with their two faces up, and the print filled."""
    net, shares = detector.load(), {"printed": [], "other": [], "filled": []}
    for k in range(16):
        printed, other = (scenes.drilled(rng(3, k), printed=face) for face in (True, False))
        thing = printed.things[0]
        pictures = {"printed": printed.pixels, "other": other.pixels}
        pictures["filled"] = fill(printed.pixels, thing.mark, thing.mask)
        for name, picture in pictures.items():
            with torch.inference_mode():
                found = net([torch.from_numpy(picture).permute(2, 0, 1) / 255])[0]
            masks = (found["masks"][found["scores"] > 0.5, 0] > 0.5).numpy()
            both, either = (masks & thing.mask).sum((1, 2)), (masks | thing.mask).sum((1, 2))
            shares[name].append(both[(both / either).argmax()] / thing.mask.sum() if len(masks) else 0.0)
    incomplete = {name: np.mean(np.array(values) < 0.9) for name, values in shares.items()}
    assert incomplete["printed"] > incomplete["other"] + 0.2
    assert incomplete["printed"] > incomplete["filled"] + 0.2
