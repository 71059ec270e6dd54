"""Requests that cannot be done as asked: one sentence in Python and on the command line, exit code 2, no traceback.

Every sentence says what must hold, what came, and the way out; the cases name the parts that must be in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from whylens import InputError, Method, Model, explain, explain_many, load_images, load_model
from whylens._files import file_name

Command = Callable[..., Any]
Refused = Callable[..., str]


@dataclass(frozen=True)
class Case:
    """One wrong request, for both doors: `words` of the command line, `load` and `call` in Python."""

    name: str
    says: tuple[str, ...]
    words: str = ""
    images: str = "föto 1.png"
    net: str = "prepared"
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


CASES = [
    # photos
    Case("no such file", ("none.png does not exist", "Give a photo, a folder"), images="none.png"),
    Case("an empty file", ("None of the 1 images could be read", "empty.jpg is empty (0 bytes)"), images="empty.jpg"),
    Case("a photo cut short", ("None of the 1 images", "cut.jpg is damaged or cut short"), images="cut.jpg"),
    Case("no image at all", ("notes.txt is neither a photo nor a list", "Give a photo"), images="notes.txt"),
    Case("a folder without images", ("void holds no images", "Known are", ".jpg"), images="void"),
    Case("a list without paths", ("list.csv must have a column 'path'", "Got: name"), images="list.csv"),
    # targets
    Case(
        "an unknown class", ("No class 'taby'", "Did you mean 'tabby'?", "3 classes"), "--target taby", net="model",
        call={"target": "taby"},
    ),
    Case(
        "a class of a net without names", ("no class names", "'dog'", "Give classes"), "--target dog",
        call={"target": "dog"},
    ),
    Case("a target beyond the outputs", ("3 outputs, 0 to 2", "Got 3"), "--target 3", call={"target": 3}),
    Case("a target below 0", ("counted from 0", "Got -1"), "--target -1", call={"target": -1}),
    Case("nought ranks", ("no class names", "'top0'"), "--target top0", call={"target": "top0"}),
    # methods
    Case(
        "an unknown method", ("No method 'gradcm'", "Did you mean 'grad_cam'?", "whylens methods"), "--method gradcm",
        call={"method": "gradcm"},
    ),
    Case(
        "an unknown parameter", ("No parameter 'step'", "Did you mean 'steps'?", "integrated_gradients takes: steps"),
        "--method integrated-gradients:step=4", call={"method": "integrated_gradients", "params": {"step": 4}},
    ),
    Case(
        "a parameter out of range", ("integrated_gradients: steps must be an integer >= 1", "Got 0"),
        "--method integrated_gradients:steps=0", call={"method": "integrated_gradients", "params": {"steps": 0}},
    ),
    Case(
        "a parameter of another type", ("steps must be an integer >= 1", "Got 'many'"),
        "--method integrated_gradients:steps=many", call={"method": "integrated_gradients:steps=many"},
    ),
    Case(
        "a parameter without a value", ("write parameters as name=value", "Got 'steps'"),
        "--method integrated_gradients:steps", call={"method": "integrated_gradients:steps"},
    ),
    Case(
        "an unknown choice", ("deep_lift: baseline must be one of", "'mean'", "Got 'pink'"),
        "--method deep_lift:baseline=pink", call={"method": "deep_lift", "params": {"baseline": "pink"}},
    ),
    # layers
    Case(
        "an unknown layer", ("No layer 'features'", "The net's parts: 0, 1, 2"), "--layer features",
        call={"layer": "features"},
    ),
    Case(
        "a layer that is no grid", ("The layer '6' gives (1, 3), which is no grid", "Name another layer"), "--layer 6",
        call={"layer": "6"},
    ),
    Case(
        "a layer that runs twice", ("The layer 'again' runs 2 times", "Name a layer that runs once"), "--layer again",
        net="twice", call={"layer": "again"},
    ),
    # nets
    Case("probabilities as logits", ("every row sums to 1", "output='probabilities'"), net="softmax"),
    Case(
        "the logit of probabilities", ("gives probabilities where logits are needed", "score='probability'"),
        "--score logit", net="probabilities", call={"score": "logit"},
    ),
    Case(
        "a gradient that is cut", ("cuts the gradient", "torch.no_grad", "gradient-free method"), "--method saliency",
        net="cut", call={"method": "saliency"},
    ),
    Case("a cut net without a layer", ("No feature layer could be found in Cut", "layer='...'"), net="cut"),
    # options
    Case("no images at once", ("'auto' or an integer >= 1", "Got 0"), "--batch-size 0", call={"batch_size": 0}),
    Case("a fraction", ("'auto' or an integer >= 1", "Got '2.5'"), "--batch-size 2.5", call={"batch_size": "2.5"}),
    Case("a digit that is none", ("an integer >= 1", "Got '²'"), "--batch-size ²", call={"batch_size": "²"}),
    Case(
        "an unknown precision", ("'float32' or 'auto'", "Got 'float8'"), "--precision float8",
        call={"precision": "float8"},
    ),
    Case(
        "a device that is not there", ("The device 'cuda' cannot be used", "Use device='auto' or 'cpu'"),
        "--device cuda", load={"device": "cuda"},
    ),
    Case(
        "an unknown device", ("The device 'abacus' cannot be used", "Use device='auto' or 'cpu'"), "--device abacus",
        load={"device": "abacus"},
    ),
    Case(
        "class names in no file", ("classes: 'none.txt' is no readable text file", "one class name per line"),
        "--classes none.txt", load={"classes": "none.txt"},
    ),
    Case(
        "weights in no file", ("weights: no file 'none.pt'", "'default', 'none' or a file"), "--weights none.pt",
        load={"weights": "none.pt"},
    ),
    Case(
        "an unknown model's function", ("nets.py has no function 'nothing'",), net="nothing",
    ),
    Case("a frame the net does not take", ("(1, 3, 32, 32)", "cannot be multiplied"), net="flat"),
    Case("an unknown score", ("'auto', 'logit'", "Got 'odds'"), "--score odds", call={"score": "odds"}),
    Case("a target beyond all numbers", ("Got 99",), "--target 99999999999999999999", call={"target": 10**20 - 1}),
    Case(
        "names for other outputs", ("2 class names", "3 outputs"), "--classes two.txt",
        load={"classes": ["cat", "dog"]},
    ),
]  # fmt: skip

DEVICES = {"a device that is not there": torch.cuda.is_available}


def params() -> list[Any]:
    here = [pytest.param(c, marks=pytest.mark.skipif(DEVICES.get(c.name, bool)(), reason="it is there")) for c in CASES]
    return [pytest.param(*p.values, id=p.values[0].name, marks=p.marks) for p in here]


@pytest.fixture(scope="module", autouse=True)
def bench(place: Path) -> None:
    """The wrong files, beside the right ones."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    picture.save(place / "cut.jpg")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:900])
    (place / "empty.jpg").write_bytes(b"")
    (place / "notes.txt").write_text("hello")
    (place / "list.csv").write_text("name\nx\n")
    (place / "two.txt").write_text("cat\ndog\n")
    (place / "void").mkdir()


def sentence(action: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert isinstance(error.value, ValueError)
    assert str(error.value).count("\n") == 0
    return str(error.value)


@pytest.mark.parametrize("case", params())
def test_refused_in_python(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    text = sentence(lambda: explain(load_model(f"nets.py:{case.net}", **case.load), case.images, **case.call))
    for part in case.says:
        assert part in text


@pytest.mark.parametrize("case", params())
def test_refused_on_the_command_line(
    case: Case, place: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    out = tmp_path / "out"
    text = refused("explain", case.images, "--model", f"nets.py:{case.net}", "--out", out, *case.words.split())
    for part in case.says:
        assert part in text
    assert not out.exists() or not list(out.iterdir()), "something was written all the same"


# ---- the command line alone --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("explain", ("Missing argument 'PHOTO...'", "whylens explain --help")),
        ("explain a.png --nonsense", ("No such option: --nonsense", "whylens explain --help")),
        ("explain a.png --seed -1", ("--seed must be an integer >= 0", "Got '-1'")),
        ("explain a.png --seed 1.5", ("--seed must be an integer >= 0", "Got '1.5'")),
        ("explain a.png --seed 99999999999999999999", ("--seed must be", "Got '9999")),
        ("explain a.png --out", ("Option '--out' requires an argument", "--help")),
        ("explian a.png", ("No such command 'explian'", "whylens --help")),
        ("--nonsense", ("No such option: --nonsense", "whylens --help")),
        ("methods now", ("now", "whylens methods --help")),
    ],
)
def test_words_that_are_no_command(words: str, says: tuple[str, ...], refused: Refused) -> None:
    text = refused(*words.split())
    for part in says:
        assert part in text


@pytest.mark.parametrize("out", ["notes.txt", "notes.txt/sub", "/proc/whylens"])
def test_an_out_folder_that_cannot_be(out: str, place: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    monkeypatch.chdir(place)
    text = refused("explain", "föto 1.png", "--model", "nets.py:prepared", "--out", out)
    assert text.startswith(f"Cannot write to '{out}': ")
    assert text.endswith("Give another --out.")


def test_a_disk_that_is_full(place: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("whylens.output.write_atomic", full)
    text = refused("explain", place / "föto 1.png", "--model", f"{place / 'nets.py'}:prepared", "--out", tmp_path)
    assert text == f"Cannot write to '{tmp_path}': No space left on device. Give another --out."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--colours virdis", "No colours 'virdis'. Did you mean 'viridis'?"),
        ("--colours nonsense", "Known are 'auto' and the colour maps of matplotlib"),
        ("--scale log", "scale must be 'image' or 'shared'. Got 'log'"),
    ],
)
def test_views_that_are_not(
    words: str, says: str, place: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    text = refused("explain", "föto 1.png", "--model", "nets.py:prepared", "--out", tmp_path, *words.split())
    assert says in text
    explanation = explain(load_model("nets.py:prepared"), "föto 1.png")
    name, value = words.removeprefix("--").split()
    assert says in sentence(lambda: explanation.figure(**{name: value}))


@pytest.mark.parametrize("words", ["--colours nonsense", "--scale nonsense"])
def test_views_that_are_not_are_refused_before_the_work(
    words: str, place: Path, tmp_path: Path, refused: Refused
) -> None:
    refused(
        "explain", place / "föto 1.png", "--model", f"{place / 'nets.py'}:prepared", "--out", tmp_path, *words.split()
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", [None, "{", "", "\xff"])
def test_a_preprocess_that_is_no_json(held: str | None, place: Path, tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "prepare.json"
    if held is not None:
        file.write_bytes(held.encode("latin-1"))
    text = refused("explain", place / "föto 1.png", "--model", f"{place / 'nets.py'}:bare", "--preprocess", file)
    assert text.startswith(f"--preprocess: '{file}' is neither 'imagenet' nor a readable JSON file.")
    assert '{"size": [224, 224], "resize": 256}' in text


WRONG_FIELDS = [
    ("[1]", ("preprocess must be", "Got list")),
    ('{"resize": 3}', ("needs 'size'", "Got ['resize']")),
    ('{"size": 32, "sise": 3}', ("knows", "Got ['sise', 'size']")),
    ('{"size": 0}', ("size must be (H, W), both at least 1", "Got (0, 0)")),
    ('{"size": 32, "std": [0, 1, 1]}', ("one number above 0 per channel", "(0, 1, 1)")),
    ('{"size": 32, "std": [1, 1]}', ("as many as mean", "(1, 1)")),
    ('{"size": "large"}', ("size",)),
    ('{"size": [32]}', ("size",)),
    ('{"size": 32, "interpolation": "best"}', ("interpolation", "best")),
    ('{"size": 32, "resize": -3}', ("resize", "-3")),
    ('{"size": 32, "mean": 5}', ("mean",)),
    ('{"size": 32, "order": "GBR"}', ("order", "GBR")),
    ('{"size": 32, "fit": "best"}', ("fit", "best")),
    ('{"input_size": [3, 32, 32]}', ("mean",)),
]


@pytest.mark.parametrize(
    ("held", "says"),
    [
        *WRONG_FIELDS,
    ],
)
def test_a_preprocess_with_wrong_fields(
    held: str, says: tuple[str, ...], place: Path, tmp_path: Path, refused: Refused
) -> None:
    file = tmp_path / "prepare.json"
    file.write_text(held)
    photo, spec = place / "föto 1.png", f"{place / 'nets.py'}:bare"
    texts = [
        refused("explain", photo, "--model", spec, "--preprocess", file, "--out", tmp_path / "out"),
        sentence(lambda: explain(load_model(spec, preprocess=json.loads(held)), photo)),
    ]
    for part in says:
        assert all(part in text for text in texts)


# ---- Python alone ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(place: Path) -> Model:
    return load_model(f"{place / 'nets.py'}:model")


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (noise(3, 32, 32), ("must have shape (N, C, H, W)", "Got (3, 32, 32)", "images[None]")),
        (noise(2, 2, 3, 32, 32), ("must have shape (N, C, H, W)", "Got (2, 2, 3, 32, 32)")),
        (noise(1, 4, 32, 32), ("C = 1 or 3", "Got (4, 32, 32)")),
        (noise(1, 3, 32, 32) * 255, ("must lie in [0, 1]", "to 255", "Divide 0..255 by 255")),
        (noise(1, 3, 32, 32) * 4 - 2, ("must lie in [0, 1]", "Got values from -2", "before normalisation")),
        (noise(1, 3, 32, 32) / 0, ("must lie in [0, 1]",)),
        (noise(1, 3, 32, 32).numpy(), ("(N, H, W, C)", "Got (1, 3, 32, 32)", "images.transpose(0, 2, 3, 1)")),
        ([], ("at least one image", "Got an empty list")),
        (7, ("Give a photo, a folder",)),
        (None, ("Give a photo, a folder",)),
    ],
)
def test_images_of_another_shape_or_range(images: Any, says: tuple[str, ...], model: Model) -> None:
    text = sentence(lambda: explain(model, images))
    for part in says:
        assert part in text


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ([0, 1, 2], ("2 images need 2 targets, or one for all", "Got 3")),
        (torch.tensor([0]), ("2 images need 2 targets", "Got 1")),
        ([0, -1], ("counted from 0", "Got -1")),
        ([0, 3], ("3 outputs, 0 to 2", "Got 3")),
        (["cat", "horse"], ("No class 'horse'",)),
        ([0.5, 1.0], ("whole numbers or class names", "Got 0.5")),
        (True, ("must be an int, a class name", "Got bool")),
        (1.5, ("must be an int, a class name", "Got float")),
        (lambda output: output.sum(), ("one score per image, (2,)", "Got ()")),
        (lambda output: "cat", ("one score per image, (2,)", "Got str")),
    ],
)
def test_targets_that_do_not_fit(target: Any, says: tuple[str, ...], model: Model) -> None:
    text = sentence(lambda: explain(model, noise(2, 3, 32, 32), target=target))
    for part in says:
        assert part in text


def test_a_method_asked_twice(model: Model, place: Path, refused: Refused, tmp_path: Path) -> None:
    twice = [Method("grad_cam", label="a"), Method("saliency", label="a")]
    assert "'a' is asked twice" in sentence(lambda: explain_many(model, noise(1, 3, 32, 32), methods=twice))
    words = ["--method", "grad_cam", "--method", "grad-cam"]
    text = refused(
        "explain", place / "föto 1.png", "--model", f"{place / 'nets.py'}:prepared", "--out", tmp_path / "out", *words
    )
    assert "'grad_cam' is asked twice" in text
    assert "at least one method" in sentence(lambda: explain_many(model, noise(1, 3, 32, 32), methods=[]))


def test_nets_that_give_no_scores() -> None:
    class Odd(nn.Module):
        def __init__(self, answer: Any) -> None:
            super().__init__()
            self.one, self.answer = nn.Conv2d(3, 3, 1), answer

        def forward(self, x: Tensor) -> Any:
            return self.answer(self.one(x))

    frames = noise(1, 3, 8, 8)
    for answer, says in (
        (lambda x: x, "must return class scores (N, K). Got (1, 3, 8, 8)"),
        (lambda x: "cat", "returns str, in which no"),
        (lambda x: [], "returns list, in which no"),
    ):
        text = sentence(lambda answer=answer: explain(Odd(answer), frames, method="saliency"))
        assert says in text


def test_a_model_whose_parts_contradict() -> None:
    net = nn.Conv2d(3, 3, 1)
    said = sentence(lambda: Model("resnet18"))  # type: ignore[arg-type]
    assert "net must be a torch.nn.Module, or a function of frames (N, C, H, W). Got str." in said
    assert "task must be one of" in sentence(lambda: Model(net, task="poetry"))  # type: ignore[arg-type]
    assert "output must be one of" in sentence(lambda: Model(net, output="odds"))  # type: ignore[arg-type]
    assert "is not a part of this net" in sentence(lambda: Model(net, layer=nn.Linear(1, 1)))
    assert "preprocess must be a Preprocess" in sentence(lambda: Model(net, preprocess=3))


def test_a_number_that_is_none_stays_valid_json(place: Path, tmp_path: Path, command: Command) -> None:
    """A net that gives NaN: what is written can still be read."""
    spec = f"{place / 'nets.py'}:not_a_number"
    said = command("explain", place / "föto 1.png", "--model", spec, "--out", tmp_path, "--json")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    assert said.code == 0
    (row,) = json.loads(said.out, parse_constant=refuse)["images"][0]["maps"]
    assert row["probability"] is None
    json.loads((tmp_path / "explain.json").read_text("utf-8"), parse_constant=refuse)
    text = command("explain", place / "föto 1.png", "--model", spec, "--out", tmp_path)
    assert text.code == 0
    assert "(p unknown)" in text.out


def test_a_score_that_is_no_number_is_flagged(place: Path) -> None:
    explanation = explain(load_model(f"{place / 'nets.py'}:not_a_number"), place / "föto 1.png")
    assert "not_finite" in explanation.flags(0)


# ---- one bad photo among good ones -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["1", "auto"])
def test_bad_photos_among_good_ones(size: str, place: Path, tmp_path: Path, command: Command) -> None:
    spec = f"{place / 'nets.py'}:prepared"
    photos = [place / name for name in ("föto 1.png", "cut.jpg", "empty.jpg", "föto 2.png")]
    said = command("explain", *photos, "--model", spec, "--out", tmp_path, "--batch-size", size)
    assert said.code == 3
    assert "cut.jpg: not explained. cut.jpg is damaged or cut short." in said.out
    assert "empty.jpg: not explained. empty.jpg is empty (0 bytes)." in said.out
    assert "Traceback" not in said.err
    held = json.loads((tmp_path / "explain.json").read_text("utf-8"))["explanations"]["grad_cam"]
    assert held["ids"] == ["föto 1.png", "föto 2.png"]
    assert set(held["failures"]) == {"cut.jpg", "empty.jpg"}
    assert "cut.jpg" in (tmp_path / "index.html").read_text("utf-8")
    assert sorted(p.name for p in (tmp_path / "pictures" / "grad_cam").iterdir()) == sorted(
        f"{file_name(name)}.png" for name in ("föto 1", "föto 2")
    )
    explanation = explain(load_model(spec), photos)
    assert explanation.ids == ("föto 1.png", "föto 2.png")
    assert set(explanation.failures) == {"cut.jpg", "empty.jpg"}


# ---- real processes ----------------------------------------------------------------------------------------------


def process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("whylens")
    if not program.exists():
        pytest.skip("the console script is not installed")
    return subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["explain", "föto 1.png", "--model", "nets.py:raises"], 2, "nets.py:raises cannot be run: KeyError"),
        (["explain", "föto 1.png", "cut.jpg", "--model", "nets.py:prepared"], 3, ""),
    ],
)
def test_as_a_process(words: list[str], code: int, says: str, place: Path, tmp_path: Path) -> None:
    ended = process(place, *words, "--out", str(tmp_path / "größe 1"))
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert ended.stderr.count("\n") <= (1 if code == 2 else 0)
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "größe 1" / "index.html").exists() == (code == 3)


def test_debug_shows_where_it_came_from(place: Path) -> None:
    ended = process(place, "--debug", "explain", "none.png", "--model", "nets.py:prepared")
    assert ended.returncode == 2
    assert "Traceback" in ended.stderr
    assert "none.png does not exist" in ended.stderr


def test_a_defect_says_so(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError("by zero\nand more")

    monkeypatch.setattr(load_images.__module__ + ".load_images", broken)
    said = command("explain", place / "föto 1.png")
    assert said.code == 1
    assert said.err.splitlines() == [
        "whylens: this is a defect, not your doing: ZeroDivisionError: by zero",
        "Run again with 'whylens --debug ...' and report what it prints.",
    ]
