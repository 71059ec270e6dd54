"""The recipes, on a miniature of the folders they read: what the README says runs, stops and goes on."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import _plugins
from whylens.annotations import fill_runs

RECIPES = Path(__file__).parents[1] / "recipes"
QUICK = ["--settings", "rise:samples=40"]


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds the miniature; the recipes can be imported."""
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.chdir(tmp_path)
    recipe("miniature").write(tmp_path / "mini")
    yield tmp_path / "mini"
    recipes = ("igos_insertion", "cost_table", "sufficient_sets", "voc_five_nets", "ax_accuracy", "chainsaw", "drill")
    for name in ("miniature", "resumed", *recipes):
        sys.modules.pop(name, None)


def recipe(name: str) -> ModuleType:
    return importlib.import_module(name)


def igos(mini: Path, *more: str) -> list[str]:
    """Arguments of a quick insertion table."""
    asked = ["--data", str(mini / "val"), "--model", f"{mini / 'net.py'}:make", "--sizes", "7"]
    return [*asked, "--methods", "grad_cam", "--modes", "igospp", *more]


def cells(out: str) -> list[list[str]]:
    """The table's rows without its head."""
    rows = [row.strip("| ").split(" | ") for row in out.splitlines() if row.startswith("|")]
    return rows[2:]


def commands() -> list[list[str]]:
    """What the README says about the miniature."""
    text = (RECIPES / "README.md").read_text("utf-8")
    (block,) = (b for b in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "miniature" in b)
    return [shlex.split(line) for line in block.splitlines()]


def test_every_recipe_is_in_the_readme() -> None:
    text = (RECIPES / "README.md").read_text("utf-8")
    for file in RECIPES.glob("*.py"):
        assert file.name == "resumed.py" or f"recipes/{file.name}" in text


def test_the_readme_runs(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, insertion, cost, *others = commands()
    assert make == ["python", "recipes/miniature.py", "mini"]
    assert insertion[1] == "recipes/igos_insertion.py"
    recipe("igos_insertion").main([*insertion[2:], *QUICK])
    rows = cells(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [
        ["7", "grad_cam@7"],
        ["28", "grad_cam@28"],
        ["28", "rise@28:samples=40"],
    ]
    assert all(row[-1] == "6" for row in rows)
    recipe("cost_table").main([*cost[2:], "--settings", "lime:samples=40"])
    rows = cells(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [["lime:samples=40", "177.18"], ["grad_cam", "2.19"], ["grad_cam_pp", "3.44"]]
    assert rows[0][3] == "80.9"
    assert rows[1][4] == "1.0"
    (sets,) = (words for words in others if words[1] == "recipes/sufficient_sets.py")
    recipe("sufficient_sets").main(sets[2:])
    rows = cells(capsys.readouterr().out)
    assert [row[-1] for row in rows if row[0].startswith("within")] == ["0.80", "less", "less"]
    assert (Path("sufficient_sets") / "tables" / "study.png").exists()


POINT = """
import torch
from torch import nn
from whylens import Model, Preprocess


class Point(nn.Module):
    def forward(self, x):
        seen = 20 * x[:, 0, 27:30, 17:20].mean((1, 2)) - 10  # the middle of cell 23 of 7 x 7
        return torch.stack([seen, -seen], 1)


def make():
    frame = Preprocess((56, 56), 56, mean=(0, 0, 0), std=(1, 1, 1))
    return Model(Point(), preprocess=frame, classes=["seen", "dark"])
"""


def test_published_sets_are_put_to_the_test(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The net sees one cell, 23: alone it is enough, with another one it is too much, and two others are nothing."""
    Path("point.py").write_text(POINT, "utf-8")
    Path("examples").mkdir()
    Image.new("RGB", (56, 56), "white").save("examples/racecar_5853.png")
    words = ["--data", str(mini / "val"), "--model", "point.py:make", "--images", "1", "--methods", "saliency"]
    recipe("sufficient_sets").main([*words, "--references", "examples"])
    (row,) = [row for row in cells(capsys.readouterr().out) if row[0].startswith("racing car")]
    assert row == ["racing car 5853 (seen)", "23: 1.00; 22 33: 0.00; 30 31: 0.00", "1 of 3", "23", "1"]
    with pytest.raises(SystemExit, match="holds none of the numbers"):
        recipe("sufficient_sets").main([*words, "--references", str(mini)])


def test_grad_cam_finds_the_disc(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The colour is all there is to see, so inserting it first brings the target back at once."""
    recipe("igos_insertion").main(igos(mini))
    (row,) = cells(capsys.readouterr().out)
    assert float(row[2].split()[0]) > 0.9
    assert float(row[3].split()[0]) < 0.7


def test_a_stopped_run_goes_on(mini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe("igos_insertion").main(igos(mini, "--images", "2"))
    kept = Path("igos_insertion.jsonl")
    first = kept.read_text("utf-8").splitlines()
    assert len(first) == 2
    kept.write_text("\n".join(first) + '\n{"key": ["half', "utf-8")  # killed while it wrote
    asked: list[str] = []
    plain = whylens.explain

    def counted(model: object, images: whylens.Images, **more: object) -> whylens.Explanation:
        asked.extend(images.ids)
        return plain(model, images, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(whylens, "explain", counted)
    recipe("igos_insertion").main(igos(mini, "--images", "3"))
    assert len(asked) == 1
    assert asked[0] not in {json.loads(row)["key"][2] for row in first}
    recipe("igos_insertion").main(igos(mini, "--images", "3"))
    assert len(asked) == 1
    assert cells(capsys.readouterr().out)[-1][-1] == "3"


def test_other_weights_are_other_results(mini: Path) -> None:
    resumed = recipe("resumed")
    one = resumed.Kept(Path("kept.jsonl"), "net a")
    one.add("grad_cam", "x.png", seconds=1.0)
    assert resumed.Kept(Path("kept.jsonl"), "net a").find("grad_cam", "x.png")["seconds"] == 1.0
    assert resumed.Kept(Path("kept.jsonl"), "net b").find("grad_cam", "x.png") is None


def test_the_target_can_be_the_folder(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mini / "val" / "n01").rename(mini / "val" / "n04")  # now green is the first folder, and no class is right
    recipe("igos_insertion").main(igos(mini, "--target", "folder"))
    (row,) = cells(capsys.readouterr().out)
    assert float(row[2].split()[0]) < 0.2
    (mini / "val" / "n05").mkdir()
    with pytest.raises(SystemExit, match="4 class folders, but 3 outputs"):
        recipe("igos_insertion").main(igos(mini, "--target", "folder", "--seed", "1"))


def test_the_table_by_hand(mini: Path) -> None:
    """Means of what was kept, and the paper's figure of that method and size beside them."""
    resumed, igos_insertion = recipe("resumed"), recipe("igos_insertion")
    known = resumed.Kept(Path("kept.jsonl"), "net")
    for image, insertion in (("a", 0.5), ("b", 0.7)):
        known.add("igos_pp@28 predicted", image, values={"igospp": [insertion, 0.25]}, seconds=2 * insertion)
    options = resumed.parser("", images=2, out="kept.jsonl").parse_args(["--data", "val"])
    options.methods, options.sizes, options.modes = "igos_pp", "28", "igospp"
    options.settings, options.target = [], "predicted"
    *_, last = igos_insertion.table(options, ["a", "b"], known)
    cell = last.strip("| ").split(" | ")
    assert cell[0] == "28"
    assert cell[2].startswith("0.600 [0.500, 0.700]")
    assert cell[3].startswith("0.250")
    assert cell[4:] == ["0.72", "1.200", "2"]


def test_only_the_three_are_timed(mini: Path) -> None:
    with pytest.raises(SystemExit, match=r"lime, grad_cam, grad_cam_pp. Got rise"):
        recipe("cost_table").main(["--data", str(mini), "--settings", "rise:samples=2"])


@pytest.mark.parametrize("method", ["igos", "igos_pp"])
def test_the_optimisers_at_their_size(mini: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    if method not in _plugins.names("methods"):
        pytest.skip(f"{method} is not registered")
    cheap = ["--methods", method, "--settings", f"{method}:iterations=2,steps=2", "--images", "1"]
    recipe("igos_insertion").main(igos(mini, *cheap))
    (row,) = cells(capsys.readouterr().out)
    assert row[1] == f"{method}@7:iterations=2,steps=2"
    assert row[-3] == {"igos": "0.66", "igos_pp": "0.73"}[method]


# ---- five nets on VOC ------------------------------------------------------------------------------------------------


def voc(mini: Path, *more: str) -> list[str]:
    return ["--data", str(mini / "voc"), "--models", f"{mini / 'net.py'}:animals,{mini / 'net.py'}:random", *more]


def test_five_nets_on_the_miniature(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The net that counts colours is right everywhere and its maps lie on the discs."""
    (command,) = (c for c in commands() if c[1].endswith("voc_five_nets.py"))
    recipe("voc_five_nets").main(command[2:])
    animals, random = cells(capsys.readouterr().out)
    assert animals[1] == "6/6"
    assert float(animals[3].split()[0]) > 0.6
    assert float(animals[4].split()[0]) >= float(animals[3].split()[0])
    assert int(random[1].split("/")[0]) < 6


def test_the_iou_of_the_recipe_is_that_of_the_mask(mini: Path) -> None:
    """One image by hand: the map at half of its maximum against the palette picture, its rim left out."""
    module = recipe("voc_five_nets")
    module.main(voc(mini, "--images", "1", "--threshold", "0.4"))
    (row, _) = map(json.loads, Path("voc_five_nets.jsonl").read_text("utf-8").splitlines())
    image = row["key"][2]
    model = whylens.load_model(f"{mini / 'net.py'}:animals")
    photo = whylens.load_images(str(mini / "voc" / "JPEGImages" / image))
    e = whylens.explain(model, photo, method="grad_cam_pp")
    (place,) = e.placements
    assert place is not None
    with Image.open(mini / "voc" / "SegmentationClass" / f"{Path(image).stem}.png") as picture:
        inside = place.to_frame(torch.from_numpy(np.asarray(picture) > 0))
    laid = e.at((56, 56))[0, 0]
    marked = (laid >= 0.4 * laid.max()).float()
    both = (marked * inside).sum()
    assert row["values"]["grad_cam_pp"][0] == pytest.approx(float(both / (marked + inside).sum().sub(both)), abs=1e-3)


def test_five_nets_go_on(mini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = recipe("voc_five_nets")
    module.main(voc(mini, "--images", "2"))
    asked: list[str] = []
    plain = whylens.explain_many
    monkeypatch.setattr(whylens, "explain_many", lambda m, i, **more: asked.extend(i.ids) or plain(m, i, **more))
    module.main(voc(mini, "--images", "3"))
    assert len(asked) == 2  # one image for each of two nets
    assert [row[1].split("/")[1] for row in cells(capsys.readouterr().out)[-2:]] == ["3", "3"]


def test_what_of_imagenet_is_in_voc() -> None:
    """Every name is one of torchvision's; ranges begin and end with the right animals."""
    sys.path.insert(0, str(RECIPES))
    try:
        module = recipe("voc_five_nets")
    finally:
        sys.path.remove(str(RECIPES))
    from torchvision.models import ResNet50_Weights

    from whylens.annotations import VOC_NAMES

    classes = ResNet50_Weights.DEFAULT.meta["categories"]
    assert {*module.IMAGENET, "bird", "person"} == set(VOC_NAMES)
    for name, known in module.IMAGENET.items():
        if isinstance(known, tuple):
            assert set(known) <= set(classes), name
    assert [classes[k] for k in (151, 268)] == ["Chihuahua", "Mexican hairless"]
    assert [classes[k] for k in (281, 285)] == ["tabby", "Egyptian cat"]
    assert [classes[k] for k in (7, 24, 80, 100, 127, 146)] == [
        *("cock", "great grey owl", "black grouse", "black swan", "white stork", "albatross")
    ]
    net = whylens.Model(torch.nn.Identity(), classes=classes)
    assert module.outputs(net, "sheep") == {classes.index("ram"), classes.index("bighorn")}
    assert 207 in module.outputs(net, "dog")
    assert module.outputs(net, "person") == set()
    for name in ("voc_five_nets", "resumed"):
        sys.modules.pop(name, None)


# ---- accuracy after the map is added ---------------------------------------------------------------------------------


def accuracy_after(trial: whylens.Trial, *, mode: str = "add", space: str = "frame") -> whylens.Values:
    """1 where the net is right once the map is added; the plug-in's plainest form."""
    h = trial.explanation.at((trial.images.shape[2], trial.images.shape[3]))
    h = h / h.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, 1, 1, 1)
    moved = trial.images + h if mode == "add" else trial.images * h
    guess = trial.probe.model.predict(moved).argmax(1)
    return whylens.Values((guess == trial.labels).float())


@pytest.fixture
def six(mini: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe; with a stand-in for its metric where that is not registered."""
    module = recipe("ax_accuracy")
    if "accuracy_after" not in _plugins.names("metrics"):
        plain = whylens.measure
        own = whylens.MetricFacts(direction="higher", low=0.0, high=1.0)(accuracy_after)

        def measure(*given: object, metric: object, **more: object) -> whylens.Scores:
            return plain(*given, metric=own if metric == "accuracy_after" else metric, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(whylens, "measure", measure)
    return module


def test_accuracy_on_the_miniatures(mini: Path, six: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [c[2:] for c in commands() if c[1].endswith("ax_accuracy.py")]
    assert len(asked) == 3
    for command, (paper, count) in zip(asked, ((0.722, 6), (0.628, 12), (0.865, 8)), strict=True):
        six.main(command)
        rows = cells(capsys.readouterr().out)
        table, gap = [r for r in rows if len(r) < 5], [r for r in rows if len(r) == 7 and r[0] in six.METHODS]
        assert [row[0] for row in table] == ["none", *six.METHODS]
        assert float(table[0][1]) == paper
        assert {sum(map(int, row[-2:])) for row in gap} == {count}


def test_the_colours_are_right_before_and_after(
    mini: Path, six: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A net that counts colours is right, and stays so when the map, in the colours' places, is added."""
    six.main(["--data", str(mini / "val"), "--model", f"{mini / 'net.py'}:make"])
    rows = {row[0]: row for row in cells(capsys.readouterr().out) if len(row) == 3}
    assert rows["none"][2].split()[0] == "1.000"
    assert rows["input_x_gradient"][2].split()[0] == "1.000"


def test_covid_takes_every_third_image_and_no_masks(mini: Path, six: ModuleType) -> None:
    six.main(["--data", str(mini / "covid"), "--layout", "covid", "--model", f"{mini / 'net.py'}:four"])
    rows = map(json.loads, Path("ax_accuracy.jsonl").read_text("utf-8").splitlines())
    assert {row["key"][2] for row in rows} == {
        f"{kind}/images/{kind}-{k}.png"
        for kind in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
        for k in (3, 6)
    }


def test_labels_are_names_or_places(mini: Path, six: ModuleType) -> None:
    net = whylens.Model(torch.nn.Identity(), classes=["PNEUMONIA", "NORMAL"])
    assert six.numbers(["NORMAL", "PNEUMONIA"], net) == [1, 0]
    assert six.numbers(["n02", "n01", "n02"], net) == [1, 0, 1]
    with pytest.raises(SystemExit, match="3 class folders, but 2 outputs"):
        six.numbers(["n01", "n02", "n03"], net)


def test_the_gap_by_hand(mini: Path, six: ModuleType) -> None:
    resumed = recipe("resumed")
    known = resumed.Kept(Path("kept.jsonl"), "net")
    for image, before, co in (("a", 1, 3.0), ("b", 1, 5.0), ("c", 0, 4.0), ("d", 0, 1.0), ("e", 1, float("nan"))):
        known.add("add frame ", image, values={name: [before, 1.0, co] for name in six.METHODS})
    options = resumed.parser("", images=5, out="kept.jsonl").parse_args(["--data", "val"])
    options.modes, options.space, options.layer, options.layout, options.net = "add", "frame", "", "imagenet", "alexnet"
    row = list(six.gap_table(options, list("abcde"), known))[2].strip("| ").split(" | ")
    assert row[:4] == ["saliency", "add", "4", "2.5"]
    assert row[4].startswith("0.750 [")  # of four pairs three
    assert row[5:] == ["2", "2"]
    table = [line.strip("| ").split(" | ") for line in six.accuracy_table(options, list("abcde"), known)][2:]
    assert table[0][1:] == ["0.551", "0.600 [0.200, 1.000]"]
    assert [row[1] for row in table[1:]] == ["0.530", "0.347", "0.542", "0.364", "0.484", "0.407"]


# ---- the chainsaw's groups -------------------------------------------------------------------------------------------


def saws(mini: Path, *more: str) -> list[str]:
    (command,) = (c for c in commands() if c[1].endswith("chainsaw.py"))
    return [*command[2:], *more]


def test_the_four_groups_of_the_miniature(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four colours are a chain saw each in its own right: four groups, one colour each, that carry the class."""
    module = recipe("chainsaw")
    module.main(saws(mini))
    out = capsys.readouterr().out
    rows = [row.strip("| ").split(" | ") for row in out.splitlines() if row.startswith("| ")]
    assert [row[0] for row in rows[2:6]] == list(module.PAPER)
    ours = rows[8:]
    counts = [count for _, count in recipe("miniature").SAWS.values()]
    assert sorted(int(row[2]) for row in ours) == sorted(counts)
    groups = whylens.open_groups("chainsaw/run")
    bounds = np.cumsum([0, *counts])
    colours = {g.name: set(np.digitize([int(Path(k).stem) for k in g.keys], bounds).tolist()) for g in groups}
    assert sorted(sorted(colours[row[0]]) for row in ours) == [[1], [2], [3], [4]]
    for row in ours:
        assert row[1] == ""
        assert row[4] == "100%"
        assert row[5].startswith("100% (")
        assert float(row[7].split("%")[0]) > 40  # where it does not lie beside the blue disc, or over it
        assert row[7].endswith("(0%)")
    assert "none yet" in out
    assert {"groups.png", "map.png", "groups.csv", "run"} == {p.name for p in Path("chainsaw").iterdir()}


def test_groups_that_were_named_stand_beside_the_papers(
    mini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = recipe("chainsaw")
    module.main(saws(mini, "--images", "30", "--others", "10"))
    groups = whylens.open_groups("chainsaw/run")
    first = next(g.name for g in groups if g.class_name == "chain saw")
    groups.rename(first, "ear-muffs")
    monkeypatch.setattr(whylens.Model, "predict", None)  # nothing is done again
    module.main(saws(mini, "--images", "30", "--others", "10"))
    out = capsys.readouterr().out
    (row,) = [row for row in cells(out) if row[0] == "ear-muffs" and len(row) == 8]
    assert row[1] == "bias"
    assert "Named as one of the four: ear-muffs." in out


def test_a_folder_that_is_not_there_is_said(mini: Path) -> None:
    with pytest.raises(SystemExit, match="holds no class folder 'n01'"):
        recipe("chainsaw").main(saws(mini, "--folder", "n01"))


# ---- the drill -----------------------------------------------------------------------------------------------------


def test_the_drill_recipe(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On planted drills and the detector that was trained for them: what the logo does, and what filling it does."""
    (words,) = (words for words in commands() if words[1] == "recipes/drill.py")
    drill = recipe("drill")
    drill.main(words[2:])
    out = capsys.readouterr().out
    rows = {row[0]: row for row in (line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("|"))}
    assert rows["logo up"][1:] == ["0.37", "1.000 [0.610, 1.000]", "6"]
    assert rows["other face"][1] == "0.14"
    assert float(rows["other face"][2].split()[0]) < 0.5
    assert float(rows["change"][2].split()[0]) > 0.1
    assert rows["logo filled"][1] == "0.618"
    assert rows["object 1"][1:3] == ["18", "12"]
    assert "random_objects" not in out
    assert "there are no others of the class" in out  # all objects are one group here
    coco = json.loads(Path("drill/objects.json").read_text("utf-8"))
    assert len(coco["images"]) == 12  # a view without a drill is left out
    with np.load(mini / "metagrasp" / "scene1" / "1.npz") as held:
        mask = held["instances_objects"] == 1
    (said,) = [t for t in coco["annotations"] if coco["images"][t["image_id"]]["file_name"] == "scene1/1_rgb.png"]
    assert fill_runs(said["segmentation"], mask.shape).tolist() == mask.tolist()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert said["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    with pytest.raises(SystemExit, match="shows category 99"):
        drill.main([*words[2:], "--category", "99"])
    with pytest.raises(SystemExit, match="one class besides the background"):
        drill.main([*words[2:], "--model", f"{mini / 'net.py'}:make"])
