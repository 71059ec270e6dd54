"""Recorder: the training goes on as if nobody had looked; what is kept is true, whole, and can be read at any time."""

from __future__ import annotations

import random
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import InputError, Maps, MethodFacts, Model, Preprocess, Probe, Recorder, explain, load_images, open_record
from whylens import recorder as module
from whylens.errors import DamageError
from whylens.record import _change, settled
from whylens.run.plan import sealed, unsealed
from whylens.snapshot import FIXED, Snapshot

SIZE, COUNT = 24, 6
PLAIN = Preprocess((SIZE, SIZE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CLASSES = ["left", "right"]


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a bright square on the left or the right: pixels uint8, labels, masks."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120, (count, 3, SIZE, SIZE), dtype=np.uint8)
    labels, masks = np.arange(count) % 2, np.zeros((count, SIZE, SIZE), np.bool_)
    for k, label in enumerate(labels):
        top, left = int(rng.integers(2, 14)), 2 + 12 * int(label)
        masks[k, top : top + 8, left : left + 8] = True
        pixels[k, :, masks[k]] = 230
    return torch.from_numpy(pixels), torch.from_numpy(labels), torch.from_numpy(masks)


@pytest.fixture(scope="module")
def images() -> whylens.Images:
    pixels, labels, masks = scenes(COUNT, seed=9)
    return load_images(list(pixels), labels=[CLASSES[k] for k in labels], masks=list(masks))


def fresh() -> nn.Module:
    """Batch norm, dropout, and one part frozen."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1),
        nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 2),
    )  # fmt: skip
    net[0].bias.requires_grad_(False)
    return net


def model_of(net: nn.Module) -> Model:
    return Model(net, preprocess=PLAIN, classes=CLASSES)


def draws() -> tuple[float, float, float]:
    """One number of each random state."""
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@MethodFacts(needs=("layer",), unit="score", signed=False, backwards="0")
def drawing(probe: Probe) -> Maps:
    """A method that draws from every global random state, as no method of whylens does."""
    return Maps(probe.activation().sum(1, keepdim=True) + sum(draws()))


def trained(images: whylens.Images, out: Path | None, method: Any = "grad_cam", epochs: int = 3) -> dict[str, Any]:
    """A real loop that draws from torch, numpy and python; all that it ends with."""
    pixels, labels, _ = scenes(32, seed=1)
    net = fresh()
    net[1].eval()  # a frozen batch norm: modes are mixed
    optimiser = torch.optim.Adam(filter(lambda p: p.requires_grad, net.parameters()), 0.01)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(1)
    recorder = None if out is None else Recorder(model_of(net), images, out=out, method=method)
    losses = []
    for epoch in range(epochs):
        for rows in torch.randperm(32).split(8):
            frames = PLAIN.normalise(pixels[rows].float() / 255)
            frames = frames.flip(2) if np.random.rand() < 0.5 else frames
            frames = frames * random.uniform(0.9, 1.1) + 0.05 * torch.randn_like(frames)
            loss = F.cross_entropy(net(frames), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        if recorder is not None:
            recorder.step(epoch)
    return {
        "weights": net.state_dict(),
        "gradients": [p.grad for p in net.parameters()],
        "asks": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "optimiser": [v for state in optimiser.state_dict()["state"].values() for v in state.values()],
        "losses": losses,
        "draws": draws(),
        "recorder": recorder,
    }


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    tensors = zip(
        [*one["weights"].values(), *one["optimiser"]], [*two["weights"].values(), *two["optimiser"]], strict=True
    )
    gradients = zip(one["gradients"], two["gradients"], strict=True)
    return (
        all(torch.equal(a, b) for a, b in tensors)
        and all((a is None and b is None) or torch.equal(a, b) for a, b in gradients)
        and all(one[name] == two[name] for name in ("asks", "modes", "losses", "draws"))
    )


# ---- nobody looked -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(images: whylens.Images) -> dict[str, Any]:
    return trained(images, None)


@pytest.mark.parametrize(
    "method", ["grad_cam", "saliency", "rise:samples=8", drawing], ids=["grad_cam", "saliency", "rise", "drawing"]
)
def test_a_training_ends_bitwise_the_same(
    images: whylens.Images, alone: dict[str, Any], tmp_path: Path, method: Any
) -> None:
    watched = trained(images, tmp_path / "out", method)
    assert same(alone, watched)
    assert watched["recorder"].record.epochs == (0, 1, 2)


def test_that_test_sees_a_random_state_that_moved(
    images: whylens.Images, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "untouched", lambda _net: nullcontext())
    assert not same(alone, trained(images, tmp_path / "out", drawing))


def test_that_test_sees_statistics_that_moved(
    images: whylens.Images, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorder that runs the net as it finds it moves batch norm."""

    def careless(self: Recorder, _epoch: int, **_rest: Any) -> None:
        with torch.no_grad(), module.untouched(nn.Identity()):
            self.model.forward(self.set.frames)

    monkeypatch.setattr(Recorder, "step", careless)
    assert not same(alone, trained(images, tmp_path / "out"))


class Counting(nn.Module):
    """Counts its calls in a buffer, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = fresh()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x)


def test_buffers_that_change_in_evaluation_come_back(images: whylens.Images, tmp_path: Path) -> None:
    net = Counting()
    net(torch.rand(2, 3, SIZE, SIZE))
    Recorder(model_of(net), images, out=tmp_path / "out").step(0)
    assert int(net.calls) == 1


def test_a_step_between_forward_and_backward_changes_no_gradient(images: whylens.Images, tmp_path: Path) -> None:
    def gradients(out: Path | None) -> list[Tensor]:
        net = fresh()
        torch.manual_seed(3)
        loss = net(torch.rand(4, 3, SIZE, SIZE)).square().sum()
        if out is not None:
            Recorder(model_of(net), images, out=out).step(0)
        loss.backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    for one, two in zip(gradients(None), gradients(tmp_path / "out"), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_step_inside_a_validation_is_the_same(images: whylens.Images, tmp_path: Path, mode: Any) -> None:
    plain = Recorder(model_of(fresh()), images, out=tmp_path / "plain").step(0)
    net = fresh()
    with mode():
        inside = Recorder(model_of(net), images, out=tmp_path / "inside").step(0)
    assert plain is not None
    assert inside is not None
    assert torch.equal(plain.maps, inside.maps)


def test_all_is_as_found_after_an_error(images: whylens.Images, tmp_path: Path) -> None:
    @MethodFacts(needs=("layer",), unit="score", signed=False)
    def failing(probe: Probe) -> Maps:
        draws()
        probe.activation()
        raise ValueError("no")

    net = fresh().train()
    recorder = Recorder(model_of(net), images, out=tmp_path / "out", method=failing)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        recorder.step(0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(m.training for m in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [i != 1 for i in range(len(list(net.parameters())))]
    assert not list((tmp_path / "out").glob("epochs/*"))


# ---- what is kept --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(images: whylens.Images, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Eight epochs of a training that learns the task."""
    made: Recorder = trained(images, tmp_path_factory.mktemp("rec") / "Größe & Maß", epochs=8)["recorder"]
    return made


def test_values_are_those_of_explain_and_measure(watched: Recorder, images: whylens.Images) -> None:
    held = watched.record.at(7)
    labels = [CLASSES.index(str(label)) for label in images.labels]
    e = explain(watched.model, images, target=labels)
    torch.testing.assert_close(held.maps, e.maps)
    assert held.targets.tolist() == labels
    torch.testing.assert_close(held.scores, e.scores)
    focus = whylens.measure(watched.model, images, e, metric="energy_inside")
    torch.testing.assert_close(held.focus, focus.values)
    cut = whylens.measure(watched.model, images, e, metric="iou", params={"threshold": 0.5})
    torch.testing.assert_close(held.iou[:, FIXED], cut.values)
    torch.testing.assert_close(held.iou, cut.curve)
    guesses = watched.model.predict(watched.set.frames)
    assert held.predictions.tolist() == guesses.argmax(1).tolist()
    torch.testing.assert_close(held.probabilities, guesses.amax(1))
    assert held.correct.tolist() == [float(g == k) for g, k in zip(guesses.argmax(1).tolist(), labels, strict=True)]


def test_change_worked_by_hand() -> None:
    maps = torch.tensor([[1.0, 0.6], [1.0, 0.2]]).view(1, 1, 2, 2)
    two = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    cosine = 1 / (1 + 0.36 + 1 + 0.04) ** 0.5
    assert float(_change(maps, two)) == pytest.approx(1 - cosine)
    assert float(_change(maps, 3 * maps)) == pytest.approx(0, abs=1e-12)
    assert float(_change(maps, -maps)) == pytest.approx(2)
    assert bool(_change(maps, 0 * maps).isnan().all())


def test_iou_against_plain_counting(watched: Recorder) -> None:
    held, (_, masks) = watched.record.at(7), watched.record.images
    for k in range(COUNT):
        laid = F.interpolate(held.maps[k : k + 1].double(), size=(SIZE, SIZE), mode="bilinear")[0, 0].numpy()
        region, inside = laid >= 0.5 * laid.max(), masks[k].numpy() == 1
        expected = (region & inside).sum() / (region | inside).sum() if laid.max() > 0 else np.nan
        assert float(held.iou[k, FIXED]) == pytest.approx(expected, nan_ok=True)


def test_the_table_is_the_mean_of_the_rows(watched: Recorder) -> None:
    table = watched.table()
    assert [row["epoch"] for row in table] == list(range(8))
    for row in table:
        own = watched.record.rows(row["epoch"])
        for name in ("iou", "focus", "change"):
            assert row[name] == pytest.approx(
                np.nanmean([r[name] for r in own]) if row["epoch"] or name != "change" else np.nan, nan_ok=True
            )
        assert row["accuracy"] == pytest.approx(np.mean([r["correct"] for r in own]))
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["iou_best"] >= row["iou"] - 1e-6
        assert row["area"] == pytest.approx(64 / SIZE**2)
        assert row["seconds"] > 0
    assert table[-1]["accuracy"] == 1  # it learns the task


def test_without_labels_the_prediction_is_explained_and_without_masks_nothing_is_judged(tmp_path: Path) -> None:
    pixels, _, _ = scenes(3, seed=2)
    recorder = Recorder(model_of(fresh()), list(pixels), out=tmp_path / "out")
    held = recorder.step(0)
    assert held is not None
    assert held.targets.tolist() == held.predictions.tolist()
    assert recorder.record.said["target"] == "predicted"
    for values in (held.correct, held.iou, held.focus):
        assert bool(values.isnan().all())
    row = recorder.table()[0]
    assert np.isnan([row["accuracy"], row["iou"], row["focus"], row["area"]]).all()
    assert "focus: no value, because there are no masks" in str(recorder.record)
    recorder.figure()
    recorder.film()


def test_targets_can_be_chosen(images: whylens.Images, tmp_path: Path) -> None:
    for target, expected in (("right", [1] * COUNT), (0, [0] * COUNT), ([0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0])):
        held = Recorder(model_of(fresh()), images, out=tmp_path / str(target), target=target).step(0)
        assert held is not None
        assert held.targets.tolist() == expected
    predicted = Recorder(model_of(fresh()), images, out=tmp_path / "p", target="predicted").step(0)
    assert predicted is not None
    assert predicted.targets.tolist() == predicted.predictions.tolist()


def test_a_net_without_slope_is_flagged_and_finite(images: whylens.Images, tmp_path: Path) -> None:
    net = fresh()
    nn.init.zeros_(net[-1].weight)
    recorder = Recorder(model_of(net), images, out=tmp_path / "out", method="grad_cam:layer=6")
    recorder.step(0)
    recorder.step(1)
    assert bool(recorder.record.at(0).checks["flat"].all())
    assert recorder.record.rows(1)[0]["flags"] == ["flat"]
    assert np.isnan(recorder.table()[1]["change"])
    recorder.film()


def test_your_own_accuracy_is_kept_beside(images: whylens.Images, tmp_path: Path) -> None:
    recorder = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    recorder.step(0, accuracy=0.25)
    row = recorder.table()[0]
    assert (row["accuracy"], row["given"]) == (0.25, True)


def test_only_epochs_that_are_due_are_recorded(images: whylens.Images, tmp_path: Path) -> None:
    every = Recorder(model_of(fresh()), images, out=tmp_path / "every", every=3)
    chosen = Recorder(model_of(fresh()), images, out=tmp_path / "chosen", epochs=[1, 4])
    made = [(every.step(e), chosen.step(e)) for e in range(5)]
    assert [(a is not None, b is not None) for a, b in made] == [(e in (0, 3), e in (1, 4)) for e in range(5)]
    assert (every.record.epochs, chosen.record.epochs) == ((0, 3), (1, 4))


# ---- on disk -------------------------------------------------------------------------------------------------


def test_a_record_is_read_while_the_training_goes_on(images: whylens.Images, tmp_path: Path) -> None:
    recorder = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    reader = open_record(tmp_path / "out")
    assert (reader.epochs, str(reader)) == ((), f"no epoch recorded yet of {COUNT} images")
    for draw in (reader.film, reader.figure):
        with pytest.raises(InputError, match="holds no epoch yet"):
            draw()
    recorder.step(0)
    assert reader.refresh().epochs == (0,)
    assert torch.equal(reader.at(0).maps, recorder.record.at(0).maps)
    assert torch.equal(reader.images[0].float(), (recorder.set.frames * 255).round())
    assert reader.explanation(0).ids == images.ids


def test_a_snapshot_comes_back_as_it_was(images: whylens.Images, tmp_path: Path) -> None:
    recorder = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    made = recorder.step(4, accuracy=1 / 3)
    back = open_record(tmp_path / "out").at(4)
    assert made is not None
    for name, value in vars(made).items():
        held = getattr(back, name)
        if isinstance(value, Tensor):
            assert torch.equal(held.nan_to_num(-7), value.nan_to_num(-7)), name
            assert held.dtype == value.dtype
        elif name != "checks":
            assert held == value, name
    assert set(back.checks) == set(made.checks)


def test_an_epoch_is_written_whole_or_not_at_all(
    images: whylens.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    recorder.step(0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("whylens._files.os.fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        recorder.step(1)
    monkeypatch.undo()
    (tmp_path / "out" / "epochs" / ".000002.safetensors.0123456789ab.tmp").write_bytes(
        b"half"
    )  # of a process that died
    assert open_record(tmp_path / "out").epochs == (0,)
    recorder.step(1)
    assert open_record(tmp_path / "out").epochs == (0, 1)


def test_a_training_that_died_goes_on_in_the_same_folder(images: whylens.Images, tmp_path: Path) -> None:
    first = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    first.step(0)
    before = (tmp_path / "out" / "epochs" / "000000.safetensors").read_bytes()
    net = fresh()
    nn.init.normal_(net[0].weight)
    again = Recorder(model_of(net), images, out=tmp_path / "out")
    assert again.record.epochs == (0,)
    with pytest.raises(InputError, match=r"holds epoch 0 already\. To write it anew say replace=True"):
        again.step(0)
    again.step(1)
    assert (tmp_path / "out" / "epochs" / "000000.safetensors").read_bytes() == before
    anew = Recorder(model_of(net), images, out=tmp_path / "out", replace=True)
    anew.step(0)
    assert open_record(tmp_path / "out").epochs == (0, 1)
    assert (tmp_path / "out" / "epochs" / "000000.safetensors").read_bytes() != before


def test_another_record_is_refused(images: whylens.Images, tmp_path: Path) -> None:
    Recorder(model_of(fresh()), images, out=tmp_path / "out").step(0)
    for other, what in (
        ({"method": "saliency"}, "its method differs"),
        ({"target": 0}, "its target differs"),
        ({"seed": 5}, "its seed differs"),
        ({"images": images.subset(slice(0, 4))}, "its target differs"),
    ):
        given: dict[str, Any] = {"images": images, **other}
        with pytest.raises(InputError, match=f"holds another record: {what}"):
            Recorder(model_of(fresh()), given.pop("images"), out=tmp_path / "out", **given)
    pixels, _, masks = scenes(COUNT, seed=10)
    swapped = load_images(list(pixels), labels=list(images.labels), masks=list(masks))
    with pytest.raises(InputError, match="its content differs"):
        Recorder(model_of(fresh()), swapped, out=tmp_path / "out")


def test_damage_and_strangers_are_said(images: whylens.Images, tmp_path: Path) -> None:
    recorder = Recorder(model_of(fresh()), images, out=tmp_path / "out")
    recorder.step(0)
    file = tmp_path / "out" / "epochs" / "000000.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DamageError, match=r"000000.safetensors' is damaged"):
        open_record(tmp_path / "out").at(0)
    with pytest.raises(InputError, match=r"holds no record: record\.json is missing"):
        open_record(tmp_path)
    with pytest.raises(InputError, match=r"holds no epoch 3\. It holds: 0"):
        recorder.record.at(3)
    path = tmp_path / "out" / "record.json"
    path.write_bytes(sealed({**{k: v for k, v in unsealed(path, "").items() if k != "sha256"}, "format": 99}))
    with pytest.raises(InputError, match="has format 99, newer than the 1 known here"):
        open_record(tmp_path / "out")


def test_a_record_of_format_1_opens() -> None:
    held = open_record(Path(__file__).parent / "fixtures" / "record-format-1")
    first, last = held.table()
    assert (held.epochs, held.ids, first["given"], last["accuracy"]) == ((0, 3), ("0", "1"), False, 0.5)
    assert first["iou"] == pytest.approx(0.188406, abs=1e-6)
    assert first["focus"] == pytest.approx(0.295245, abs=1e-6)
    assert last["change"] == pytest.approx(0, abs=1e-9)
    held.film()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"every": 0}, "every must be an integer >= 1. Got 0"),
        ({"method": "gradcm"}, "Did you mean 'grad_cam'"),
        ({"target": "middle"}, "No class 'middle'"),
        ({"method": "grad_cam:layer=nowhere"}, "No layer 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_training(
    images: whylens.Images, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Recorder(model_of(fresh()), images, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_read_or_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"'broken.png' cannot be read"):
        Recorder(model_of(fresh()), tmp_path / "broken.png", out=tmp_path / "out")
    bare = Model(fresh(), classes=CLASSES)
    with pytest.raises(InputError, match="must have frames of one shape"):
        Recorder(bare, [torch.rand(3, 24, 24), torch.rand(3, 32, 32)], out=tmp_path / "out")
    with pytest.raises(InputError, match=r"epoch must be an integer >= 0\. Got -1"):
        Recorder(bare, torch.rand(2, 3, 24, 24), out=tmp_path / "out").step(-1)


# ---- when it stopped moving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "since"),
    [
        ([0.1, 0.5, 0.80, 0.81, 0.79, 0.80], 12),
        ([0.8] * 6, 10),
        ([0.1, 0.5, 0.6, 0.7, 0.8, 0.8], None),  # only one epoch follows
        ([0.80, 0.81, 0.79, 0.80, 0.8, 0.7], None),  # it moved at the end
        ([0.1, 0.8, 0.82, 0.78, 0.8, 0.8], 11),  # 0.02 away is within
        ([0.1, 0.8, 0.83, 0.8, 0.8, 0.8], None),  # 0.03 away is not, and two follow
        ([float("nan")] * 6, None),
        ([float("nan"), 0.8, 0.8, 0.8, 0.8, 0.8], 11),
    ],
)
def test_the_rule_of_when_a_curve_stopped(values: list[float], since: int | None) -> None:
    assert settled(range(10, 16), values, 0.02, 3) == since


def test_it_says_when_focus_and_accuracy_stopped(watched: Recorder, tmp_path: Path) -> None:
    found, said = watched.record.settled(), str(watched.record)
    for name, word in (("accuracy", "accuracy"), ("focus", "focus"), ("iou", "IoU")):
        since = found[name]
        expected = f"{word}: still moving at epoch 7" if since is None else f"since epoch {since}"
        assert expected in said
    assert watched.record.settled(tolerance=2, still=1) == {"accuracy": 0, "focus": 0, "iou": 0}
    assert watched.record.settled(tolerance=2, still=8) == dict.fromkeys(("accuracy", "focus", "iou"))


# ---- drawn -----------------------------------------------------------------------------------------------------


def picture(figure: Any) -> np.ndarray[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_the_film_has_a_picture_per_image_and_epoch(watched: Recorder) -> None:
    made, axes = watched.film(images=[1, 0], epochs=[0, 3, 7])
    assert len(made.axes) == 2 * 4
    assert axes is made.axes[1]
    assert picture(made).std() > 20
    shown = [ax.get_images()[0].get_array() for ax in made.axes]
    assert shown[0].shape == shown[1].shape
    assert not np.array_equal(shown[1], shown[3])
    with pytest.raises(InputError, match="No image 'x'"):
        watched.film(images=["x"])
    with pytest.raises(InputError, match="holds no epoch 9"):
        watched.film(epochs=[9])
    whole, _ = watched.film()
    assert len(whole.axes) == COUNT * 9


def test_the_object_is_outlined_where_it_is(watched: Recorder) -> None:
    made, _ = watched.film(images=[0], epochs=[0])
    shown = np.asarray(made.axes[0].get_images()[0].get_array())
    times = len(shown) // SIZE
    inside = watched.record.images[1][0].numpy().repeat(times, 0).repeat(times, 1) == 1
    white, black = (shown == 255).all(2), (shown == 0).all(2)
    assert 0 < white.sum() < inside.sum()
    assert inside[white].all()
    assert not inside[black].any()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert white[rows[0], columns[0] : columns[-1] + 1].all()


def test_the_curves_are_those_of_the_table(watched: Recorder) -> None:
    _, axes = watched.figure()
    table = watched.table()
    lines = {str(line.get_label()).split(":")[0]: line for line in axes.get_lines()}
    for name, word in (("accuracy", "accuracy"), ("focus", "focus"), ("iou", "IoU")):
        np.testing.assert_allclose(lines[word].get_ydata(), [row[name] for row in table])
        np.testing.assert_array_equal(lines[word].get_xdata(), list(range(8)))
    assert "focus of an even map" in lines


# ---- segmentation ----------------------------------------------------------------------------------------------


class Cutter(nn.Module):
    """Tells bright pixels from dark ones; answers as torchvision's segmentation nets do, at half the size."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, outputs, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.body(x))}


def cutter(outputs: int = 2) -> Model:
    classes = ["ground", "square"] if outputs == 2 else ["square"]
    return Model(Cutter(outputs), preprocess=PLAIN, classes=classes, task="segmentation")


@pytest.mark.parametrize("outputs", [2, 1])
def test_a_segmentation_net_is_recorded_with_its_prediction_and_the_mask(
    images: whylens.Images, tmp_path: Path, outputs: int
) -> None:
    model = cutter(outputs)
    index = outputs - 1
    recorder = Recorder(model, images, out=tmp_path / "out", target="square", method="grad_cam:layer=body")
    optimiser = torch.optim.Adam(model.net.parameters(), 0.05)
    pixels, _, masks = scenes(32, seed=1)
    for epoch in range(4):
        model.net.train()
        for rows in torch.arange(32).split(8):
            scores = F.interpolate(model.net(PLAIN.normalise(pixels[rows].float() / 255))["out"], scale_factor=2.0)
            wanted = masks[rows].long()
            loss = (
                F.cross_entropy(scores, wanted)
                if outputs == 2
                else F.binary_cross_entropy_with_logits(scores[:, 0], wanted.float())
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        recorder.step(epoch)
    held = recorder.record.at(3)
    assert held.predicted is not None
    assert held.overlap is not None
    with torch.no_grad():
        out = model.net.eval()(PLAIN.normalise(recorder.set.frames))["out"]
    scores = F.interpolate(out, size=(SIZE, SIZE), mode="bilinear")
    region = scores.argmax(1) == 1 if outputs == 2 else scores[:, 0] > 0
    assert torch.equal(held.predicted == index, region)
    own = images.mask(0)
    assert own is not None
    expected = (region[0] & own.inside).sum() / (region[0] | own.inside).sum()
    assert float(held.overlap[0]) == pytest.approx(float(expected))
    there = out.argmax(1)[0] == 1 if outputs == 2 else out[0, 0] > 0
    assert float(held.scores[0]) == pytest.approx(float(out[0, index][there].mean()), rel=1e-4)
    share = scores.softmax(1)[0, 1] if outputs == 2 else scores.sigmoid()[0, 0]
    assert float(held.probabilities[0]) == pytest.approx(float(share[own.inside].mean()), rel=1e-4)
    table = recorder.table()
    assert table[-1]["accuracy"] == pytest.approx(float(held.overlap.mean()))
    assert table[-1]["accuracy"] > table[0]["accuracy"]
    assert held.targets.tolist() == [index] * COUNT
    made, _ = recorder.film(images=[0, 1], epochs=[0, 3])
    assert len(made.axes) == 2 * 2 * 3
    recorder.figure()


def test_a_class_that_is_nowhere_predicted_is_explained_over_all_pixels(images: whylens.Images, tmp_path: Path) -> None:
    model = cutter()
    with torch.no_grad():
        model.net.head.bias.copy_(torch.tensor([50.0, 0.0]))
    held = Recorder(model, images, out=tmp_path / "out", target=1, method="grad_cam:layer=body").step(0)
    assert held is not None
    assert held.overlap is not None
    assert held.overlap.tolist() == [0] * COUNT
    with torch.no_grad():
        out = model.net.eval()(PLAIN.normalise(images[0].pixels[None].float() / 255))["out"]
    assert float(held.scores[0]) == pytest.approx(float(out[0, 1].mean()), rel=1e-4)


def test_a_segmentation_net_needs_a_class(images: whylens.Images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a segmentation net needs target="):
        Recorder(cutter(), images, out=tmp_path / "a", method="grad_cam:layer=body")
    with pytest.raises(InputError, match=r"with more than 5 classes\. Got"):
        Recorder(cutter(), images, out=tmp_path / "b", target=5, method="grad_cam:layer=body").step(0)
    flat = Model(fresh(), preprocess=PLAIN, task="segmentation")
    with pytest.raises(InputError, match=r"must return scores \(N, K, h, w\)"):
        Recorder(flat, images, out=tmp_path / "c", target=1, method="grad_cam:layer=6").step(0)


# ---- trainers --------------------------------------------------------------------------------------------------


class Trainer:
    """Calls its callbacks as Lightning does: by hook name, for every epoch."""

    is_global_zero = True

    def fit(self, module: nn.Module, callbacks: list[Any], epochs: int) -> None:
        for self.current_epoch in range(epochs):
            module.train()
            for callback in callbacks:
                callback.on_train_epoch_end(self, module)


class LightningModule(nn.Module):
    """The user's net stands inside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def test_the_callback_of_lightning(images: whylens.Images, tmp_path: Path) -> None:
    net = fresh()
    recorder = Recorder(model_of(net), images, out=tmp_path / "out", every=2)
    Trainer().fit(LightningModule(net), [recorder.lightning()], epochs=5)
    assert recorder.record.epochs == (0, 2, 4)
    other = Trainer()
    other.is_global_zero = False
    other.fit(LightningModule(net), [recorder.lightning()], epochs=20)
    assert recorder.record.epochs == (0, 2, 4)
    with pytest.raises(InputError, match="another net than the one in training"):
        Trainer().fit(LightningModule(fresh()), [recorder.lightning()], epochs=1)


def test_the_callback_is_of_the_trainers_own_class(
    images: whylens.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Callback:
        def on_fit_end(self) -> str:
            return "inherited"

    there = ModuleType("pytorch_lightning")
    there.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", there)
    made = Recorder(model_of(fresh()), images, out=tmp_path / "out").lightning()
    assert isinstance(made, Callback)
    assert made.on_fit_end() == "inherited"


def test_the_callback_of_hugging_face_in_its_own_handler(images: whylens.Images, tmp_path: Path) -> None:
    from transformers import TrainerCallback, TrainerControl, TrainerState
    from transformers.trainer_callback import CallbackHandler

    net = fresh()
    recorder = Recorder(model_of(net), images, out=tmp_path / "out")
    callback = recorder.hugging_face()
    assert isinstance(callback, TrainerCallback)
    handler = CallbackHandler([callback], net, None, None, None)
    state, control, args = TrainerState(), TrainerControl(), SimpleNamespace()
    handler.on_train_begin(args, state, control)
    for epoch in range(1, 4):
        state.epoch = float(epoch) - 1e-9
        handler.on_epoch_end(args, state, control)
    handler.on_train_end(args, state, control)
    assert recorder.record.epochs == (1, 2, 3)
    state.is_world_process_zero = False
    handler.on_epoch_end(args, state, control)
    assert recorder.record.epochs == (1, 2, 3)


def test_a_snapshot_says_what_it_holds() -> None:
    """Every tensor of a snapshot is described."""
    described = Snapshot.__doc__ or ""
    for name in Snapshot.__dataclass_fields__:
        assert f"`{name}`" in described or name in ("epoch", "checks", "seconds"), name
