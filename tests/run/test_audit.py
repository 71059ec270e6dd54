"""The verb audit: what a run holds, that it is the same for any number of workers, and what it refuses."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import InputError, Method, MethodFacts, Metric, Model, Preprocess, explain, load_images, load_model
from whylens.run.audit import audit, extend
from whylens.run.plan import Plan
from whylens.run.read import Run, open_run
from whylens.run.verify import withdraw

COUNT = 150


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 photos in two class folders, of several sizes; three broken, one mask for each readable one."""
    folder = tmp_path_factory.mktemp("audits") / "Fotos & mehr"
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        name = ("cat", "dog")[i % 2] + f"/{i:03d} ü.png"
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (40 + i % 3, 44)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        mask = np.zeros(size, np.uint8)
        mask[8:30, 8:30] = 255
        held = folder / "masks" / name
        held.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(held)
    for i in (3, 77, 149):
        (folder / "photos" / ("cat", "dog")[i % 2] / f"{i:03d} ü.png").write_bytes(b"no image")
    return folder / "photos"


@pytest.fixture(scope="session")
def spec(photos: Path) -> str:
    from conftest import NETS

    (photos.parent / "nets.py").write_text(NETS, "utf-8")
    return f"{photos.parent / 'nets.py'}:model"


@pytest.fixture(scope="session")
def stored(photos: Path, spec: str) -> Run:
    """A run of two methods and one metric, by one worker."""
    images = load_images(photos, masks=photos.parent / "masks")
    return audit(
        load_model(spec, device="cpu"),
        images,
        out=photos.parent / "run one",
        methods=["grad_cam", Method("saliency", label="gradient/by input")],
        metrics=["energy_inside"],
        workers=1,
    )


def copied(run: Run, to: Path) -> Path:
    return Path(shutil.copytree(run.folder, to))


def rows(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.table(embeddings=True).to_pylist()
    return found


# ---- what it holds -----------------------------------------------------------------------------------------


def test_every_image_is_one_row_and_a_broken_one_says_why(stored: Run, photos: Path) -> None:
    table = stored.table()
    assert table.column("image_id").to_pylist() == list(range(COUNT))
    assert sorted(table.column("key").to_pylist()) == sorted(load_images(photos).ids)
    failed = [row for row in table.to_pylist() if row["status"] != "ok"]
    assert len(failed) == 3
    for row in failed:
        assert "not an image" in row["error"]
        assert row["prediction"] is None
        assert row["score.grad_cam"] is None
    assert stored.failures() == {row["key"]: row["error"] for row in failed}


def test_its_values_are_those_of_explain(stored: Run, photos: Path, spec: str) -> None:
    """The same batches explained by the verb: scores, targets, maps up to half precision, eq. 1."""
    model, images = load_model(spec, device="cpu"), load_images(photos)
    many = whylens.explain_many(model, images, methods=["grad_cam", "saliency"])
    table = {row["key"]: row for row in rows(stored)}
    for label, name in (("grad_cam", "grad_cam"), ("gradient/by input", "saliency")):
        e = many[name]
        for k, key in enumerate(e.ids):
            row = table[key]
            assert row[f"score.{label}"] == pytest.approx(float(e.scores[k]), rel=1e-4, abs=1e-5)
            assert row[f"target.{label}"] == int(e.targets[k])
            assert row["prediction"] == e.prediction_names[k]
            assert row["probability"] == pytest.approx(float(e.probabilities[k]), rel=1e-4)
        maps = stored.maps(label, list(e.ids))
        full = e.maps.sum(1, keepdim=True)
        torch.testing.assert_close(maps, full, rtol=2e-3, atol=float(full.abs().max()) * 1e-3)
    ids, vectors = stored.embeddings("grad_cam").tensor()
    key = table[many["grad_cam"].ids[5]]
    at = int((ids == key["image_id"]).nonzero())
    frame, _ = model.prepare(images[images.ids.index(key["key"])].pixels)
    features = torch.nn.Sequential(*list(model.net)[:2])(model.preprocess.normalise(frame[None]))  # type: ignore[union-attr]
    weights = many["grad_cam"].maps[5].clamp(min=0)
    expected = (features[0] * weights).sum((1, 2)) / weights.sum()
    torch.testing.assert_close(vectors[at], expected, rtol=1e-3, atol=1e-4)


def test_the_metric_is_that_of_measure(stored: Run, photos: Path, spec: str) -> None:
    model, images = load_model(spec, device="cpu"), load_images(photos, masks=photos.parent / "masks")
    e = explain(model, images)
    values = whylens.measure(model, images, e, metric="energy_inside")
    held = {row["key"]: row["metric.energy_inside.grad_cam"] for row in rows(stored)}
    for key, value in zip(values.ids, values.values.tolist(), strict=True):
        assert held[key] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_rows_are_equal_to_the_bit_for_any_number_of_workers(
    stored: Run, photos: Path, spec: str, tmp_path: Path, workers: int
) -> None:
    images = load_images(photos, masks=photos.parent / "masks")
    other = audit(
        load_model(spec, device="cpu"),
        images,
        out=tmp_path / "run",
        methods=["grad_cam", Method("saliency", label="gradient/by input")],
        metrics=["energy_inside"],
        workers=workers,
    )
    assert other.verify().ok
    assert other.table(embeddings=True).equals(stored.table(embeddings=True))
    for label in stored.labels:
        ok = [row["image_id"] for row in rows(stored) if row["status"] == "ok"]
        assert torch.equal(other.maps(label, ok), stored.maps(label, ok))


def test_full_maps_are_the_methods_own(photos: Path, spec: str, tmp_path: Path) -> None:
    model, images = load_model(spec, device="cpu"), load_images(photos).subset(slice(4, 20))
    run = audit(model, images, out=tmp_path / "run", methods=["saliency"], store="full")
    e = explain(model, images, method="saliency")
    assert torch.equal(run.maps("saliency", slice(None)), e.maps)


def test_an_explanation_comes_back_with_flags_checks_and_places(photos: Path, spec: str, tmp_path: Path) -> None:
    model, images = load_model(spec, device="cpu"), load_images(photos).subset(slice(0, 6))
    run = audit(model, images, out=tmp_path / "run", methods=["integrated_gradients:steps=2"], store="full")
    direct = explain(model, images, method="integrated_gradients", params={"steps": 2})
    back = run.explanation("integrated-gradients:steps=2", slice(None))
    assert back.ids == direct.ids
    assert back.placements == direct.placements
    assert torch.equal(back.maps, direct.maps)
    assert [back.flags(k) for k in range(len(back))] == [tuple(sorted(direct.flags(k))) for k in range(len(direct))]
    torch.testing.assert_close(back.checks["residual"], direct.checks["residual"])
    assert list(back.failures) == list(direct.failures)
    back.figure(images)


def test_targets_per_image_and_by_name(photos: Path, spec: str, tmp_path: Path) -> None:
    model, images = load_model(spec, device="cpu"), load_images(photos).subset(slice(4, 40))
    targets = [("cat", "dog", "tabby")[i % 3] for i in range(36)]
    run = audit(model, images, out=tmp_path / "a", target=targets, methods=["grad_cam", "grad_cam:target=dog"])
    assert [row["target.grad_cam"] for row in rows(run)] == [i % 3 for i in range(36)]
    assert {row["target.grad_cam:target=dog"] for row in rows(run)} == {1}
    again = extend(run, metrics=["sparseness"])
    assert again.metrics == ("sparseness",)
    with pytest.raises(InputError, match="one map per image"):
        audit(model, images, out=tmp_path / "b", target="top2")


# ---- resumed, added to -------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_the_same_command_again_writes_nothing(stored: Run, photos: Path, spec: str, tmp_path: Path) -> None:
    folder = copied(stored, tmp_path / "run")
    before = content(folder)
    images = load_images(photos, masks=photos.parent / "masks")
    again = audit(load_model(spec, device="cpu"), images, out=folder, methods=["grad_cam"], metrics=["energy_inside"])
    assert content(folder) == before
    assert again.finished


def test_a_second_method_adds_a_family_and_rewrites_nothing(
    stored: Run, photos: Path, spec: str, tmp_path: Path
) -> None:
    folder = copied(stored, tmp_path / "run")
    before = content(folder)
    model, images = load_model(spec, device="cpu"), load_images(photos, masks=photos.parent / "masks")
    run = audit(model, images, out=folder, methods=["grad_cam", "layer_cam"])
    after = content(folder)
    assert [name for name in before if after[name] != before[name]] == ["audit.toml"]  # which repeats what there is
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        "additions", "commit", "maps.layer_cam", "scores.layer_cam",
    }  # fmt: skip
    assert run.labels == ("grad_cam", "gradient/by input", "layer_cam")
    assert run.verify().ok
    values = [row["metric.energy_inside.layer_cam"] for row in rows(run)]
    assert sum(value is None for value in values) == 3  # the run's metric comes along
    fresh = audit(model, images, out=tmp_path / "fresh", methods=["layer_cam"])
    ok = [row["image_id"] for row in rows(run) if row["status"] == "ok"]
    assert torch.equal(run.maps("layer_cam", ok), fresh.maps("layer_cam", ok))
    assert run.table(["score.layer_cam"]).equals(fresh.table(["score.layer_cam"]))


def test_a_metric_added_later_has_the_values_it_would_have_had(stored: Run, tmp_path: Path) -> None:
    folder = copied(stored, tmp_path / "run")
    before = content(folder)
    run = extend(open_run(folder), metrics=["pointing_game:tolerance=0"], workers=2)
    after = content(folder)
    assert [name for name in before if after[name] != before[name]] == ["audit.toml"]
    assert run.verify().ok
    images = run.images
    for label, e in (("grad_cam", explain(run.model(), images)),):
        scores = whylens.measure(run.model(), images, e, metric="pointing_game", params={"tolerance": 0})
        held = {row["key"]: row[f"metric.pointing_game:tolerance=0.{label}"] for row in rows(run)}
        assert [held[key] for key in scores.ids] == scores.values.tolist()


def test_a_run_that_is_going_can_be_read(stored: Run, tmp_path: Path) -> None:
    folder = copied(stored, tmp_path / "run")
    (folder / "commit" / "00000" / "00000001.json").unlink()
    run = open_run(folder)
    assert not run.finished
    assert run.committed == COUNT - 64
    assert run.table().column("image_id").to_pylist() == [*range(64), *range(128, COUNT)]
    assert run.summary().committed == COUNT - 64
    assert "committed by now" in str(run.summary())
    with pytest.raises(InputError, match="not committed yet"):
        run.maps("grad_cam", [70])
    assert sum(len(ids) for ids, _ in run.embeddings("grad_cam")) == sum(row["status"] == "ok" for row in rows(run))


def test_what_is_missing_is_made_again_and_equal(stored: Run, photos: Path, spec: str, tmp_path: Path) -> None:
    folder = copied(stored, tmp_path / "run")
    (folder / "commit" / "00000" / "00000001.json").unlink()
    images = load_images(photos, masks=photos.parent / "masks")
    run = audit(
        load_model(spec, device="cpu"),
        images,
        out=folder,
        methods=["grad_cam", Method("saliency", label="gradient/by input")],
        metrics=["energy_inside"],
    )
    assert run.table(embeddings=True).equals(stored.table(embeddings=True))
    found = run.verify()
    assert found.ok
    assert {f.kind for f in found.found} == {"leftover"}  # the files of the record that was lost


# ---- models and images that cannot be opened again -----------------------------------------------------------


def own_net() -> Model:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net = torch.nn.Sequential(*layers, torch.nn.Linear(4, 2))
    return Model(net, preprocess=Preprocess((32, 32), 32), classes=["cat", "dog"], layer="1")


def test_a_net_from_a_notebook_works_with_one_worker_and_is_told_so(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = own_net()
    with caplog.at_level("WARNING", "whylens"):
        run = audit(model, photos, out=tmp_path / "run", workers="auto")
    assert run.finished
    assert "was made in Python" in run.plan.model["closed"]
    with pytest.raises(InputError, match=r"cannot be opened again: it was made in Python.*workers=1"):
        audit(model, photos, out=tmp_path / "other", workers=2)
    with pytest.raises(InputError, match="cannot be opened again"):
        run.model()
    again = audit(model, photos, out=tmp_path / "run", methods=["layer_cam"])
    assert again.labels == ("grad_cam", "layer_cam")
    assert "# Not repeated: the model" in (tmp_path / "run" / "audit.toml").read_text("utf-8")


def test_one_worker_is_told_where_more_would_pay(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    with caplog.at_level("WARNING", "whylens"):
        audit(own_net(), photos, out=tmp_path / "run")
    assert "one worker does all the work, because the model cannot be opened again" in caplog.text


def test_a_net_changed_after_it_was_opened_is_not_opened_again(photos: Path, spec: str, tmp_path: Path) -> None:
    model = load_model(spec, device="cpu")
    with torch.no_grad():
        next(model.net.parameters()).add_(1)
    with pytest.raises(InputError, match="their weights differ"):
        audit(model, photos, out=tmp_path / "run", workers=2)


def test_images_in_memory(tmp_path: Path, spec: str) -> None:
    frames = [np.full((40, 40, 3), i, np.uint8) for i in range(70)]
    model = load_model(spec, device="cpu")
    run = audit(model, frames, out=tmp_path / "run")
    assert run.finished
    assert audit(model, frames, out=tmp_path / "run").finished
    frames[5] = np.full((40, 40, 3), 200, np.uint8)
    with pytest.raises(InputError, match=r"other images: their content differs, first at '05'"):
        audit(model, frames, out=tmp_path / "run")
    with pytest.raises(InputError, match="was in memory"):
        _ = run.images
    with pytest.raises(InputError, match="in memory or in a dataset"):
        audit(model, frames, out=tmp_path / "other", workers=2)


def test_a_method_of_ones_own(photos: Path, spec: str, tmp_path: Path) -> None:
    @MethodFacts(needs=("scores",), unit="score", signed=True)
    def mine(probe: Any) -> torch.Tensor:
        """Maps of the score."""
        scores: torch.Tensor = probe.score
        return scores.view(-1, 1, 1, 1).expand(-1, 1, 3, 5) * torch.arange(15.0).view(1, 1, 3, 5)

    model = load_model(spec, device="cpu")
    run = audit(model, photos, out=tmp_path / "run", methods=[mine, "grad_cam"])
    assert run.maps("mine", [0]).shape == (1, 1, 3, 5)
    assert extend(run, methods=["layer_cam"], model=model).labels == ("mine", "grad_cam", "layer_cam")
    with pytest.raises(InputError, match="'mine' is a function of your own"):
        extend(run, metrics=["sparseness"])
    with pytest.raises(InputError, match="mine is a function of your own"):
        audit(model, photos, out=tmp_path / "two", methods=[mine], workers=2)


# ---- refused -------------------------------------------------------------------------------------------------


def other_weights(spec: str) -> Model:
    model = load_model(spec, device="cpu")
    with torch.no_grad():
        next(model.net.parameters()).mul_(2)
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "made with seed 0. Got 1"),
        ({"score": "probability"}, "made with score 'logit'. Got 'probability'"),
        ({"batch_size": 8}, "made with batch_size 16. Got 8"),
        ({"threads": 2}, "made with threads 1. Got 2"),
        ({"shard_rows": 32}, "made with shard_rows 64. Got 32"),
        ({"store": "full"}, "made with store 'pooled'. Got 'full'"),
        ({"target": 1}, "made with target None. Got 1"),
        ({"images": slice(0, 100)}, "other images: it holds 150, and there are 100"),
        ({"images": slice(None, None, -1)}, "other images: their names differ, first at"),
        ({"model": "other"}, "another model: their weights differ"),
        ({"model": "layer"}, "another model: their feature layers differ"),
        ({"workers": 0}, "workers must be 'auto' or an integer >= 1. Got 0"),
        ({"store": "half"}, "store must be 'pooled' or 'full'. Got 'half'"),
        ({"engine": "spark"}, "engine must be 'local'. Got 'spark'"),
        ({"methods": []}, "must name at least one method"),
        ({"methods": [Method("saliency", label="grad_cam")]}, "holds 'grad_cam' with other parameters"),
        ({"metrics": ["no_such"]}, "No metric 'no_such'"),
    ],
)
def test_another_run_is_refused_in_one_sentence(
    stored: Run, photos: Path, spec: str, change: dict[str, Any], says: str
) -> None:
    before = content(stored.folder)
    model = {"other": other_weights, "layer": lambda s: load_model(s, device="cpu", layer="3")}.get(
        change.pop("model", ""), lambda s: load_model(s, device="cpu")
    )(spec)
    images = load_images(photos, masks=photos.parent / "masks").subset(change.pop("images", slice(None)))
    with pytest.raises(InputError, match=says.replace("'", ".").replace(">=", ".=")) as error:
        audit(model, images, out=stored.folder, **{"methods": ["grad_cam"], **change})
    assert str(error.value).count("\n") == 0
    assert content(stored.folder) == before


def test_other_labels_are_another_run(stored: Run, photos: Path, spec: str) -> None:
    images = load_images(photos, masks=photos.parent / "masks", labels=["cat"] * COUNT)
    with pytest.raises(InputError, match="their labels differ"):
        audit(load_model(spec, device="cpu"), images, out=stored.folder)


def test_a_folder_with_other_files_is_refused(photos: Path, spec: str) -> None:
    with pytest.raises(InputError, match="holds other files"):
        audit(load_model(spec, device="cpu"), photos, out=photos.parent)


def test_a_newer_format_is_refused_and_a_changed_plan_is_seen(stored: Run, tmp_path: Path) -> None:
    from whylens.errors import DamageError
    from whylens.run.plan import sealed

    folder = copied(stored, tmp_path / "run")
    said = json.loads((folder / "run.json").read_bytes())
    said.pop("sha256")
    (folder / "run.json").write_bytes(sealed({**said, "format": 2}))
    with pytest.raises(InputError, match="format 2, newer than the 1 known here"):
        open_run(folder)
    (folder / "run.json").write_bytes((stored.folder / "run.json").read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(DamageError, match="not what its checksum says"):
        open_run(folder)
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path)


def test_a_second_planner_of_other_images_cannot_spoil_the_first(
    photos: Path, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw an empty folder; the slower one finds the plan of the faster when it writes its own, and is refused."""
    from whylens.run import audit as module

    model, images = load_model(spec, device="cpu"), load_images(photos)
    create: Callable[[Path, Plan], Plan] = module.create

    def slower(folder: Path, plan: Plan) -> Plan:
        monkeypatch.setattr(module, "create", create)
        audit(model, images, out=folder)
        return create(folder, plan)

    monkeypatch.setattr(module, "create", slower)
    with pytest.raises(InputError, match="made with other images: it holds 150, and there are 50"):
        audit(model, images.subset(slice(0, 50)), out=tmp_path / "run")
    assert open_run(tmp_path / "run").verify().ok
    assert len(open_run(tmp_path / "run").table()) == COUNT


# ---- one bad image does not fail the rest -----------------------------------------------------------------------


class Picky(torch.nn.Module):
    """Raises on a frame whose first value is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = own_net().net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x[:, 0, 0, 0] == 1).any()):
            raise ValueError("white corner")
        out: torch.Tensor = self.net(x)
        return out


def test_a_net_that_raises_on_one_image_fails_that_image_alone(tmp_path: Path) -> None:
    frames = torch.rand(40, 3, 24, 24) * 0.9
    frames[17, :, 0, 0] = 1
    model = Model(Picky().eval(), layer="net.1")
    run = audit(model, frames, out=tmp_path / "run")
    failed = run.failures()
    assert list(failed) == ["17"]
    assert "white corner" in failed["17"]
    assert run.summary().failed == 1
    sizes: Sequence[Any] = [np.zeros((24, 24, 3), np.uint8)] * 3 + [np.zeros((30, 24, 3), np.uint8)]
    odd = audit(Model(own_net().net, layer="1"), sizes, out=tmp_path / "odd", methods=["saliency"])
    assert "differ in size" in odd.failures()["3"]


def test_all_images_broken_is_one_sentence(tmp_path: Path, spec: str) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"None of the 3 images could be read. The first, 0.png"):
        audit(load_model(spec, device="cpu"), tmp_path, out=tmp_path / "run")


# ---- found by those who wrote the manual -----------------------------------------------------------------------


def test_a_dataset_that_was_moved_goes_on_from_where_it_is_now(
    stored: Run, photos: Path, spec: str, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    folder = tmp_path / "run"
    first = Path(shutil.copytree(photos, tmp_path / "first"))
    audit(load_model(spec, device="cpu"), first, out=folder, methods=["grad_cam"])
    shutil.rmtree(first)
    (folder / "commit" / "00000" / "00000001.json").unlink()
    run = audit(load_model(spec, device="cpu"), moved, out=folder, methods=["grad_cam"], workers=2)
    assert sum(row["status"] != "ok" for row in rows(run)) == 3


def test_masks_given_later_are_used(photos: Path, spec: str, tmp_path: Path) -> None:
    model = load_model(spec, device="cpu")
    audit(model, load_images(photos), out=tmp_path / "run")
    run = audit(
        model, load_images(photos, masks=photos.parent / "masks"), out=tmp_path / "run", metrics=["energy_inside"]
    )
    assert sum(row["metric.energy_inside.grad_cam"] is not None for row in rows(run)) == COUNT - 3


def test_a_metric_of_a_label_that_stands_for_another_is_refused(stored: Run, photos: Path, spec: str) -> None:
    images = load_images(photos, masks=photos.parent / "masks")
    with pytest.raises(InputError, match="holds 'energy_inside' as energy_inside"):
        audit(
            load_model(spec, device="cpu"),
            images,
            out=stored.folder,
            metrics=[Metric("sparseness", label="energy_inside")],
        )


def test_a_refused_request_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    model = own_net()
    run = audit(model, photos, out=tmp_path / "run")
    before = content(run.folder)
    with pytest.raises(InputError, match=r"workers=1"):
        audit(model, photos, out=run.folder, methods=["saliency"], workers=2)
    with pytest.raises(InputError, match=r"workers=1"):
        audit(model, photos, out=tmp_path / "new", methods=["saliency"], workers=2)
    assert content(run.folder) == before
    assert not (tmp_path / "new").exists()


def test_an_addition_that_was_interrupted_is_finished_by_any_audit(
    stored: Run, photos: Path, spec: str, tmp_path: Path
) -> None:
    folder = copied(stored, tmp_path / "run")
    model, images = load_model(spec, device="cpu"), load_images(photos, masks=photos.parent / "masks")
    audit(model, images, out=folder, methods=["layer_cam"])
    (folder / "commit" / "layer_cam" / "00000" / "00000000.json").unlink()
    assert not open_run(folder).finished
    assert audit(model, images, out=folder, methods=["grad_cam"]).finished
    said = tomllib.loads((folder / "audit.toml").read_text("utf-8"))
    assert [m["name"] for m in said["method"]] == ["grad_cam", "saliency", "layer_cam"]


def test_a_damaged_shard_is_withdrawn_and_made_again(stored: Run, photos: Path, spec: str, tmp_path: Path) -> None:
    folder = copied(stored, tmp_path / "run")
    file = next((folder / "maps").glob("00000001-*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    run = open_run(folder)
    assert withdraw(run, run.verify()) == ["commit/00000/00000001.json"]
    images = load_images(photos, masks=photos.parent / "masks")
    again = audit(load_model(spec, device="cpu"), images, out=folder)
    assert again.verify().ok
    assert again.table(embeddings=True).equals(stored.table(embeddings=True))
    assert len(again.files("maps")) == len(again.files()) == 3
    assert file not in again.files("maps")
    with pytest.raises(InputError, match="No family 'map'"):
        again.files("map")


def test_a_plan_or_an_addition_that_was_never_filled_does_not_block(
    stored: Run, photos: Path, spec: str, tmp_path: Path
) -> None:
    """Left by a writer that died where there are no hard links: the next one makes it whole."""
    model, images = load_model(spec, device="cpu"), load_images(photos, masks=photos.parent / "masks")
    folder = copied(stored, tmp_path / "run")
    (folder / "additions").mkdir(exist_ok=True)
    (folder / "additions" / "layer_cam.json").write_bytes(b"{")
    found = open_run(folder).verify().found
    assert [(f.kind, f.file) for f in found] == [("damaged", "additions/layer_cam.json")]
    assert "layer_cam" in audit(model, images, out=folder, methods=["layer_cam"]).labels
    assert open_run(folder).verify().ok
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_bytes(b"")
    assert audit(model, images.subset(slice(0, 20)), out=tmp_path / "new").verify().ok


def test_a_plan_that_is_torn_is_not_begun_again_over_work(stored: Run, photos: Path, spec: str, tmp_path: Path) -> None:
    from whylens.errors import DamageError

    folder = copied(stored, tmp_path / "run")
    (folder / "run.json").write_bytes(b"{")
    with pytest.raises(DamageError, match="not what its checksum says"):
        audit(load_model(spec, device="cpu"), load_images(photos), out=folder)
