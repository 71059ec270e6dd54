"""The verb gap: its figures on runs whose values are known, what it says, writes and refuses."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import whylens
from whylens import Gap, InputError, Metric, MetricFacts, Run, Trial, audit, gap, load_images, load_model, measure
from whylens.gap import PAPER
from whylens.separation import halved, separation

NET = '''
import torch
from torch import nn
from whylens import Model, Preprocess


def make():
    """Whether a photo is more red than green."""
    first, last = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))
        last.weight.copy_(torch.eye(2))
    net = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    plain = Preprocess((16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Model(net, preprocess=plain, classes=["red", "green"], layer="1", name="colours")
'''

COUNT, WRONG, BROKEN = 60, 20, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos of red or green in a list, 20 of them mislabelled, 2 that cannot be read, 1 without label."""
    folder = tmp_path_factory.mktemp("gap") / "Fotos & mehr"
    (folder / "photos").mkdir(parents=True)
    (folder / "nets.py").write_text(NET, "utf-8")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(COUNT + 1):
        colour = i % 2
        pixels = rng.integers(20, 90, (16, 16, 3), dtype=np.uint8)
        pixels[..., colour] += 100
        Image.fromarray(pixels).save(folder / "photos" / f"{i:02d}.png")
        label = ("red", "green")[colour if i >= WRONG else 1 - colour]
        name = {0: "=1+1", 1: "-x", 2: "@y"}.get(i, f"{i:02d} ü")
        lines.append((f"photos/{i:02d}.png", label if i < COUNT else "", name))
    for i in range(BROKEN):
        (folder / "photos" / f"broken {i}.png").write_bytes(b"no image")
        lines.append((f"photos/broken {i}.png", "red", f"broken {i}"))
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "id"), *lines])
    return folder


@pytest.fixture(scope="module")
def bare(place: Path) -> Run:
    """A run of two methods that holds no metric."""
    model = load_model(f"{place / 'nets.py'}:make", device="cpu")
    return audit(model, load_images(place / "list.csv"), out=place / "bare", methods=["saliency", "grad_cam"])


@pytest.fixture
def stored(bare: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bare.folder, tmp_path / "run"))


def planted(place: Path, out: Path, values: Callable[[Tensor, Tensor], Tensor]) -> Gap:
    """The gap of values made up from images and from whether they are right."""

    @MetricFacts(direction="higher")
    def made_up(trial: Trial) -> Tensor:
        right = trial.probe.model.scores(trial.probe.output).argmax(1) == trial.labels
        return values(trial.images.flatten(1).mean(1), right.float())

    model = load_model(f"{place / 'nets.py'}:make", device="cpu")
    images = load_images(place / "list.csv").subset(slice(0, COUNT))
    return gap(audit(model, images, out=out, metrics=[made_up]), metric=Metric(made_up))


def noise(frames: Tensor) -> Tensor:
    """Numbers that only look random."""
    return (frames * 1e5).frac()


# ---- figures -----------------------------------------------------------------------------------------------


def test_scores_of_the_gap_worked_by_hand(stored: Path) -> None:
    """Saliency is 1 over 256 on the predicted channel, so h is 1 there: its logit gains 1, the other's nothing.

    A right prediction has CO 1, a wrong one -1.
    """
    found = gap(stored)
    values = found.values("saliency")
    correct = found.rows.column("correct").to_numpy(zero_copy_only=False)
    assert (int(correct.sum()), int((~correct).sum())) == (COUNT - WRONG, WRONG)
    np.testing.assert_allclose(values, np.where(correct, 1, -1), atol=1e-5)
    one = found["saliency"]
    assert (one.auroc.value, one.ks, one.verdict) == (1, 1, "gap")
    assert one.difference.value == pytest.approx(2)
    assert one.threshold is not None
    assert one.threshold.value == pytest.approx(0, abs=1e-5)
    assert (one.threshold.accuracy.value, one.threshold.before.value) == (1, pytest.approx(2 / 3))
    assert (one.threshold.chosen_on, one.threshold.kept.n) == (30, 30)
    assert (one.threshold.right_kept.value, one.threshold.wrong_rejected.value) == (1, 1)


def test_scores_are_those_of_measure_and_stay_in_the_run(stored: Path) -> None:
    found = gap(stored, methods=["grad-cam"])
    run = whylens.open_run(stored)
    assert run.metrics == ("co_score",)
    assert run.verify().ok
    e = run.explanation("grad_cam", slice(0, COUNT))
    model, images = run.model(), run.images
    scores = measure(model, images, whylens.explain(model, images, method="grad_cam"), metric="co_score")
    expected = dict(zip(scores.ids, scores.values.tolist(), strict=True))
    assert len(e) == COUNT
    for key, value in zip(found.rows.column("key").to_pylist(), found.values("grad_cam"), strict=True):
        assert value == pytest.approx(expected[key], rel=1e-5, abs=1e-6)
    again = gap(stored, methods=["grad_cam"])
    assert again.as_dict() == found.as_dict()


def test_the_figures_are_those_of_the_values(stored: Path) -> None:
    found = gap(stored, seed=4)
    correct = found.rows.column("correct").to_numpy(zero_copy_only=False)
    half = found.rows.column("half").to_numpy(zero_copy_only=False) == "choose"
    assert np.array_equal(half, halved(correct, seed=4))
    assert found["grad_cam"] == separation("grad_cam", found.values("grad_cam"), correct, half, seed=4)
    odds = found.rows.column("probability").to_numpy(zero_copy_only=False)
    assert found.confidence == separation("probability", odds.astype(float), correct, half, seed=4)


def test_a_planted_gap_is_found_and_noise_is_not(place: Path, tmp_path: Path) -> None:
    clear = planted(place, tmp_path / "clear", lambda frames, right: right + noise(frames))
    assert clear["grad_cam"].verdict == "gap"
    assert clear.best is clear["grad_cam"]
    assert 0.8 < clear["grad_cam"].auroc.value < 1.01
    none = planted(place, tmp_path / "none", lambda frames, _right: noise(frames))
    assert none["grad_cam"].verdict == "no gap"
    assert none.best is None
    assert "grad_cam: no gap: the interval of its AUROC" in str(none)
    assert "No method shows a gap in made_up: nothing is called suspicious." in str(none)
    assert none.suspicious().num_rows == 0
    turned = planted(place, tmp_path / "turned", lambda frames, right: noise(frames) - right)
    assert turned["grad_cam"].verdict == "reversed"
    assert "grad_cam: reversed: wrong predictions have the higher values" in str(turned)


def test_constant_values_are_no_gap_and_none_at_all_too_few(place: Path, tmp_path: Path) -> None:
    flat = planted(place, tmp_path / "flat", lambda frames, _right: torch.ones_like(frames))
    assert (flat["grad_cam"].verdict, flat["grad_cam"].auroc.value) == ("no gap", 0.5)
    flat.figure()
    empty = planted(place, tmp_path / "empty", lambda frames, _right: torch.full_like(frames, torch.nan))
    assert empty["grad_cam"].verdict == "too few"
    assert empty.left_out["no value of grad_cam"] == COUNT
    assert "too few to say: 0 right and 0 wrong have a value, and 10 of each are needed" in str(empty)
    empty.figure()
    json.dumps(empty.as_dict(), allow_nan=False)


def test_the_lead_is_that_over_the_second(stored: Path) -> None:
    found = gap(stored)
    best, second = found["saliency"], found["grad_cam"]
    assert found.best is best
    assert found.lead is not None
    assert found.lead.value == pytest.approx(best.auroc.value - second.auroc.value)
    words = "ahead of the second by" if found.lead.low > 0 else "not told apart from the second"
    assert words in str(found)
    assert gap(stored, methods=["saliency"]).lead is None


# ---- what is left out ----------------------------------------------------------------------------------------


def test_images_without_label_and_failed_ones_are_counted(stored: Path) -> None:
    found = gap(stored)
    assert found.rows.num_rows == COUNT
    assert found.left_out == {"failed": BROKEN, "no label that the model knows": 1}
    assert "left out, failed: 2" in str(found)


def test_maps_of_another_class_are_counted(place: Path, tmp_path: Path) -> None:
    model, images = load_model(f"{place / 'nets.py'}:make", device="cpu"), load_images(place / "list.csv")
    some = images.subset(slice(1, COUNT))  # 30 are predicted green, 29 red
    run = audit(model, some, out=tmp_path / "run", target="red", metrics=["co_score"])
    found = gap(run)
    assert found.other_class == {"grad_cam": 30}
    assert "grad_cam: 30 maps explain another class than the predicted one" in str(found)
    assert gap(run, methods=["saliency"]).other_class == {"saliency": 30}


# ---- methods ---------------------------------------------------------------------------------------------------


def test_the_six_of_the_paper_are_computed_where_they_are_missing(stored: Path) -> None:
    found = gap(stored, methods="paper")
    assert tuple(one.label for one in found.separations) == PAPER
    assert set(whylens.open_run(stored).labels) == {*PAPER}
    assert all(np.isfinite(found.values(label)).all() for label in PAPER)


def test_one_method_in_two_layers(stored: Path) -> None:
    found = gap(stored, methods=["grad_cam:layer=0", "grad_cam:layer=1", "saliency"])
    assert [one.label for one in found.separations] == ["grad_cam:layer=0", "grad_cam:layer=1", "saliency"]


# ---- written ---------------------------------------------------------------------------------------------------


def test_what_is_written(stored: Path, tmp_path: Path) -> None:
    found = gap(stored)
    folder = found.save(tmp_path / "out")
    assert {p.name for p in folder.iterdir()} == {"gap.png", "gap.csv", "gap.json"}
    with Image.open(folder / "gap.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    said = json.loads((folder / "gap.json").read_text("utf-8"))
    assert (said["format"], said["best"], said["suspicious"]) == (1, "saliency", WRONG)
    assert said["methods"]["saliency"]["auroc"]["value"] == 1
    assert said["methods"]["saliency"]["verdict"] == "gap"
    assert said["lines"] == list(found.lines())


def test_suspicious_images_are_those_below_the_threshold(stored: Path, tmp_path: Path) -> None:
    found = gap(stored)
    listed = found.suspicious()
    assert listed.column("correct").to_pylist() == [False] * WRONG
    values = listed.column("value").to_pylist()
    assert values == sorted(values)
    rows = list(csv.DictReader((found.save(tmp_path / "out") / "gap.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["image_id", "key", "label", "prediction", "probability", "correct", "half", "value"]
    keys = {row["key"] for row in rows}
    assert {"'=1+1", "'-x", "'@y", "03 ü"} <= keys
    assert not any(key.startswith(("=", "-", "@", "+")) for key in keys)
    assert all(float(row["value"]) < 0 for row in rows)  # numbers stay numbers
    other = found.suspicious("grad_cam")
    cut = found["grad_cam"].threshold
    assert cut is not None
    assert other.num_rows == int((found.values("grad_cam") < cut.value).sum())


def test_the_figure_has_two_axes_per_method(stored: Path) -> None:
    made, axes = gap(stored).figure()
    assert len(made.axes) == 4
    assert axes in made.axes
    heights = sum(patch.get_height() for patch in axes.patches)  # type: ignore[attr-defined]
    assert heights == pytest.approx(2)  # each group's shares add up to 1


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command(stored: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    said = command("gap", stored, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    for words in ("AUROC", "saliency separates best", "accuracy of kept", "left out, failed: 2", "gap.json"):
        assert words in said.out, words
    held = json.loads(command("gap", stored, "--method", "saliency", "--json").out)
    assert list(held["methods"]) == ["saliency"]
    assert held["written"] is None
    assert held["methods"]["saliency"] == gap(stored).as_dict()["methods"]["saliency"]


def test_what_the_command_refuses(stored: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "holds no run" in refused("gap", tmp_path)
    assert "No method 'grad_cm'" in refused("gap", stored, "--method", "grad-cm")
    assert "--seed must be an integer" in refused("gap", stored, "--seed", "x")
    assert "No metric 'co'" in refused("gap", stored, "--metric", "co")


# ---- refused ---------------------------------------------------------------------------------------------------


def test_a_run_without_labels_is_refused(place: Path, tmp_path: Path) -> None:
    model = load_model(f"{place / 'nets.py'}:make", device="cpu")
    run = audit(model, [place / "photos" / f"{i:02d}.png" for i in range(12)], out=tmp_path / "run")
    with pytest.raises(InputError, match=r"none of the 12 images .* has a label that the model knows"):
        gap(run, metric="sparseness")


def test_an_unfinished_run_is_read_but_nothing_is_added(bare: Run, place: Path, tmp_path: Path) -> None:
    model = load_model(f"{place / 'nets.py'}:make", device="cpu")
    run = audit(model, load_images(place / "list.csv"), out=tmp_path / "run", shard_rows=20, metrics=["co_score"])
    (run.folder / "commit" / "00000" / "00000001.json").unlink()
    found = gap(run.folder)
    assert found.left_out["not committed yet"] == 20
    with pytest.raises(InputError, match=r"is not finished: 43 of 63 images are committed"):
        gap(run.folder, methods=["saliency"])


def test_an_unknown_label_has_a_remedy(stored: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'saliency'"):
        gap(stored)["salience"]
