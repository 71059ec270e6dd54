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

import pytest
from PIL import Image

import whylens
from whylens import _plugins

RECIPES = Path(__file__).parents[1] / "recipes"
QUICK = ["--settings", "rise:samples=40"]


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds the miniature; the recipes can be imported."""
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.chdir(tmp_path)
    recipe("miniature").write(tmp_path / "mini")
    yield tmp_path / "mini"
    for name in ("miniature", "resumed", "igos_insertion", "cost_table", "sufficient_sets"):
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
    make, insertion, cost, sets = commands()
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
