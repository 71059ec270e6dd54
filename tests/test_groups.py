"""Groups: evidence in regions, PCA, clusters, pictures, what is worth a look, versions of edits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import whylens
from synthetic_shortcut import CLASSES, Colours
from whylens import InputError, Model
from whylens.errors import DamageError
from whylens.groups import cluster, describe, evidence, grouping, intervene, project

RED, GREEN, BLUE = 0, 1, 2


PREPROCESS = whylens.Preprocess((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def colours(preprocess: whylens.Preprocess | None = None) -> Model:
    return Model(Colours(green=3.0).eval(), classes=CLASSES, layer="find", name="colours", preprocess=preprocess)


def pictures(count: int, seed: int = 0) -> tuple[list[Tensor], list[str], list[str]]:
    """Grey pictures with one patch at a random place: of every six, three are blue, two red and one green."""
    rng = np.random.default_rng(seed)
    frames, labels, which = [], [], []
    for k in range(count):
        colour = (BLUE, RED, BLUE, GREEN, RED, BLUE)[k % 6]
        frame = torch.full((3, 32, 32), 0.4) + 0.02 * torch.from_numpy(rng.standard_normal((3, 32, 32))).float()
        row, column = (4 * rng.integers(0, 7, 2)).tolist()
        frame[:, row : row + 8, column : column + 8] = 0.1
        frame[colour, row : row + 8, column : column + 8] = 0.9
        frames.append(frame.clamp(0, 1))
        labels.append("blue" if colour == BLUE else "warm")
        which.append(["red", "green", "blue"][colour])
    return frames, labels, which


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> whylens.Run:
    from PIL import Image

    folder = tmp_path_factory.mktemp("my run")
    frames, labels, which = pictures(120)
    lines = ["path,label,colour"]
    for k, frame in enumerate(frames):
        Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / f"{k:03d}.png")
        lines.append(f"{k:03d}.png,{labels[k]},{which[k]}")
    (folder / "list.csv").write_text("\n".join(lines))
    model = colours(PREPROCESS)
    images = whylens.load_images(folder / "list.csv")
    return whylens.audit(model, images, out=folder / "run", methods=["grad_cam"], shard_rows=50, workers=1)


@pytest.fixture(scope="module")
def model() -> Model:
    return colours(PREPROCESS)


@pytest.fixture(scope="module")
def groups(planted: whylens.Run, model: Model) -> whylens.Groups:
    return whylens.group(planted, model=model)


# ---- regions ---------------------------------------------------------------------------------------------------------


def test_regions_are_connected_and_the_heaviest_is_first() -> None:
    one = torch.tensor([[[0, 0, 0, 5, 0], [2, 2, 0, 0, 5], [0, 0, 0, 0, 0], [1, 0, 9, 0, -8]]], dtype=torch.float32)
    found = evidence.regions(one, 0.2)
    assert found.shape == (3, 4, 5)
    # 5 and 5 touch at a corner; 9 by itself; 2 and 2 are just above 0.2 of 9; 1 is below; -8 is no evidence
    assert [int(r.sum()) for r in found] == [2, 1, 2]
    assert bool(found[0, 0, 3] & found[0, 1, 4])
    assert bool(found[1, 3, 2])
    assert bool(found[2, 1, 0] & found[2, 1, 1])


def test_a_map_without_mass_has_no_regions() -> None:
    assert len(evidence.regions(torch.zeros(1, 4, 4))) == 0
    assert len(evidence.regions(-torch.ones(1, 4, 4))) == 0


def test_points_are_kept_and_read_back(planted: whylens.Run, model: Model) -> None:
    first = evidence.points(planted, "grad_cam", model=model)
    again = evidence.points(planted, "grad_cam")  # no model is needed any more
    assert np.array_equal(first.vectors, again.vectors)
    assert np.array_equal(first.image, again.image)
    assert set(first.image.tolist()) == set(range(120))
    whole = np.bincount(first.image, first.share)
    assert (whole <= 1 + 1e-5).all()
    assert whole.min() > 0.5


def test_a_point_is_eq_1_of_its_region(planted: whylens.Run, model: Model) -> None:
    held = evidence.points(planted, "grad_cam", model=model)
    for p in (0, 17, 61):
        image, number = int(held.image[p]), int(held.region[p])
        frame = model.prepare(planted.images_at(image)[0].pixels)[0][None]
        features = model.net.find(frame).detach()[0]
        one = planted.maps("grad_cam", image)[0, 0].clamp(min=0)
        weights = one * evidence.regions(one[None])[number]
        expected = (features * weights).sum((1, 2)) / weights.sum()
        np.testing.assert_allclose(held.vectors[p], expected.numpy(), atol=2e-3)  # maps are stored in half precision


def test_damaged_points_are_refused(planted: whylens.Run, model: Model, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(planted.folder, copy)
    run = whylens.open_run(copy)
    evidence.points(run, "grad_cam", model=model)
    file = next((copy / "derived" / "regions.grad_cam" / "regions").glob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DamageError, match="damaged"):
        evidence.points(run, "grad_cam")


# ---- projection ------------------------------------------------------------------------------------------------------


def test_pca_is_that_of_the_svd() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((300, 12)) * np.arange(1, 13)).astype(np.float32)
    found = project.pca(x, 5)
    centred = x - x.mean(0)
    _, s, vt = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.axes @ vt[:5].T), np.eye(5), atol=1e-4)
    np.testing.assert_allclose(found.explained, (s**2 / (s**2).sum())[:5], rtol=1e-4)
    np.testing.assert_allclose(found.reduced(x), centred @ found.axes.T, atol=1e-3)


def test_few_or_equal_points_are_projected() -> None:
    assert project.pca(np.ones((5, 3), np.float32)).reduced(np.ones((5, 3), np.float32)).shape == (5, 1)
    assert project.pca(np.eye(4, dtype=np.float32)).axes.shape == (3, 4)
    flat = project.layout(np.zeros((20, 1), np.float32))
    assert np.isfinite(flat.at).all()
    assert not flat.at.any()


def test_the_same_seed_gives_the_same_picture_and_neighbours_stay() -> None:
    rng = np.random.default_rng(1)
    blobs = np.concatenate([rng.standard_normal((60, 8)) + 12 * np.eye(8)[k] for k in range(3)]).astype(np.float32)
    first, second = project.layout(blobs, seed=3), project.layout(blobs, seed=3)
    assert np.array_equal(first.at, second.at)
    assert first.trust > 0.9
    shuffled = project.trustworthiness(blobs, rng.permutation(first.at))
    assert shuffled < 0.7


def test_beyond_the_landmarks_points_are_placed_among_their_neighbours() -> None:
    rng = np.random.default_rng(2)
    kind = np.arange(300) % 3
    blobs = (rng.standard_normal((300, 6)) + 15 * np.eye(6)[kind]).astype(np.float32)
    made = project.layout(blobs, strata=kind, landmarks=90)
    assert made.placed.sum() == 210
    assert np.bincount(kind[~made.placed]).tolist() == [30, 30, 30]
    middles = np.stack([made.at[~made.placed & (kind == k)].mean(0) for k in range(3)])
    nearest = np.linalg.norm(made.at[:, None] - middles, axis=2).argmin(1)
    assert (nearest == kind)[made.placed].mean() > 0.99


# ---- clusters --------------------------------------------------------------------------------------------------------


def test_two_dense_groups_are_found_and_one_stays_one() -> None:
    rng = np.random.default_rng(3)
    far = np.concatenate([rng.standard_normal((70, 5)), rng.standard_normal((30, 5)) + 20])
    found = cluster.clusters(far, np.zeros(100))
    assert np.bincount(found).tolist() == [70, 30]
    assert set(found[:70]) == {0}
    assert set(cluster.clusters(rng.standard_normal((100, 5)), np.zeros(100))) == {0}


def test_a_small_group_stays_though_its_points_run_out_of_neighbours() -> None:
    rng = np.random.default_rng(0)
    few, more = (rng.standard_normal((n, 4)) * 0.01 + place for n, place in ((9, 0), (30, 9)))
    labels = np.repeat([0, 1], [9, 30])
    both = np.concatenate([few, more])
    assert np.array_equal(cluster._merged(labels, *cluster._nearest(both)), labels)  # their tenth lies in the other
    assert np.bincount(cluster.clusters(both, np.zeros(39))).tolist() == [30, 9]


def test_groups_that_touch_are_one() -> None:
    rng = np.random.default_rng(4)
    blob = rng.standard_normal((160, 3))
    halves = (blob[:, 0] > 0).astype(np.int64)
    halves[::5] = -1  # what lies between counts to the nearer one
    assert set(cluster._merged(halves, *cluster._nearest(blob))[halves >= 0]) == {0}
    apart = blob + 8 * halves[:, None].clip(0) * np.array([1.0, 0, 0])
    assert np.array_equal(cluster._merged(halves, *cluster._nearest(apart)), halves)


def test_what_is_near_a_group_joins_it_and_what_is_far_does_not() -> None:
    rng = np.random.default_rng(8)
    points = np.concatenate([rng.standard_normal((60, 3)), rng.standard_normal((60, 3)) + 20, np.full((1, 3), 60.0)])
    labels = np.repeat([0, 1, -1], [60, 60, 1])
    labels[[3, 70]] = -1
    found = cluster._joined(labels, *cluster._nearest(points), cluster.FAR)
    assert (found[3], found[70], found[120]) == (0, 1, -1)


def test_points_are_only_grouped_within_their_part() -> None:
    rng = np.random.default_rng(5)
    points, part = rng.standard_normal((60, 3)), np.arange(60) % 2
    found = cluster.clusters(points, part)
    assert {(int(a), int(b)) for a, b in zip(part, found, strict=True)} == {(0, 0), (1, 1)}


def test_agreement_is_one_for_what_is_apart_and_falls_for_noise() -> None:
    rng = np.random.default_rng(6)
    far = np.concatenate([rng.standard_normal((60, 4)), rng.standard_normal((60, 4)) + 30])
    apart = np.zeros(120)
    assert cluster.agreement(far, apart, cluster.clusters(far, apart)) == 1
    wrong = rng.integers(0, 2, 120)
    assert cluster.agreement(far, apart, wrong) < 0.2


@pytest.mark.parametrize("count", [1, 2, 12])
def test_few_points_are_one_group(count: int) -> None:
    assert set(cluster.clusters(np.random.default_rng(0).standard_normal((count, 3)), np.zeros(count))) == {0}


# ---- interventions ---------------------------------------------------------------------------------------------------


def test_evidence_decides_is_needed_and_carries() -> None:
    frames, _, which = pictures(36, seed=5)
    x = torch.stack(frames)
    red = [k for k, w in enumerate(which) if w == "red"]
    blue = [k for k, w in enumerate(which) if w == "blue"]
    masks = (x[red].amax(1, keepdim=True) > 0.8) & (x[red].amin(1, keepdim=True) < 0.2)
    found = intervene.intervene(colours(), x[red], masks, 0, x[blue], keys=red)
    assert found.decides.value == 1
    assert found.decides_control.value == 0
    assert found.needed.value == 1
    assert found.needed_control.value == 0
    assert found.carries_control.value == 0
    alone = intervene.intervene(colours(), x[red[:1]], masks[:1], 0, x[:0], keys=red[:1])
    assert alone.carries.n == 0
    assert alone.gain == 0


def test_what_is_removed_has_the_colour_around_it() -> None:
    frame = torch.full((1, 3, 20, 20), 0.25)
    frame[:, :, 5:10, 5:10] = 1
    mask = frame[:, :1] == 1
    assert torch.allclose(intervene.removed(frame, mask), torch.full_like(frame, 0.25))
    whole = intervene.removed(frame, torch.ones_like(mask))
    assert whole.isfinite().all()


def test_a_control_has_the_same_area_elsewhere_and_depends_on_its_image_alone() -> None:
    masks = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    masks[:, :, 2:8, 3:9] = True
    moved = intervene.elsewhere(masks, [4, 9], seed=0)
    assert moved.sum((1, 2, 3)).tolist() == [36, 36]
    assert not (moved & masks).any()
    assert torch.equal(intervene.elsewhere(masks[1:], [9], seed=0)[0], moved[1])


# ---- descriptions ----------------------------------------------------------------------------------------------------


def test_a_column_that_tells_the_group_is_told_and_chance_is_not() -> None:
    rng = np.random.default_rng(7)
    ids, rest = np.arange(40), np.arange(40, 140)
    columns = describe.columns_of(
        {
            "site": ["a"] * 36 + ["b"] * 4 + ["a"] * 10 + ["b"] * 90,
            "age": [50.0 + k % 7 for k in range(40)] + [30.0 + k % 9 for k in range(100)],
            "noise": rng.random(140).tolist(),
            "file": [f"{k}" * 3 + "x" for k in range(140)],
        }
    )
    found = {a.column: a for a in describe.associations(columns, ids, rest)}
    assert set(found) == {"site", "age"}
    assert (found["site"].value, found["site"].here, found["site"].there) == ("a", 0.9, 0.1)
    assert found["age"].here > found["age"].there


# ---- the verb --------------------------------------------------------------------------------------------------------


def test_both_reasons_of_a_class_are_found(groups: whylens.Groups) -> None:
    by_class = {name: [g for g in groups if g.class_name == name] for name in ("warm", "blue")}
    assert len(by_class["blue"]) == 1
    red, green = sorted(by_class["warm"], key=lambda g: -g.size)
    assert (red.size, green.size) == (40, 20)
    colour = groups.run.table(["colour"]).column(0).to_pylist()
    assert {colour[i] for i in red.ids} == {"red"}
    assert {colour[i] for i in green.ids} == {"green"}
    assert [str(a) for a in green.associations] == ["colour = green: 100% here, 0% elsewhere"]


def test_classes_with_more_than_one_reason_come_first(groups: whylens.Groups) -> None:
    assert [g.class_name for g in groups] == ["warm", "warm", "blue"]
    assert all(g.tested is not None and g.tested.decides.value == 1 for g in list(groups)[:2])
    assert groups[2].tested is None
    said = str(groups)
    assert "worth a look" in said
    assert "pasted on others" in said


def test_a_grouping_is_opened_again_with_everything(groups: whylens.Groups) -> None:
    again = whylens.open_groups(groups.run)
    assert json.dumps(again.as_dict()) == json.dumps(groups.as_dict())
    assert np.array_equal(again.layout.at, groups.layout.at)
    assert whylens.group(groups.run).version == groups.version
    with pytest.raises(InputError, match="seed=0, not 1"):
        whylens.group(groups.run, seed=1)


def test_edits_are_versions_and_an_old_one_is_refused(planted: whylens.Run, model: Model) -> None:
    first = whylens.group(planted, model=model, name="edited one")
    named = first.rename(0, "green patch").note("green patch", "a marker pen")
    assert named.version == 3
    assert named["green patch"].note == "a marker pen"
    with pytest.raises(InputError, match="edited by somebody else"):
        first.rename(0, "other")
    one = named.merge(["green patch", named[1].name])
    assert one["green patch"].size == 60
    two = one.split("green patch", list(one["green patch"].ids[:5]), "five")
    assert (two["five"].size, two["green patch"].size) == (5, 55)
    assert len(two.delete("five")) == len(two) - 1
    assert whylens.open_groups(planted, "edited one").version == two.version + 1
    with pytest.raises(InputError, match="Did you mean 'green patch'"):
        two["green pach"]


def test_csv_goes_out_and_comes_back(planted: whylens.Run, model: Model, tmp_path: Path) -> None:
    made = whylens.group(planted, model=model, name="csv").rename(0, "=cmd()")
    file = made.to_csv(tmp_path / "groups.csv")
    assert "'=cmd()" in file.read_text()
    back = made.from_csv(file)
    assert {g.name: g.ids for g in back if g.name == "=cmd()"} == {"=cmd()": made["=cmd()"].ids}
    file.write_text(file.read_text().replace("blue 1", "'=cmd()"))
    with pytest.raises(InputError, match="different classes"):
        back.from_csv(file)


def test_a_damaged_version_is_refused(planted: whylens.Run, model: Model) -> None:
    made = whylens.group(planted, model=model, name="damaged")
    path = grouping.version_path(made.folder, made.version)
    said = json.loads(path.read_text())
    said["labels"][0] = 1 - said["labels"][0]
    path.write_text(json.dumps(said))
    with pytest.raises(DamageError):
        whylens.open_groups(planted, "damaged")


def test_one_point_per_image_needs_no_model(planted: whylens.Run) -> None:
    made = whylens.group(planted, per="image", within="set", name="images", tests=0)
    assert len(made.points) == 120
    assert {g.class_name for g in made} == {"warm", "blue"}
    assert all(len({int(made.facts.classes[i]) for i in g.ids}) == 1 for g in made)


def test_few_images_one_class_and_equal_pictures_are_grouped(tmp_path: Path, model: Model) -> None:
    frames, *_ = pictures(12)
    same = [frames[1]] * 12
    for name, given in (("few", frames), ("equal", same)):
        run = whylens.audit(model, given, out=tmp_path / name, methods=["grad_cam"], workers=1)
        made = whylens.group(run, model=model, images=whylens.load_images(given))
        assert sum(g.size for g in made) == 12
        assert np.isfinite(made.layout.at).all()
        assert "worth a look" in str(made)


def test_what_cannot_be_grouped_is_said(tmp_path: Path, model: Model, planted: whylens.Run) -> None:
    blank = [torch.full((3, 32, 32), 0.4)] * 3
    run = whylens.audit(model, blank, out=tmp_path / "blank", methods=["grad_cam"], workers=1)
    with pytest.raises(InputError, match="two points or more"):
        whylens.group(run, model=model, images=whylens.load_images(blank))
    run = whylens.audit(model, pictures(6)[0], out=tmp_path / "memory", methods=["grad_cam"], workers=1)
    with pytest.raises(InputError, match="cannot be opened again"):
        whylens.group(run)
    with pytest.raises(InputError, match="No grouping in this run 'other'"):
        whylens.open_groups(planted, "other")


def test_the_command_line_writes_pictures_tables_and_json(
    planted: whylens.Run, groups: whylens.Groups, command: Any, tmp_path: Path
) -> None:
    from PIL import Image

    out = tmp_path / "my groups"
    said = command("group", str(planted.folder), "--name", groups.name, "--out", str(out), "--json")
    assert said.code == 0
    told = json.loads(said.out)
    assert told["groups"] == json.loads((out / "groups.json").read_text())["groups"]
    assert [g["class_name"] for g in told["groups"]] == ["warm", "warm", "blue"]
    for name in ("map.png", "groups.png"):
        assert float(np.asarray(Image.open(out / name).convert("RGB")).std()) > 5
    other = command("group", str(planted.folder), "--name", groups.name, "--per", "image")
    assert other.code == 2
    assert "per='region', not 'image'" in other.err


def test_the_same_seed_gives_the_same_groups(planted: whylens.Run, model: Model, groups: whylens.Groups) -> None:
    again: Any = whylens.group(planted, model=model, name="again")
    assert np.array_equal(again.state.labels, groups.state.labels)
    assert [g.tested for g in again] == [g.tested for g in groups]


def test_a_class_without_a_rest_is_told_without_it() -> None:
    def lines(classes: list[int]) -> str:
        facts = describe.Facts(
            keys=np.array(["a", "b", "c", "d"], object),
            classes=np.array(classes),
            class_names=np.array(["hen"] * 4, object),
            correct=np.ones(4),
            probability=np.full(4, 0.5),
            inside=np.array([0.2, 0.4, 0.8, 1.0]),
            own={},
        )
        said: dict[str, Any] = {"number": 0, "name": "hen 1", "note": "", "reasons": 1, "tested": None}
        return "\n".join(describe.described(facts, np.arange(4), np.array([0, 1]), np.zeros(2), **said).lines())

    assert "on the object: 30% here, 90% in the rest" in lines([0, 0, 0, 0])
    alone = lines([0, 0, 1, 1])
    assert alone.endswith("on the object: 30%")
    assert "nan" not in alone


def test_the_finest_clusters_tell_two_that_are_close_next_to_a_far_one() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (180, 3))
    points[:, 0] += np.repeat([0, 5, 40], 60)
    apart = np.zeros(len(points), np.int64)
    persistent, finest = (cluster.clusters(points, apart, finest=f) for f in (False, True))
    assert len(np.unique(persistent[:120])) == 1
    assert [len(np.unique(found[found >= 0])) for found in (persistent, finest)] == [2, 3]
    for part in (finest[:60], finest[60:120], finest[120:]):
        assert np.bincount(part[part >= 0]).max() >= 58
