"""Actions: what is done about a group, before and after, controls, verdict, record; a shortcut is unlearnt."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import whylens
from synthetic_shortcut import CLASSES, NET, shortcut, write
from whylens import InputError, Model
from whylens.effect import measured
from whylens.groups.reason import direction, pixels
from whylens.learn import LastLayer


@pytest.fixture(scope="module")
def model() -> Model:
    return shortcut()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my pictures")


@pytest.fixture(scope="module")
def train(folder: Path) -> whylens.Images:
    return write(folder / "train", 200, seed=0)


@pytest.fixture(scope="module")
def swapped(folder: Path) -> whylens.Images:
    return write(folder / "swapped", 50, seed=2, swapped=True)


@pytest.fixture(scope="module")
def groups(folder: Path, model: Model) -> whylens.Groups:
    images = write(folder / "test", 200, seed=1)
    run = whylens.audit(model, images, out=folder / "run", methods=["layer_cam"], workers=1)
    return whylens.group(run, model=model)


@pytest.fixture(scope="module")
def green(groups: whylens.Groups) -> Any:
    found = max((g for g in groups if g.class_name == "warm"), key=lambda g: share(groups, g))
    assert share(groups, found) == 1
    return found


def share(groups: whylens.Groups, group: Any) -> float:
    column = groups.run.table(["green"]).column(0).to_pylist()
    return float(np.mean([int(column[i]) for i in group.ids]))


def act(groups: whylens.Groups, group: Any, action: str, model: Model, **more: Any) -> Any:
    return whylens.act(groups.run, group, action, model=model, **more)


# ---- where the reason lies -------------------------------------------------------------------------------------------


def test_a_reason_is_found_to_the_pixel(model: Model) -> None:
    frame = torch.full((1, 3, 32, 32), 0.4)
    frame[:, :, 4:12, 4:12] = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1)
    frame[:, :, 20:28, 20:28] = torch.tensor([0.1, 0.9, 0.1]).view(1, 3, 1, 1)
    everywhere = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    found = pixels(model, "find", frame, torch.tensor([-1.0, 1.0, 0.0]), everywhere)[0, 0]
    assert bool(found[21:27, 21:27].all())
    assert not bool(found[4:12, 4:12].any())
    assert int(found.sum()) < 14 * 14
    none = pixels(model, "find", frame, torch.zeros(3), everywhere)
    assert torch.equal(none, everywhere)  # nothing of it anywhere: the region stands


def test_a_direction_is_a_difference_of_means() -> None:
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    found = direction(vectors, np.array([0, 1]), np.array([2]))
    torch.testing.assert_close(found, torch.tensor([0.9, -0.7]))


# ---- the verdict -----------------------------------------------------------------------------------------------------


def test_a_verdict_needs_the_change_and_what_is_beyond_every_control() -> None:
    before, better = np.zeros(100), np.r_[np.ones(60), np.zeros(40)]
    alike = np.r_[np.ones(58), np.zeros(42)]
    assert measured("a", "g", "x", before, better, {"c": before}).verdict == "helped"
    assert measured("a", "g", "x", before, better, {"c": alike, "d": better}).verdict == "no evidence"
    assert measured("a", "g", "x", better, before, {"c": better}).verdict == "hurt"
    assert measured("a", "g", "x", before, before, {}).verdict == "no evidence"
    found = measured("a", "g", "x", before, better, {"c": alike})
    assert (found.before.value, found.after.value, found.change.value) == (0, 0.6, 0.6)
    assert found.controls["c"].value == pytest.approx(0.58)
    assert found.beyond["c"].value == pytest.approx(0.02)


# ---- acts ------------------------------------------------------------------------------------------------------------


def test_keeping_the_evidence_alone_decides(groups: whylens.Groups, green: Any, model: Model) -> None:
    found = act(groups, green, "keep", model)
    assert (found.before.value, found.after.value, found.verdict) == (0, 1, "helped")
    assert found.controls["random regions of equal area"].value < 0.3
    assert found.said["area_kept"] < 0.25


def test_masking_it_is_measured_beside_random_regions(groups: whylens.Groups, green: Any, model: Model) -> None:
    found = act(groups, green, "mask", model)
    assert found.measured == "accuracy"
    assert (found.before.value, found.after.value, found.verdict) == (1, 0, "hurt")
    assert found.controls["random regions of equal area"].value > -0.1


@pytest.mark.parametrize("action", ["keep", "mask"])
def test_a_few_images_at_a_time_change_nothing(
    groups: whylens.Groups, green: Any, model: Model, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = act(groups, green, action, model)
    monkeypatch.setattr("whylens.task._BATCH", 5)
    assert len(green.ids) > 10
    parts = act(groups, green, action, model)
    assert replace(parts, record=None) == replace(whole, record=None)


def test_a_shortcut_is_unlearnt(
    groups: whylens.Groups, green: Any, model: Model, train: whylens.Images, swapped: whylens.Images
) -> None:
    found = act(groups, green, "retrain", model, train=train, images=swapped)
    assert found.verdict == "helped"
    assert found.before.value < 0.7  # green turns what is blue
    assert found.change.value > 0.3
    assert set(found.controls) == {"random regions of equal shape"}
    assert all(beyond.low > 0.05 for beyond in found.beyond.values())
    assert isinstance(found.model, Model)
    more = act(groups, green, "retrain", model, train=train, images=swapped, anew=True)
    assert more.verdict == "helped"
    assert more.after.value > 0.95
    assert more.change.low > 0.1
    assert all(beyond.low > 0.1 for beyond in more.beyond.values())
    assert set(more.controls) == {"random regions of equal shape", "nothing changed"}
    again = act(groups, green, "retrain", model, train=train, images=swapped)
    assert again.as_dict() == found.as_dict()


def test_the_model_that_was_given_is_left_as_it_was(
    groups: whylens.Groups, green: Any, train: whylens.Images, swapped: whylens.Images
) -> None:
    mine = shortcut()
    before = {k: v.clone() for k, v in mine.net.state_dict().items()}
    act(groups, green, "retrain", mine, train=train, images=swapped)
    assert all(torch.equal(v, before[k]) for k, v in mine.net.state_dict().items())


def test_leaving_out_and_relabelling_are_measured(
    groups: whylens.Groups, green: Any, model: Model, train: whylens.Images, swapped: whylens.Images
) -> None:
    less = act(groups, green, "exclude", model, train=train, images=swapped)
    assert less.said["training_images_left_out"] > 20
    assert set(less.controls) == {"random images of equal number"}
    other = act(groups, green, "relabel", model, train=train, images=swapped, label="nothing")
    assert other.said["training_images_relabelled"] == less.said["training_images_left_out"]


def test_your_own_training_takes_the_place_of_the_last_layer(
    groups: whylens.Groups, green: Any, model: Model, train: whylens.Images, swapped: whylens.Images
) -> None:
    seen = []

    def fit(frames: Tensor, truth: Any) -> Model:
        seen.append((tuple(frames.shape), len(truth)))
        return model

    found = act(groups, green, "retrain", model, train=train, images=swapped, fit=fit)
    assert seen == [((200, 3, 32, 32), 200)] * 3
    assert found.verdict == "no evidence"


def test_your_own_training_is_named_by_its_file(
    groups: whylens.Groups, green: Any, model: Model, train: whylens.Images, swapped: whylens.Images, tmp_path: Path
) -> None:
    tests = str(Path(__file__).parent)
    (tmp_path / "my train.py").write_text(
        f"import sys\nsys.path.insert(0, {tests!r})\nfrom synthetic_shortcut import shortcut\n\n\n"
        "def fit(frames, truth):\n    assert len(frames) == len(truth) == 200\n    return shortcut()\n"
    )
    found = act(groups, green, "retrain", model, train=train, images=swapped, fit=f"{tmp_path / 'my train.py'}:fit")
    assert found.verdict == "no evidence"
    assert set(found.controls) == {"random regions of equal shape", "nothing changed"}
    with pytest.raises(InputError, match=r"your own fit cannot be run: ZeroDivisionError"):
        act(groups, green, "retrain", model, train=train, fit=lambda *_: 1 / 0)
    with pytest.raises(InputError, match="has no function 'other'"):
        act(groups, green, "retrain", model, train=train, fit=f"{tmp_path / 'my train.py'}:other")


def test_export_writes_masks_over_the_photos(groups: whylens.Groups, green: Any, model: Model, tmp_path: Path) -> None:
    act(groups, green, "export", model, out=str(tmp_path / "out dir"))
    rows = list(csv.DictReader((tmp_path / "out dir" / "group.csv").open()))
    assert [row["key"] for row in rows] == sorted(green.keys)
    with Image.open(tmp_path / "out dir" / rows[0]["mask"]) as mask, Image.open(rows[0]["uri"]) as photo:
        inside = np.asarray(mask) > 0
        assert mask.size == photo.size
        assert np.asarray(photo)[inside][:, 1].mean() > 150  # green


def test_every_act_leaves_a_record(groups: whylens.Groups, green: Any, model: Model) -> None:
    found = act(groups, green, "mask", model)
    said = json.loads(found.record.read_text())
    assert (said["action"], said["group"], said["version"]) == ("mask", green.name, groups.version)
    assert said["image_ids"] == list(green.ids)
    assert said["effect"]["after"]["value"] == found.after.value


def test_the_command_line_acts_and_saves_the_model(
    groups: whylens.Groups, green: Any, folder: Path, command: Any, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NET)
    saved = whylens.save_model(whylens.load_model(f"{tmp_path / 'net.py'}:make"), tmp_path / "model")
    run = whylens.audit(
        whylens.load_model(saved), folder / "test" / "list.csv", out=tmp_path / "run", methods=["layer_cam"], workers=1
    )
    made = whylens.group(run)
    name = max((g for g in made if g.class_name == "warm"), key=lambda g: share(made, g)).name
    words = ("act", str(run.folder), name, "--action", "retrain", "--train", str(folder / "train" / "list.csv"))
    words += ("--images", str(folder / "swapped" / "list.csv"), "--save", str(tmp_path / "new model"), "--json")
    said = command(*words)
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert told["verdict"] == "helped"
    learnt, images = whylens.load_model(tmp_path / "new model"), whylens.load_images(folder / "swapped" / "list.csv")
    frames = torch.stack([learnt.prepare(photo.pixels)[0] for photo in images])
    right = [
        learnt.class_name(k) == label for k, label in zip(learnt.predict(frames).argmax(1), images.labels, strict=True)
    ]
    assert np.mean(right) == told["after"]["value"]
    other = command("act", str(run.folder), "no such", "--action", "mask")
    assert other.code == 2
    assert "No group 'no such'" in other.err


def test_what_cannot_be_done_is_said(
    groups: whylens.Groups, green: Any, model: Model, train: whylens.Images, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"No action 'masks'\. Did you mean 'mask'"):
        act(groups, green, "masks", model)
    with pytest.raises(InputError, match="train="):
        act(groups, green, "retrain", model)
    with pytest.raises(InputError, match="must be one Group"):
        act(groups, "green", "mask", model)
    with pytest.raises(InputError, match="No parameter 'strenght'"):
        act(groups, green, "retrain", model, train=train, strenght=3)
    with pytest.raises(InputError, match="Give one of them"):
        act(groups, green, "retrain", model, train=train, anew=True, fit=lambda *_: model)
    with pytest.raises(InputError, match="no output 99"):
        act(groups, green, "relabel", model, train=train, label=99)
    nothing = write(tmp_path / "blue only", 50, seed=3).subset([k for k in range(50) if k % 5 in (1, 2, 4)])
    with pytest.raises(InputError, match="no training image shows"):
        act(groups, green, "retrain", model, train=nothing)
    whole = Model(nn.Sequential(nn.Conv2d(3, 3, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()), classes=CLASSES)
    with pytest.raises(InputError):
        act(groups, green, "retrain", whole, train=train)


def test_a_parameter_that_is_needed_and_lacks_is_said(groups: whylens.Groups, green: Any, model: Model) -> None:
    with pytest.raises(InputError, match="export needs the parameter 'out'"):
        act(groups, green, "export", model)
    with pytest.raises(InputError, match="There are 3 groups"):
        groups[7]


# ---- the last layer --------------------------------------------------------------------------------------------------


def spotted(count: int, seed: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Frames ``(N, 3, 4, 4)`` of one colour and the channel, 0 or 1, that was brighter before noise."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    colour = rng.normal(0, 1, (count, 3))
    colour[np.arange(count), truth] += 1.5
    return torch.from_numpy(colour).float()[:, :, None, None].expand(-1, -1, 4, 4).contiguous(), truth


def linear(outputs: int, weight: float) -> Model:
    torch.manual_seed(1)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, outputs))
    with torch.no_grad():
        net[2].weight.mul_(weight)
        net[2].bias.mul_(weight)
    return Model(net.eval(), classes=[f"c{k}" for k in range(outputs)])


def test_where_it_ends_the_slope_is_what_it_was() -> None:
    (frames, truth), (others, labels) = spotted(300, 0), spotted(250, 1)
    made = linear(2, 1.0)
    last = LastLayer(made, frames, truth)
    pixels, more = (f.double().mean((2, 3)).numpy() for f in (frames, others))
    middle, spread = pixels.mean(0), pixels.std(0)
    length = float(((matrix(made)[:, :-1] * spread) ** 2).sum(1).mean())

    def slope(model: Model, seen: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Of the mean cross-entropy by weights on standardised features and biases, worked out anew."""
        logits = np.c_[seen, np.ones(len(seen))] @ matrix(model).T
        odds = np.exp(logits - logits.max(1, keepdims=True))
        over = odds / odds.sum(1, keepdims=True) - np.eye(2)[truth]
        return over.T @ np.c_[(seen - middle) / spread, np.ones(len(seen))] / len(seen)

    for stay, anew in ((0.3, False), (0.003, False), (0.003, True)):
        learnt = last.learnt(last.entering(others), labels, stay=stay, anew=anew)
        step = matrix(learnt) - matrix(made)
        moved = np.c_[step[:, :-1] * spread, step[:, -1] + step[:, :-1] @ middle]
        assert np.abs(moved).max() > 0.01
        kept = 0 if anew else slope(made, pixels, truth)
        np.testing.assert_allclose(slope(learnt, more, labels) + stay / length * moved, kept + 0 * moved, atol=1e-5)


def test_unchanged_data_leave_the_layer_as_it_is() -> None:
    frames, truth = spotted(300, 1)
    made = linear(2, 1.0)  # random: it fits them badly
    last = LastLayer(made, frames, truth)

    def distance(truth: np.ndarray[Any, Any], stay: float) -> float:
        learnt = last.learnt(last.features, truth, stay=stay)
        return float(np.abs(matrix(learnt) - matrix(made)).max())

    assert distance(truth, 1e-6) == 0
    near, far = distance(1 - truth, 10.0), distance(1 - truth, 0.01)
    assert 0 < near < 0.1 < far
    surer = linear(2, 20.0)  # may move as much farther
    learnt = LastLayer(surer, frames, truth).learnt(last.features, 1 - truth, stay=10.0)
    assert float(np.abs(matrix(learnt) - matrix(surer)).max()) > 5 * near


def test_classes_without_an_image_are_not_forgotten() -> None:
    frames, truth = spotted(300, 2)
    frames[:, 2] = 0
    made = linear(5, 0.2)
    with torch.no_grad():
        weights(made)[4] = torch.tensor([0.0, 0.0, 9.0])
        weights(made)[:2, :2] += 2 * torch.eye(2)
    last = LastLayer(made, frames, truth)
    learnt = last.learnt(last.features, 1 - truth, stay=0.0025)
    hits = learnt.forward(frames).argmax(1).numpy() == 1 - truth
    assert hits.mean() > 0.75
    blue = torch.zeros(1, 3, 4, 4)
    blue[:, 2] = 5.0
    assert int(learnt.forward(blue).argmax()) == 4


def test_a_layer_without_a_bias_gets_one_and_a_net_without_a_layer_is_refused() -> None:
    frames, truth = spotted(60, 3)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2, bias=False)).eval()
    made = LastLayer(Model(net, classes=["a", "b"]), frames, truth)
    learnt = made.learnt(made.features, np.zeros_like(truth), stay=0.01)
    assert float(learnt.forward(frames).detach().softmax(1)[:, 0].mean()) > 0.8
    assert net[2].bias is None
    with pytest.raises(InputError, match="Got the label 7"):
        made.learnt(made.features, np.full_like(truth, 7), stay=0.01)


class Scaled(nn.Module):
    """Scores that are not what the last linear layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3))) * 4  # type: ignore[no-any-return]


class Tokens(Scaled):
    """A head at every place, averaged."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(2).transpose(1, 2)).mean(1)  # type: ignore[no-any-return]


class Idle(Scaled):
    """A last linear layer that is never asked."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, :2]


@pytest.mark.parametrize(
    "net",
    [nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten()), Scaled(), Tokens(), Idle()],
    ids=lambda net: type(net).__name__,
)
def test_a_net_that_does_not_end_in_a_linear_layer_is_refused(net: nn.Module) -> None:
    frames, truth = spotted(60, 3)
    with pytest.raises(InputError, match="does not end in a linear layer"):
        LastLayer(Model(net.eval(), classes=["a", "b"]), frames, truth)


def test_what_said_nothing_in_training_does_not_move() -> None:
    frames, truth = spotted(300, 4)
    frames[:, 2] = 0
    made = linear(2, 1.0)
    last = LastLayer(made, frames, truth)
    woken = frames.clone()
    woken[:60, 2] = 0.1
    learnt = last.learnt(last.entering(woken), truth, stay=0.0025)
    assert torch.equal(weights(learnt)[:, 2], weights(made)[:, 2])
    assert not torch.equal(weights(learnt)[:, :2], weights(made)[:, :2])


def test_any_precision_learns_and_inference_mode_does_not_reach_inside() -> None:
    frames, truth = spotted(300, 5)
    single = linear(2, 1.0)
    double = Model(copy.deepcopy(single.net).double(), classes=["a", "b"])
    first, second = (LastLayer(one, frames, truth) for one in (single, double))
    with torch.inference_mode():
        learnt = first.learnt(first.features, 1 - truth, stay=0.01)
    other = second.learnt(second.features, 1 - truth, stay=0.01)
    assert weights(other).dtype == torch.float64
    torch.testing.assert_close(weights(learnt), weights(other).float(), atol=1e-4, rtol=1e-4)
    assert not weights(learnt).is_inference()


def weights(model: Model) -> Tensor:
    layer = model.net[2]  # type: ignore[index]
    return layer.weight  # type: ignore[no-any-return,union-attr]


def matrix(model: Model) -> np.ndarray[Any, Any]:
    """Weights and biases of the last layer ``(C, K + 1)``."""
    layer = model.net[2]  # type: ignore[index]
    return np.c_[layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()]  # type: ignore[union-attr,operator]
