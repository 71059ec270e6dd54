"""Explanation: what is saved is what was found; damaged and newer folders are refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import whylens
from whylens._files import write_atomic
from whylens.explanation import FORMAT
from whylens.testing import SmallNet

FIXTURE = Path(__file__).parent / "fixtures" / "explanation-format-1"
TENSORS = ("maps", "targets", "scores", "probabilities", "predictions")


def found(**options: object) -> whylens.Explanation:
    preprocess = {"size": (16, 16), "resize": 18, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = whylens.Model(SmallNet(), preprocess=preprocess, layer="high", classes=["oak", "Föhre", "ash", "elm"])
    frames = torch.rand((3, 3, 30, 90), generator=torch.Generator().manual_seed(2))
    return whylens.explain(model, list(frames), **options)  # type: ignore[arg-type]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    made = found(method="integrated_gradients", params={"steps": 3}, seed=4)
    opened = whylens.Explanation.load(made.save(tmp_path / "a föld er"))
    for name in TENSORS:
        assert torch.equal(getattr(made, name), getattr(opened, name))
    assert made.as_json() == opened.as_json()
    assert opened.placements == made.placements
    assert opened.checks.keys() == made.checks.keys()
    assert all(torch.equal(made.checks[k], opened.checks[k]) for k in made.checks)
    assert opened.params == {"steps": 3, "baseline": "mean"}
    assert not list((tmp_path / "a föld er").glob(".*"))


def test_the_json_is_written_last_and_says_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(
        "whylens.explanation.write_atomic", lambda path, data: (order.append(path.name), write_atomic(path, data))
    )
    made = found()
    made.save(tmp_path)
    assert order == ["tensors.safetensors", "explanation.json"]
    said = json.loads((tmp_path / "explanation.json").read_text("utf-8"))
    assert (said["format"], said["kind"]) == (FORMAT, "whylens.Explanation")
    row = said["rows"][1]
    assert row["target_name"] == made.target_names[1] == row["prediction_name"]
    assert row["probability"] == pytest.approx(float(made.probabilities[1]))


def test_every_past_format_opens() -> None:
    opened = whylens.Explanation.load(FIXTURE)
    assert (opened.method, opened.maps.shape, opened.ids) == ("grad_cam", (2, 1, 3, 3), ("0", "1"))
    assert opened.placements[0] is not None
    assert opened.versions["whylens"] == "0.1.0"


def test_newer_damaged_and_absent_folders(tmp_path: Path) -> None:
    made = found()
    newer = made.save(tmp_path / "newer")
    said = json.loads((newer / "explanation.json").read_text("utf-8"))
    (newer / "explanation.json").write_text(json.dumps({**said, "format": FORMAT + 1}), "utf-8")
    with pytest.raises(whylens.InputError, match=f"format {FORMAT + 1}, newer than the {FORMAT}"):
        whylens.Explanation.load(newer)
    cut = made.save(tmp_path / "cut")
    data = (cut / "tensors.safetensors").read_bytes()
    (cut / "tensors.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(whylens.InputError, match="is damaged"):
        whylens.Explanation.load(cut)
    torn = made.save(tmp_path / "torn")
    (torn / "explanation.json").write_text('{"format": 1, "maps"', "utf-8")
    with pytest.raises(whylens.InputError, match="is damaged"):
        whylens.Explanation.load(torn)
    with pytest.raises(whylens.InputError, match=r"explanation\.json is missing"):
        whylens.Explanation.load(tmp_path / "nowhere")
    (cut / "tensors.safetensors").unlink()
    with pytest.raises(whylens.InputError, match="holds no explanation"):
        whylens.Explanation.load(cut)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.json"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]
    with pytest.raises(whylens.InputError, match="No space left on device"):
        found().save(tmp_path / "folder")


def test_rows_by_position_slice_and_id() -> None:
    made = found(target="top2")
    assert len(made) == 6
    assert made.ids == ("0", "0", "1", "1", "2", "2")
    one = made["1"]
    assert torch.equal(one.maps, made.maps[2:4])
    assert one.target_names == made.target_names[2:4]
    assert torch.equal(made[-1].maps, made.maps[-1:])
    assert len(made[1:3]) == 2
    with pytest.raises(whylens.InputError, match="no image 'x'"):
        made["x"]


def test_top_targets_are_the_largest_scores_in_order() -> None:
    made = found(target="top3")
    singles = [found(target=made.targets[k::3]) for k in range(3)]
    for k, single in enumerate(singles):
        torch.testing.assert_close(made.maps[k::3], single.maps)
        torch.testing.assert_close(made.scores[k::3], single.scores)
    assert bool((made.scores.view(3, 3).diff(dim=1) <= 0).all())


def test_at_another_size_keeps_values() -> None:
    made = found()
    assert made.at((16, 16)).shape == (3, 1, 16, 16)
    assert float(made.at((16, 16)).max()) <= float(made.maps.max()) + 1e-6


def test_it_is_frozen_and_says_what_it_is() -> None:
    made = found()
    with pytest.raises(AttributeError):
        made.maps = made.maps * 2  # type: ignore[misc]
    assert "grad_cam" in repr(made)
    assert "(3, 1, 8, 8)" in repr(made)
    assert not made.maps.requires_grad
    assert made.layer == "high"


def test_rows_are_taken_from_a_history_too() -> None:
    """A history is (T, N, ...): its rows are the second axis, whatever T is."""
    explanation = found()
    n = len(explanation)
    for steps in (n, n + 1):
        history = torch.arange(steps * n * 2.0).view(steps, n, 2)
        part = replace(explanation, history=history)[1:]
        assert part.history is not None
        assert torch.equal(part.history, history[:, 1:])
