"""Every metric in a run: with the audit or added later, by words, with the values of `measure`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import _plugins, load_images, load_model
from whylens.contract import Metric
from whylens.run.audit import audit, extend
from whylens.run.read import Run, open_run

QUICK = {
    "deletion": "steps=5", "impact_coverage": "steps=5,rate=0.3", "infidelity": "samples=5", "insertion": "steps=5",
    "lerf": "steps=5", "max_sensitivity": "samples=2", "morf": "steps=5", "road": "steps=3",
}  # fmt: skip
METRICS = [f"{name}:{QUICK[name]}" if name in QUICK else name for name in _plugins.names("metrics")]
METHODS = ["grad_cam", "smooth_grad:samples=3"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Seven photos in class folders with masks, one without a mask, one broken; and a net in a file."""
    from conftest import NETS

    folder = tmp_path_factory.mktemp("metrics") / "Maß"
    rng = np.random.default_rng(0)
    for k in range(7):
        name = ("cat", "dog")[k % 2] + f"/{k}.png"
        for part in ("photos", "masks"):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)).save(folder / "photos" / name)
        mask = np.zeros((40, 44), np.uint8)
        mask[8:30, 4 * k : 4 * k + 12] = 255
        if k != 5:
            Image.fromarray(mask).save(folder / "masks" / name)
    (folder / "photos" / "dog" / "3.png").write_bytes(b"no image")
    (folder / "nets.py").write_text(NETS, "utf-8")
    return folder, f"{folder / 'nets.py'}:model"


def pictures(folder: Path) -> whylens.Images:
    return load_images(folder / "photos", masks=folder / "masks")


@pytest.fixture(scope="module")
def whole(setting: tuple[Path, str]) -> Run:
    folder, spec = setting
    model = load_model(spec, device="cpu")
    return audit(model, pictures(folder), out=folder / "run", methods=METHODS, metrics=METRICS, workers=1, seed=2)


def columns(run: Run) -> dict[str, list[Any]]:
    table = run.table()
    return {name: table.column(name).to_pylist() for name in table.column_names if name.startswith("metric.")}


def test_every_metric_lands_in_the_store(whole: Run, setting: tuple[Path, str]) -> None:
    folder, spec = setting
    held, keys = columns(whole), whole.table(["key"]).column("key").to_pylist()
    assert len(held) == len(METRICS) * len(METHODS)
    model, images = load_model(spec, device="cpu"), pictures(folder)
    for method in METHODS:
        explanation = whylens.explain(model, images, method=method, seed=2)
        for metric in METRICS:
            measured = whylens.measure(model, images, explanation, metric=metric, seed=2)
            expected = dict(zip(measured.ids, measured.values.tolist(), strict=True))
            for key, value in zip(keys, held[f"metric.{metric}.{method}"], strict=True):
                there = expected.get(key, float("nan"))
                assert (value is None) == (there != there), (metric, key)
                assert value is None or value == pytest.approx(there, rel=1e-3, abs=1e-4), (metric, key)
    assert whole.verify().ok


def test_metrics_added_later_are_those_of_the_audit(whole: Run, setting: tuple[Path, str]) -> None:
    """Also those that explain again or draw the net's weights anew: methods run again as they did."""
    folder, spec = setting
    model = load_model(spec, device="cpu")
    later = audit(model, pictures(folder), out=folder / "later", methods=METHODS, workers=1, seed=2)
    extend(later, metrics=METRICS, workers=1)
    found = open_run(folder / "later")
    assert found.verify().ok
    before, after = columns(whole), columns(found)
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert after[name] == values, name


def test_the_command_adds_them(setting: tuple[Path, str], command: Callable[..., Any]) -> None:
    folder, spec = setting
    out = folder / "by words"
    said = command("audit", folder / "photos", "--model", spec, "--out", out, "--workers", 1)
    assert said.code == 3, said  # one photo is broken
    said = command("measure", out, "--metric", "model-randomisation:steps=2", "--metric", "road:steps=2")
    assert said.code == 3, said
    held = columns(open_run(out))
    assert sorted(held) == ["metric.model_randomisation:steps=2.grad_cam", "metric.road:steps=2.grad_cam"]
    for values in held.values():
        assert sum(value is None for value in values) <= 2
    said = command("measure", out, "--metric", "impact-coverage:area=0.9")
    assert said.code == 2
    assert "area must be a number in [0.001, 0.5]" in said.err


def test_a_run_of_a_black_box_says_which_metric_needs_a_net(tmp_path: Path) -> None:
    frames = torch.rand((2, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    box = whylens.Model(lambda x: x.mean((2, 3)))
    for metric, said in (
        ("model_randomisation", "shows none. Give a torch net"),
        ("impact_coverage", "Use impact_score"),
    ):
        with pytest.raises(whylens.InputError, match=said):
            audit(box, frames, out=tmp_path / metric, methods=["occlusion:cells=3"], metrics=[metric])
    found = audit(
        box, frames, out=tmp_path / "run", methods=["occlusion:cells=3"], metrics=["max_sensitivity:samples=2"]
    )
    assert all(value is not None for value in columns(found)["metric.max_sensitivity:samples=2.occlusion:cells=3"])
    assert Metric.read("max-sensitivity").plain_name == "max_sensitivity"
