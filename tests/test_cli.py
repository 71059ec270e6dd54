"""The command line: what it prints and writes, what it ends with, and that it is the same as Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import Explanation, explain_many, load_model, open_run
from whylens._files import file_name
from whylens.output import image_files

Command = Callable[..., Any]
VERBS = [
    *("explain", "metrics", "methods", "models", "doctor", "demo"),
    *("audit", "verify", "measure", "export", "gc", "report"),
    *("act", "compare", "gap", "graph", "group"),
]
METHODS = ["grad_cam", "integrated-gradients:steps=4"]
LABELS = ["grad_cam", "integrated_gradients:steps=4"]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def is_picture(path: Path) -> bool:
    """Opens, and is not of one colour."""
    with Image.open(path) as picture:
        picture.verify()
    values = np.asarray(Image.open(path).convert("RGB"))
    return min(values.shape[:2]) > 8 and float(values.std()) > 5


# ---- what there is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, command: Command) -> None:
    said = command(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert re.search(rf"Example: whylens {verb}\b", said.out)
    assert command(verb, "-h").out == said.out


def test_every_verb_is_tested_here(command: Command) -> None:
    said = command()
    assert said.code == 0
    listed = said.out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == VERBS


def test_version(command: Command) -> None:
    said = command("--version")
    assert (said.code, said.out) == (0, f"whylens {whylens.__version__}\n")
    assert metadata.version("whylens") == whylens.__version__


def test_methods(command: Command) -> None:
    names = {p.stem for p in (Path(whylens.__file__).parent / "methods").glob("[!_]*.py")}
    rows = {row["method"]: row for row in json.loads(command("methods", "--json").out)}
    assert set(rows) == names
    for row in rows.values():
        assert row["needs"]
        assert row["tables"] in ("yes", "no")
        assert row["black box"] in ("yes", "no")
        assert row["scope"] in ("local", "global")
        assert re.fullmatch(r".+ forward, .+ backward", row["passes"])
        assert row["says"].endswith(".")
    assert rows["integrated_gradients"]["parameters"] == "steps=50, baseline=mean"
    assert (rows["grad_cam"]["needs"], rows["grad_cam"]["black box"], rows["grad_cam"]["tables"]) == (
        "layer",
        "no",
        "no",
    )
    said = command("methods")
    assert said.code == 0
    for name, row in rows.items():
        assert f"{name}: {row['says']}" in said.out
    for column in ("gradients", "layer", "tables", "black box", "scope", "passes", "parameters"):
        assert column in said.out.splitlines()[0]


def test_models(command: Command) -> None:
    short = command("models").out
    assert "efficientnet-lite0" in short
    assert "FILE.py:FUNCTION" in short
    assert "torchvision:resnet18" not in short
    listed = command("models", "ResNet").out
    assert "  torchvision:resnet18\n" in listed
    assert "  timm:resnet18\n" in listed
    assert "vgg" not in listed
    held = json.loads(command("models", "--json").out)
    assert len(held["names"]) > 1000
    assert f"{len(held['names'])} names in all" in short
    assert len(set(held["names"])) == len(held["names"])
    assert json.loads(command("models", "resnet18", "--json").out)["names"][-1] == "torchvision:resnet18"
    assert "no name contains 'qqq'" in command("models", "qqq").out


def test_doctor(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    said = command("doctor")
    assert said.code == 0, said.out
    findings = {f["what"]: f for f in json.loads(command("doctor", "--json").out)}
    assert findings["whylens"]["says"].startswith(whylens.__version__)
    assert findings["torch"]["says"] == str(metadata.version("torch"))
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
    needed = project["dependencies"]
    assert len(needed) > 8
    for requirement in needed:
        assert findings[re.split(r"[^\w.-]", requirement)[0]]["state"] == "ok"
    for what, finding in findings.items():
        assert what in said.out
        assert finding["says"] in said.out
    real = metadata.version
    absent = metadata.PackageNotFoundError("timm")

    def version(name: str) -> str:
        if name == "timm":
            raise absent
        return real(name)

    monkeypatch.setattr("whylens.catalogue.metadata.version", version)
    broken = command("doctor")
    assert broken.code == 2
    assert re.search(r"broken  timm +not installed: pip install timm", broken.out)


# ---- explain -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec(place: Path) -> str:
    return f"{place / 'nets.py'}:model"


@pytest.fixture
def explained(place: Path, spec: str, tmp_path: Path, command: Command) -> Path:
    """Two photos, two methods."""
    out = tmp_path / "Warum, größer"
    photos = [place / "föto 1.png", place / "föto 2.png"]
    said = command("explain", *photos, "-m", spec, "-o", out, "--method", METHODS[0], "--method", METHODS[1])
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"Open {out / 'index.html'}\n")
    for name in ("föto 1.png", "föto 2.png"):
        assert re.search(rf"^{name}: predicted (cat|dog|tabby)$", said.out, re.MULTILINE)
    return out


def test_explain_writes_what_it_says(explained: Path) -> None:
    assert {p.name for p in explained.iterdir()} == {"pictures", "maps", "index.html", "explain.json"}
    folders = [file_name(label) for label in LABELS]
    assert {p.name for p in (explained / "maps").iterdir()} == set(folders)
    photos = [file_name("föto 1"), file_name("föto 2")]
    pictures = {f"{folder}/{photo}.png" for folder in folders for photo in photos} | {f"{p}.png" for p in photos}
    assert set(tree(explained / "pictures")) == pictures
    for picture in pictures:
        assert is_picture(explained / "pictures" / picture), picture
    with Image.open(explained / "pictures" / "grad_cam" / f"{photos[1]}.png") as picture:
        assert picture.height / picture.width == pytest.approx(61 / 33, rel=0.02)  # the photo's own shape
    page = (explained / "index.html").read_text("utf-8")
    for word in ("föto 1.png", "föto 2.png", *LABELS):
        assert word in page


def test_explain_json(explained: Path) -> None:
    held = json.loads((explained / "explain.json").read_text("utf-8"))
    assert held["format"] == 1
    assert list(held["explanations"]) == LABELS
    for label, explanation in held["explanations"].items():
        assert explanation["format"] == 1
        assert explanation["label"] == label
        assert [row["id"] for row in explanation["rows"]] == ["föto 1.png", "föto 2.png"]
        assert all(row["target_name"] in ("cat", "dog", "tabby") for row in explanation["rows"])
    assert held["explanations"][LABELS[1]]["params"]["steps"] == 4


def test_explain_gives_the_maps_that_python_gives(explained: Path, place: Path, spec: str) -> None:
    photos = [place / "föto 1.png", place / "föto 2.png"]
    expected = explain_many(load_model(spec), photos, methods=METHODS)
    assert list(expected) == LABELS
    for label, there in expected.items():
        here = Explanation.load(explained / "maps" / file_name(label))
        assert torch.equal(here.maps, there.maps)
        assert float(there.maps.abs().max()) > 0
        assert torch.equal(here.scores, there.scores)
        assert (here.ids, here.target_names, here.layer) == (there.ids, there.target_names, there.layer)
        assert here.placements == there.placements
        assert here.params == there.params


def test_the_same_command_twice(explained: Path, place: Path, spec: str, command: Command) -> None:
    before = tree(explained)
    words = ["--method", METHODS[0], "--method", METHODS[1]]
    command("explain", place / "föto 1.png", place / "föto 2.png", "-m", spec, "-o", explained, *words)
    after = tree(explained)
    assert set(after) == set(before)
    assert not [name for name in after if name.endswith(".tmp") or "trial" in name]
    changed = {name for name in after if after[name] != before[name]}
    assert not {name for name in changed if name.endswith((".png", ".safetensors"))}  # only times differ


def run(command: Command, place: Path, spec: str, out: Path, *words: object) -> dict[str, Any]:
    said = command("explain", place / "föto 1.png", "-m", spec, "-o", out, "--json", *words)
    assert (said.code, said.err) == (0, "")
    held: dict[str, Any] = json.loads(said.out)  # nothing but JSON
    return held


def test_explain_json_on_standard_output(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    held = run(command, place, spec, tmp_path)
    assert held["written"] == ["pictures/", "maps/", "index.html", "explain.json"]
    assert (held["folder"], held["page"]) == (str(tmp_path), str(tmp_path / "index.html"))
    assert (held["model"], held["failures"]) == ("own", {})
    (image,) = held["images"]
    assert image["id"] == "föto 1.png"
    (row,) = image["maps"]
    assert row["label"] == "grad_cam"
    assert row["target"] == image["prediction"]
    assert 1 / 3 <= row["probability"] <= 1
    assert row["flags"] == []
    assert held["cost"]["grad_cam"]["forwards"] == 1


def test_explain_for_a_target(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    for words in ("Tabby", "2"):
        (row,) = run(command, place, spec, tmp_path / words, "--target", words)["images"][0]["maps"]
        assert row["target"] == "tabby"
    rows = run(command, place, spec, tmp_path / "five", "--target", "top5")["images"][0]["maps"]
    assert sorted(row["target"] for row in rows) == ["cat", "dog", "tabby"]  # all there are
    shares = [row["probability"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert len(list((tmp_path / "five" / "pictures" / "grad_cam").iterdir())) == 3


def test_explain_with_options(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    photo, model = place / "föto 1.png", load_model(spec)

    def maps(name: str, *words: object) -> Explanation:
        run(command, place, spec, tmp_path / name, *words)
        (folder,) = (tmp_path / name / "maps").iterdir()
        return Explanation.load(folder)

    plain, deeper = maps("plain"), maps("deeper", "--layer", "3")
    assert (plain.layer, plain.maps.shape[-2:]) == ("1", (16, 16))
    assert (deeper.layer, deeper.maps.shape[-2:]) == ("3", (8, 8))
    named = maps("named", "--method", "grad-cam:layer=3")
    assert named.label == "grad_cam:layer=3"
    assert torch.equal(named.maps, deeper.maps)
    share = maps("share", "--score", "probability")
    assert share.score_kind == "probability"
    assert torch.equal(share.maps, whylens.explain(model, photo, score="probability").maps)
    assert not torch.equal(share.maps, plain.maps)
    one, again, other = (
        maps(name, "--seed", seed, "--method", "smooth-grad:samples=3")
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert (one.seed, other.seed) == (1, 2)
    assert torch.equal(one.maps, again.maps)
    assert not torch.equal(one.maps, other.maps)
    names = place / "andere nämen.txt"
    names.write_text("Löwe\nHund\nKatze\n", "utf-8")
    assert maps("names", "--classes", names, "--target", "löwe").target_names == ("Löwe",)
    held = tmp_path / "prepare.json"
    held.write_text('{"size": [24, 40], "resize": 48}')
    assert maps("prepared", "--preprocess", held).frame == (3, 24, 40)
    viewed = tmp_path / "viewed"
    run(command, place, spec, viewed, "--colours", "viridis", "--scale", "shared", "--batch-size", 1)
    picture = f"pictures/grad_cam/{file_name('föto 1')}.png"
    assert is_picture(viewed / picture)
    assert (viewed / picture).read_bytes() != (tmp_path / "plain" / picture).read_bytes()


def test_weights_from_a_file(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    net = load_model(spec).net
    with torch.no_grad():
        net[-1].bias[1] += 100
    torch.save(net.state_dict(), tmp_path / "w.pt")
    held = run(command, place, spec, tmp_path / "out", "--weights", tmp_path / "w.pt")
    assert held["images"][0]["prediction"] == "dog"


def test_a_folder_and_a_list_of_photos(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    for i in (1, 2):
        (tmp_path / "in" / str(i)).mkdir(parents=True)
        (tmp_path / "in" / str(i) / "x.png").write_bytes((place / f"föto {i}.png").read_bytes())
    (tmp_path / "in" / "all.csv").write_text("path\n1/x.png\n2/x.png\n")
    for name, source in (("folder", tmp_path / "in"), ("list", tmp_path / "in" / "all.csv")):
        said = command("explain", source, "-m", spec, "-o", tmp_path / name, "--json")
        assert [image["id"] for image in json.loads(said.out)["images"]] == ["1/x.png", "2/x.png"]
        assert len(list((tmp_path / name / "pictures" / "grad_cam").iterdir())) == 2


def test_file_names_that_every_system_takes() -> None:
    assert file_name("grad_cam") == "grad_cam"
    odd = ["a b", "a_b", "a:b", "a/b", "a\\b", "..", "", "föto 1", 'x"<>|?*', "grad_cam:layer=features.3"]
    odd += ["é" * 300, "é" * 301, "漢" * 90, "\U00020000" * 100, ".hidden", "end."]
    made = [file_name(text) for text in odd]
    assert len(set(made)) == len(odd)
    for name in made:
        assert re.fullmatch(r"[\w.\-=]+", name)
        assert name.strip(".") == name
        assert len(name.encode()) <= 200  # a temporary neighbour needs some more
    files = image_files(["a.png", "a.jpg", "b.png", "c/b.png", "b.png"])
    assert files == {"a.png": "a.png", "a.jpg": "a.jpg", "b.png": "b", "c/b.png": file_name("c/b")}


def test_photos_with_long_names(place: Path, spec: str, tmp_path: Path, command: Command) -> None:
    photo = tmp_path / ("漢" * 80 + ".png")
    photo.write_bytes((place / "föto 1.png").read_bytes())
    said = command("explain", photo, "-m", spec, "-o", tmp_path / "out", "--target", "top2")
    assert said.code == 0, said.err
    assert len(list((tmp_path / "out" / "pictures" / "grad_cam").iterdir())) == 2


def test_as_a_process(place: Path, tmp_path: Path) -> None:
    """The console script: nothing but JSON on standard output."""
    program = Path(sys.executable).with_name("whylens")
    if not program.exists():
        pytest.skip("the console script is not installed")
    words = ["explain", "föto 1.png", "--model", "nets.py:model", "--out", tmp_path / "größe", "--json"]
    ended = subprocess.run([program, *words], cwd=place, capture_output=True, encoding="utf-8", check=True)
    assert json.loads(ended.stdout)["images"][0]["id"] == "föto 1.png"
    assert ended.stderr == ""


# ---- demo --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "a folder"
    said = command("demo", "--out", out, "--images", "160", "--json")
    assert (said.code, said.err) == (0, "")
    held = json.loads(said.out)
    planted = held["planted"]
    assert (planted["images"], planted["failed"]) == (160, 0)
    assert open_run(out / "run").verify().ok
    assert "Accuracy" in (out / "report.html").read_text("utf-8")
    coffee, chelsea = held["images"]
    assert (coffee["id"], coffee["prediction"]) == ("coffee.png", "espresso")
    assert chelsea["prediction"] in ("tabby", "tiger cat", "Egyptian cat")
    assert coffee["maps"][0]["probability"] > 0.9
    assert len(coffee["maps"]) == 7
    assert {p.name for p in out.iterdir()} == {
        *("pictures", "maps", "index.html", "explain.json"),
        *("planted", "run", "report.html"),
        *(["mended"] if "turned" in planted["acts"].get("retrain", {}) else []),
    }
    page = (out / "index.html").read_text("utf-8")
    assert "espresso" in page
    assert page.count("data:image/") >= 16  # two photos and seven maps each
    assert is_picture(out / "pictures" / "coffee.png")
    cam = Explanation.load(out / "maps" / "grad_cam")
    assert cam.maps.shape == (2, 1, 7, 7)
    cup = cam.maps[0, 0] / cam.maps[0, 0].sum()
    assert float(cup[1:6, 1:6].sum()) > 0.6  # the cup stands in the middle
