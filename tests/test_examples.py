"""The examples run, at miniature settings, and draw what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import Preprocess, demo
from whylens.testing import SmallNet

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import ax_toy
import gax_curves
import training_film

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_toy_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ax_toy.main(["--out", str(tmp_path / "made" / "toy.png"), "--points", "21"])
    assert Image.open(tmp_path / "made" / "toy.png").size == (960, 720)
    said = capsys.readouterr().out
    assert "a1 0.95, angle 0 pi, k eta 1.2: x [0.95 0.05], h [2.033 0.047], CO 1.9860" in said
    assert "k eta 1.44: x [0.95 0.05], h [2.2496 0.0464], CO 2.2032" in said


def test_the_toys_gain_is_never_less_than_that_of_the_point_itself() -> None:
    for a1 in ax_toy.FIRST:
        W = ax_toy.rotation(np.linspace(-np.pi, np.pi, 41))
        none, paper, published = (ax_toy.toy(a1, W, k).gain for k in (0.0, ax_toy.PAPER, ax_toy.PUBLISHED))
        np.testing.assert_allclose(none, 2 * a1 - 1)
        assert (paper >= none - 1e-12).all()
        assert (published >= paper - 1e-12).all()


def test_curves_of_two_nets_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, *, device: str) -> whylens.Model:
        assert device == "cpu"
        return whylens.Model(SmallNet(seed=int(name)), preprocess=Preprocess((24, 24)), name=name)

    monkeypatch.setattr(whylens, "load_model", load)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    out = tmp_path / "curves.png"
    photos = [str(path) for path in demo.photos()]
    gax_curves.main([*photos, "--out", str(out), "--model", "0", "--model", "1", "--steps", "4"])
    assert Image.open(out).size == (720, 450)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    for line in said[:4]:
        assert re.fullmatch(r"[01], (coffee|chelsea).+: CO -?\d+\.\d after \d steps, reached: (yes|no)", line), line


def test_a_training_is_filmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_film, "OTHERS", 16)
    asked = {"folder": tmp_path / "made", "epochs": 2, "train": 64, "recorded": 16, "out": tmp_path}
    training_film.main([word for name, value in asked.items() for word in (f"--{name}", str(value))])
    for name in ("film.jpg", "film_curves.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10
    assert "2 epochs of 16 images, 0 to 1\naccuracy: still moving at epoch 1" in capsys.readouterr().out
    assert whylens.open_record(tmp_path / "made" / "record").table()[0]["given"]


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text("utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert f"import {file.stem}\n" in here, f"{file.name} is run by no test"
    for path in gax_curves.usual_photos():
        assert path.exists()
