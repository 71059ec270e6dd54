"""Models and methods side by side: figures by hand, who is best, what is missing, what is written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

import whylens
from whylens import InputError, Placement, Preprocess, agreement, interval
from whylens.comparison import tabulate
from whylens.comparison.table import Column, Comparison, Row
from whylens.interval import Interval
from whylens.words import csv_text

COUNT, SIDE = 12, 32
BOX = (slice(8, 16), slice(16, 24))  # the object: rows, columns
NONE = float("nan")


class Looks(nn.Module):
    """Two classes, red and green, by the mean of a channel over part of the frame; the rest it does not see."""

    def __init__(self, part: tuple[slice, slice], gain: float = 8.0) -> None:
        super().__init__()
        weight = torch.zeros(1, 1, SIDE, SIDE)
        weight[0, 0][part] = 1.0
        self.register_buffer("part", weight)
        self.cells = nn.Conv2d(3, 2, 4, 4, bias=False)
        with torch.no_grad():
            self.cells.weight.zero_()
            self.cells.weight[0, 0] = self.cells.weight[1, 1] = gain / 16
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.eye(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x * self.part).mean((2, 3)))


FRAME = Preprocess((SIDE, SIDE), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EVERYWHERE = (slice(None), slice(None))
UPPER = (slice(0, 20), slice(None))  # the object and grey noise, not the corner


def model(part: Any = BOX, name: str = "sees", gain: float = 8.0, **more: Any) -> whylens.Model:
    return whylens.Model(
        Looks(part, gain).eval(), preprocess=FRAME, classes=["red", "green"], layer="cells",
        name=name, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> whylens.Images:
    """A coloured box at one place on grey noise; the corner is as coloured, but only rightly so in three of four."""
    rng = np.random.default_rng(0)
    photos, labels, masks = [], [], []
    for k in range(COUNT):
        photo = rng.integers(60, 70, (SIDE, SIDE, 3), dtype=np.uint8)
        photo[BOX] = 0
        photo[*BOX, k % 2] = 250
        photo[24:, :8] = 0
        photo[24:, :8, (k + (k % 4 == 0)) % 2] = 250
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[BOX] = 1
        photos.append(Image.fromarray(photo))
        labels.append(("red", "green")[k % 2])
        masks.append(mask)
    return whylens.load_images(photos, labels=labels, masks=masks)


CORNER = (slice(24, 32), slice(0, 8))


@pytest.fixture(scope="module")
def two(images: whylens.Images) -> Comparison:
    return whylens.compare([model(), model(CORNER, "corner")], images, metrics=["iou", "energy_inside"], repeats=2)


def value(table: Comparison, row: str, column: str) -> float:
    cell = table[row].cells[column]
    return cell.value if isinstance(cell, Interval) else cell


# ---- models ----------------------------------------------------------------------------------------------------------


def test_who_looks_elsewhere_is_seen(two: Comparison) -> None:
    """The one that sees the object marks exactly its cells; the other marks none of them."""
    assert [row.name for row in two.rows] == ["sees", "corner"]
    assert value(two, "sees", "accuracy") == 1.0
    assert value(two, "corner", "accuracy") == 0.75
    for method in ("grad_cam", "grad_cam_pp"):
        assert value(two, "sees", f"energy_inside {method}") == pytest.approx(1.0)
        assert value(two, "corner", f"energy_inside {method}") == 0.0
        assert value(two, "sees", f"iou {method}") > 0.6
        assert value(two, "corner", f"iou {method}") == 0.0
        assert two.marks["sees", f"iou {method}"] == "best"
        assert ("corner", f"iou {method}") not in two.marks
    assert two["sees"].cells["parameters"] == 2 * 3 * 16 + 4
    assert two["sees"].cells["MB"] == pytest.approx(4 * (2 * 3 * 16 + 4 + SIDE * SIDE) / 1e6)
    assert value(two, "sees", "seconds") > 0
    assert two["sees"].cells["accuracy"] == interval.wilson(12, 12)


def test_the_figures_are_those_of_explain_and_measure(two: Comparison, images: whylens.Images) -> None:
    net = model()
    e = whylens.explain(net, images, method="grad_cam_pp")
    alone = whylens.measure(net, images, e, metric="energy_inside").values.double().numpy()
    assert two["sees"].values["energy_inside grad_cam_pp"] == pytest.approx(alone, nan_ok=True)
    assert two["sees"].cells["energy_inside grad_cam_pp"] == interval.mean(alone, seed=0)


def test_batches_do_not_matter(two: Comparison, images: whylens.Images) -> None:
    models = [model(), model(CORNER, "corner")]
    again = whylens.compare(models, images, metrics=["iou", "energy_inside"], repeats=1, batch_size=5)
    for row in two.rows:
        for column, held in row.values.items():
            assert again[row.name].values[column] == pytest.approx(held, nan_ok=True, abs=1e-5), column
    assert again.marks.keys() - {(r.name, "seconds") for r in two.rows} == {k for k in two.marks if k[1] != "seconds"}


def test_iou_by_hand(images: whylens.Images) -> None:
    """Maps enlarged fourfold by hand, cut at half of their maximum, pixels counted."""
    net, half = model(EVERYWHERE), whylens.Metric("iou", params={"threshold": 0.5}, label="iou")
    table = whylens.compare({"all": net, "same": net}, images, methods="grad_cam", metrics=half, repeats=1)
    e = whylens.explain(net, images, method="grad_cam")
    inside = np.zeros((SIDE, SIDE), bool)
    inside[BOX] = True
    by_level = []
    for level in (0.5, *(k / 20 for k in range(1, 20))):
        found = []
        for cells in e.maps[:, 0]:
            laid = torch.nn.functional.interpolate(cells[None, None], scale_factor=4, mode="bilinear")[0, 0].numpy()
            marked = (laid > 0) & (laid >= level * laid.max())
            found.append((marked & inside).sum() / (marked | inside).sum())
        by_level.append(np.mean(found))
    assert value(table, "all", "iou") == pytest.approx(by_level[0], abs=1e-6)
    assert value(table, "all", "best iou") == pytest.approx(max(by_level[1:]), abs=1e-6)
    best = (1 + int(np.argmax(by_level[1:]))) / 20
    assert f"all {best:g}, same {best:g}" in table.text()
    assert not [k for k in table.marks if k[1] in ("iou", "best iou", "accuracy")], "equal rows: none is the best"


def test_only_the_right_ones_count(images: whylens.Images) -> None:
    models = [model(UPPER, "all"), model(CORNER, "corner")]
    options: dict[str, Any] = {"metrics": "energy_inside", "methods": "grad_cam", "repeats": 1}
    every = whylens.compare(models, images, **options)
    own = whylens.compare(models, images, counted="correct", **options)
    both = whylens.compare(models, images, counted="correct_by_all", **options)
    right = own["corner"].values["accuracy"] == 1
    counts = {t: [t[n].cells["energy_inside"].n for n in ("all", "corner")] for t in (every, own, both)}  # type: ignore[union-attr]
    assert counts == {every: [12, 12], own: [12, 9], both: [9, 9]}
    expected = every["all"].values["energy_inside"][right].mean()
    assert value(both, "all", "energy_inside") == pytest.approx(expected)
    assert "n 9" in own.text()
    assert "(n 9)" in both.text()


def test_agreement_is_the_rank_correlation_on_the_photo(images: whylens.Images) -> None:
    models = {"one": model(UPPER), "other": model((slice(4, 20), slice(8, 32))), "third": model()}
    table = whylens.compare(models, images, methods="grad_cam", metrics=[], repeats=1)
    laid = {}
    for name, net in models.items():
        e = whylens.explain(net, images, method="grad_cam")
        laid[name] = [p.to_photo(m, (56, 56)).flatten() for m, p in zip(e.maps, e.placements, strict=True) if p]
    by_hand = [spearmanr(a, b).statistic for a, b in zip(laid["one"], laid["other"], strict=True)]
    pair = table.agreement["grad_cam"]["one", "other"]
    assert (pair.value, pair.n) == (pytest.approx(np.mean(by_hand)), COUNT)
    assert 0 < pair.value < 1
    mean = (table.agreement["grad_cam"]["one", "third"].value + pair.value) / 2
    assert value(table, "one", "agreement") == pytest.approx(mean)


def test_maps_of_different_targets_are_not_held_against_each_other(two: Comparison, images: whylens.Images) -> None:
    assert two.agreement["grad_cam"]["sees", "corner"].n == 9
    aimed = whylens.compare(
        [model(), model(CORNER, "corner")], images, target="label", metrics=[], methods="grad_cam", repeats=1
    )
    assert aimed.agreement["grad_cam"]["sees", "corner"].n == 9  # three of the corner's maps are flat


def test_agreement_is_of_the_images_that_count(images: whylens.Images) -> None:
    models = [model(UPPER, "all"), model(EVERYWHERE, "odd")]
    options: dict[str, Any] = {"target": 0, "metrics": [], "methods": "grad_cam", "repeats": 1}
    every = whylens.compare(models, images, **options).agreement["grad_cam"]["all", "odd"]
    own = whylens.compare(models, images, counted="correct", **options)
    wrong = int((own["odd"].values["accuracy"] == 0).sum())
    assert 0 < wrong < COUNT
    assert (every.n, own.agreement["grad_cam"]["all", "odd"].n) == (COUNT, COUNT - wrong)


def test_the_best_share_is_that_of_the_images_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = np.zeros((3, 19))
    sweep[0, 2] = sweep[1:, 10] = 0.9
    side: Any = SimpleNamespace(sweep=sweep, name="net")
    for counted, place in (([1, 1, 1], 10), ([1, NONE, NONE], 2)):
        monkeypatch.setattr(tabulate, "_counts", lambda *_, counted=counted: np.array(counted))
        assert tabulate._best(cast(Any, None), side) == place
    monkeypatch.setattr(tabulate, "_counts", lambda *_: np.full(3, NONE))
    assert tabulate._best(cast(Any, None), side) is None


def test_co_scores_of_two_nets_have_no_best(images: whylens.Images) -> None:
    table = whylens.compare([model(), model(CORNER, "corner")], images, metrics="co_score", repeats=1)
    assert not [key for key in table.marks if key[1].startswith("co_score")]
    assert "logits of two nets do not compare" in table.text()


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def methods(images: whylens.Images) -> Comparison:
    asked = ["grad_cam", "saliency", "rise:samples=30"]
    return whylens.compare(model(EVERYWHERE), images, methods=asked, pictures=2)


def test_methods_with_their_cost(methods: Comparison) -> None:
    assert [row.name for row in methods.rows] == ["grad_cam", "saliency", "rise:samples=30"]
    assert [row.cells["forwards"] for row in methods.rows][:2] == [1, 1]
    assert value(methods, "rise:samples=30", "forwards") >= 31
    assert [row.cells["backwards"] for row in methods.rows] == [1, 1, 0]
    assert value(methods, "rise:samples=30", "seconds") > value(methods, "grad_cam", "seconds") > 0
    assert {c.name for c in methods.columns} == {
        *("insertion", "deletion", "iou", "best iou", "energy_inside"),
        *("agreement", "seconds", "forwards", "backwards"),
    }
    assert len(methods.agreement["sees"]) == 3
    assert methods.marks["rise:samples=30", "backwards"] == "best"


def test_a_model_in_a_list_of_one_is_compared_by_its_methods(images: whylens.Images) -> None:
    table = whylens.compare([model()], images, metrics=[], repeats=1)
    assert table.kind == "methods"


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_what_one_row_cannot_do_is_missing_there(images: whylens.Images) -> None:
    def black_box(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2))], 1)

    dark = whylens.Model(black_box, preprocess=FRAME, classes=["red", "green"], name="dark")
    table = whylens.compare([model(), dark], images, methods=["grad_cam", "rise:samples=8"], metrics="iou", repeats=1)
    assert "iou grad_cam" not in table["dark"].cells
    assert "iou rise:samples=8" in table["dark"].cells
    assert "parameters" not in table["dark"].cells
    line = next(line for line in table.text().splitlines() if line.startswith("iou grad_cam"))
    assert re.search(r"\s-$", line)
    assert "dark, grad_cam: no maps. grad_cam needs gradients" in table.text()
    assert "accuracy" in table["dark"].cells
    with pytest.raises(InputError, match="needs gradients"):
        whylens.compare([dark, dark], images, methods="grad_cam", repeats=1)


def test_a_metric_that_a_model_refuses_is_missing_there(images: whylens.Images) -> None:
    sure = whylens.Model(
        nn.Sequential(Looks(BOX), nn.Softmax(1)).eval(), preprocess=FRAME, layer="0.cells",
        classes=["red", "green"], output="probabilities", name="sure",
    )  # fmt: skip
    options: dict[str, Any] = {"methods": "grad_cam", "repeats": 1}
    table = whylens.compare([model(), sure], images, metrics=["co_score", "sparseness"], **options)
    assert "co_score" not in table["sure"].cells
    assert "sparseness" in table["sure"].cells
    assert "sure: no co_score. co_score needs raw logits" in table.text()
    with pytest.raises(InputError, match="co_score needs raw logits"):
        whylens.compare([sure, sure], images, metrics="co_score", **options)
    assert "co_score" not in whylens.compare([sure, sure], images, **options)["sure"].cells


def test_without_labels_and_masks(images: whylens.Images) -> None:
    bare = whylens.load_images([photo.pixels.permute(1, 2, 0).numpy() for photo in images])
    table = whylens.compare([model(), model(CORNER, "corner")], bare, methods="grad_cam", repeats=1)
    assert {c.name for c in table.columns} == {"parameters", "MB", "seconds", "insertion", "agreement"}
    assert "iou is left out: needs masks, and no image has one." in table.text()
    with pytest.raises(InputError, match="energy_inside needs masks"):
        whylens.compare(model(), bare, metrics="energy_inside")
    with pytest.raises(InputError, match="needs labels"):
        whylens.compare(model(), bare, counted="correct")
    with pytest.raises(InputError, match="is no class that sees knows"):
        whylens.compare(model(), bare, target="label")


def test_images_that_cannot_be_read_are_named(tmp_path: Path, images: whylens.Images) -> None:
    for k in range(4):
        Image.fromarray(images[k].pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{k}.png")
    (tmp_path / "0.png").write_bytes(b"\x89PNG broken")
    table = whylens.compare(
        [model(), model(CORNER, "corner")], tmp_path, methods="grad_cam", metrics="sparseness", batch_size=1, repeats=1
    )
    assert list(table.failures) == ["0.png"]
    assert "Not read: " in table.text()
    assert table["sees"].cells["sparseness"].n == 3  # type: ignore[union-attr]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match="None of the 1 images could be read"):
        whylens.compare(model(), tmp_path / "only")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"models": []}, "at least one model"),
        ({"models": "resnet18"}, r"Got 'resnet18'. Open it: whylens.load_model"),
        ({"images": None}, r"models need images"),
        ({"counted": "wrong"}, "counted must be one of all, correct, correct_by_all. Got 'wrong'"),
        ({"repeats": 0}, "repeats must be an integer >= 1. Got 0"),
        ({"batch_size": 0}, "batch_size must be 'auto' or an integer >= 1"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"methods": ["saliency", "saliency"]}, "each once"),
        ({"methods": ["salliency"]}, "Did you mean 'saliency'"),
        ({"metrics": ["insertion:step=3"]}, "Did you mean 'steps'"),
        ({"target": "top5"}, "one map per image and method"),
        ({"target": [0, 1]}, "target must be one per image, 12. Got 2"),
        ({"pictures": ["nothing.png"]}, "No image 'nothing.png'"),
    ],
)
def test_what_cannot_be_asked(given: dict[str, Any], match: str, images: whylens.Images) -> None:
    asked = {"models": model(), "images": images, **given}
    with pytest.raises(InputError, match=match):
        whylens.compare(asked.pop("models"), asked.pop("images"), **asked)


def test_the_world_is_left_as_found(images: whylens.Images) -> None:
    net, other = model(), model(CORNER, "corner")
    net.net.train()
    state = torch.random.get_rng_state()
    before = {k: v.clone() for k, v in net.net.state_dict().items()}
    pixels = [photo.pixels.clone() for photo in images]
    whylens.compare([net, other], images, metrics="insertion:steps=2", repeats=1)
    assert net.net.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in net.net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.net.parameters())
    assert all(torch.equal(a, b.pixels) for a, b in zip(pixels, images, strict=True))


def test_a_net_whose_output_is_a_map_needs_a_target_function(images: whylens.Images) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    nets = [whylens.Model(net, preprocess=FRAME, task="segmentation", name=name, layer="0") for name in "ab"]
    table = whylens.compare(
        nets,
        images,
        target=lambda output: output[:, 1].mean((1, 2)),
        methods="saliency",
        metrics="sparseness",
        repeats=1,
    )
    assert "accuracy" not in table["a"].cells
    assert table["a"].cells["sparseness"] == table["b"].cells["sparseness"]
    assert table.agreement["saliency"]["a", "b"].value == pytest.approx(1.0)


def test_equal_names_are_numbered(images: whylens.Images) -> None:
    table = whylens.compare([model(), model(CORNER)], images, methods="grad_cam", metrics=[], repeats=1)
    assert [row.name for row in table.rows] == ["sees", "sees (2)"]


# ---- the table by hand -----------------------------------------------------------------------------------------------


def by_hand() -> Comparison:
    """Three rows: b is best, a cannot be told from it, =c can."""
    draws = np.random.default_rng(0).normal(0, 0.1, (2, 40))
    good = 0.7 + draws[0]
    series = {"b": good, "a": good - 0.01 + draws[1] - draws[1].mean(), "=c": good - 0.3}
    rows = [
        Row(name, {"iou": interval.mean(v), "cost": 3.0 + k, "odd": NONE}, {"iou": v})
        for k, (name, v) in enumerate(series.items())
    ]
    rows[2] = replace(rows[2], cells={k: v for k, v in rows[2].cells.items() if k != "cost"})
    columns = (
        Column("iou", "higher", says="how | much"),
        Column("cost", "lower", ".0f"),
        Column("odd", "none"),
        Column("no", "none"),
    )
    return Comparison("models", tuple(rows), columns, tuple(f"{k}.png" for k in range(40)), notes=("A note.",))


def test_the_best_and_what_is_not_told_from_it() -> None:
    table = by_hand()
    assert dict(table.marks) == {("b", "iou"): "best", ("a", "iou"): "close", ("b", "cost"): "best"}
    apart = table.difference("b", "=c", "iou")
    assert (apart.value, apart.low, apart.high) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    with pytest.raises(InputError, match="'cost' has no value by image"):
        table.difference("b", "a", "cost")
    with pytest.raises(InputError, match="No row 'd'"):
        table["d"]


def test_as_text() -> None:
    lines = by_hand().text().splitlines()
    assert lines[0].split() == ["model", "b", "a", "=c"]
    assert re.fullmatch(r"iou ↑ \(n 40\) +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \* +0\.\d+ \[.*\] ~ +0\.\d+ \[.*\]", lines[1])
    assert lines[2].split() == ["cost", "↓", "3", "*", "4", "-"]
    assert lines[3].split() == ["odd", "-", "-", "-"]
    assert lines[-1] == "A note."


def test_as_markdown() -> None:
    text = by_hand().markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {5}
    assert re.search(r"\*\*0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\*\*", table[2])
    assert table[3] == "| cost ↓ | **3** | 4 | - |"


def test_as_csv() -> None:
    table = by_hand()
    head, *rows = csv.reader(StringIO(table.csv()))
    assert head == ["model", "iou", "iou low", "iou high", "iou n", "cost", "odd", "no"]
    assert [row[0] for row in rows] == ["b", "a", "'=c"]
    assert float(rows[0][1]) == pytest.approx(table["b"].values["iou"].mean())
    assert [row[-3:] for row in rows] == [["3", "", ""], ["4", "", ""], ["", "", ""]]
    images = list(csv.DictReader(StringIO(table.images_csv())))
    assert len(images) == 40
    assert float(images[7]["a: iou"]) == table["a"].values["iou"][7]


def test_cells_that_a_table_program_would_run() -> None:
    assert [csv_text(text) for text in ("=1+1", "+1", "-1", "@x", "a=b")] == ["'=1+1", "'+1", "'-1", "'@x", "a=b"]


def test_as_html() -> None:
    page = by_hand().html()
    assert page.count('<th scope="col"><button type="button"') == 5
    assert "<strong>3</strong>" in page
    (policy,) = re.findall(r"Content-Security-Policy\" content=\"([^\"]+)\"", page)
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    from base64 import b64encode
    from hashlib import sha256

    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


def test_the_page_is_sorted_at_a_click(browser: Any, tmp_path: Path) -> None:
    """Numbers by size, names by letter, what has no value last; nothing is fetched and the script is allowed."""
    (tmp_path / "page.html").write_text(by_hand().html(), "utf-8")
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url) if "page.html" not in request.url else None)
    page.goto((tmp_path / "page.html").as_uri())

    def sorted_by(column: int) -> tuple[list[str], str]:
        page.locator("table.sortable thead button").nth(column).click()
        names = page.locator("table.sortable tbody th").all_inner_texts()
        return names, page.locator("table.sortable thead th").nth(column).get_attribute("aria-sort")

    assert sorted_by(1) == (["b", "a", "=c"], "descending")
    assert sorted_by(1) == (["=c", "a", "b"], "ascending")
    assert sorted_by(2) == (["a", "b", "=c"], "descending")
    assert sorted_by(2) == (["b", "a", "=c"], "ascending")
    assert sorted_by(0) == (["b", "a", "=c"], "descending")
    assert page.locator("th[aria-sort]").count() == 1
    assert said == []
    page.close()


def test_saved(two: Comparison, methods: Comparison, tmp_path: Path) -> None:
    for table in (two, methods):
        folder = table.save(tmp_path / table.kind)
        names = {"comparison.csv", "comparison.md", "comparison.html", "comparison.json", "images.csv", "figure.png"}
        assert {p.name for p in folder.iterdir()} == names
        said = json.loads((folder / "comparison.json").read_text("utf-8"))
        assert (said["format"], said["images"]) == (1, COUNT)
        assert said["rows"][0]["cells"]["seconds"] > 0
        assert (folder / "comparison.md").read_text("utf-8") == table.markdown()
        with Image.open(folder / "figure.png") as picture:
            assert np.asarray(picture.convert("RGB")).std() > 5
    assert "data:image/jpeg" in (tmp_path / "models" / "comparison.html").read_text("utf-8")


def test_the_figure_shows_the_images_asked_for(images: whylens.Images, methods: Comparison) -> None:
    table = whylens.compare(
        [model(), model(CORNER, "corner")], images, methods="grad_cam", metrics=[], repeats=1, batch_size=5,
        pictures=[images.ids[7], images.ids[1]],
    )  # fmt: skip
    assert {name: e.ids for name, e in table.explanations.items()} == dict.fromkeys(
        ("sees", "corner"), (images.ids[1], images.ids[7])
    )
    made, _ = table.figure()
    assert len([axes for axes in made.axes if axes.images]) >= 6
    assert methods.explanations["saliency"].ids == (images.ids[0], images.ids[11])
    none = whylens.compare(model(), images, methods="grad_cam", metrics=[], repeats=1, pictures=0)
    with pytest.raises(InputError, match="no image was kept"):
        none.figure()


# ---- maps on photos --------------------------------------------------------------------------------------------------


def test_maps_of_two_crops_meet_on_the_photo() -> None:
    """The left and the right two thirds of a photo: only the middle third was seen by both."""
    whole = torch.arange(56.0).repeat(56, 1)[None]
    left, right = (Placement((60, 60), (60, 90), (1.0, 1.0), (0.0, off)) for off in (0.0, 30.0))
    (first, seen), (second, seen_too) = (agreement.on_photo(whole[None], [p]) for p in (left, right))
    both = seen & seen_too
    assert both.float().mean() == pytest.approx(1 / 3, abs=0.02)
    assert agreement.spearman(first, second, both)[0] == pytest.approx(1.0, abs=1e-3)
    assert agreement.spearman(first, second, torch.ones_like(both))[0] < 0.5
    assert agreement.cosine(first, 3 * first, both)[0] == pytest.approx(1.0)
    assert agreement.cosine(first, 0 * first, both).isnan().all()
    assert agreement.spearman(first, 0 * first, both).isnan().all()


@pytest.mark.parametrize("hide", [False, True])
def test_rank_correlation_as_scipy_has_it(hide: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.rand((2, 5, 6, 7), generator=rng).round(decimals=1)
    seen = torch.rand((5, 6, 7), generator=rng) > 0.3 if hide else torch.ones((5, 6, 7), dtype=torch.bool)
    expected = [spearmanr(a[s], b[s]).statistic for a, b, s in zip(first, second, seen, strict=True)]
    assert agreement.spearman(first, second, seen).tolist() == pytest.approx(expected)


def test_cosine_by_hand() -> None:
    one, two = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[4.0, 3.0]]])
    every = torch.ones((1, 1, 2), dtype=torch.bool)
    assert agreement.cosine(one, two, every)[0] == pytest.approx(24 / 25)
    assert agreement.cosine(one, two, torch.tensor([[[True, False]]]))[0] == pytest.approx(1.0)


def test_maps_without_a_place() -> None:
    laid, seen = agreement.on_photo(torch.ones(2, 3, 4, 4), [None, None])
    assert laid.shape == seen.shape == (2, 56, 56)
    assert float(laid[0, 5, 5]) == 3.0
    rows, _ = agreement.on_photo(torch.rand(4, 9), [])
    assert rows.shape == (4, 1, 9)


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, place: Path, images: whylens.Images) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "my data"
    for k, photo in enumerate(images):
        path = folder / "photos" / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo.pixels.permute(1, 2, 0).numpy()).save(path)
    return folder


def test_the_command(command: Callable[..., Any], data: Path, place: Path, tmp_path: Path) -> None:
    nets = place / "nets.py"
    asked = ["compare", data / "photos", "--model", f"one={nets}:model", "--model", f"{nets}:model", "--device", "cpu"]
    asked += ["--method", "grad-cam", "--metric", "sparseness", "--repeats", "1", "--pictures", "1"]
    said = command(*asked, "--out", tmp_path / "out")
    assert said.code == 0, said
    assert said.out.splitlines()[0].split()[:2] == ["model", "one"]
    assert said.out.rstrip().endswith(f"Written to {tmp_path / 'out'}")
    found = json.loads(command(*asked, "--json").out)
    assert [row["name"] for row in found["rows"]] == ["one", f"{nets}:model"]
    assert found["rows"][0]["cells"]["sparseness"] == found["rows"][1]["cells"]["sparseness"]
    broken = data / "photos" / "cat" / "broken.png"
    broken.write_bytes(b"\x89PNG broken")
    assert command(*asked).code == 3
    broken.unlink()


def test_what_the_command_refuses(refused: Callable[..., str], data: Path, place: Path) -> None:
    spec = f"{place / 'nets.py'}:model"
    assert refused("compare", data / "photos") == (
        "compare: name the models: whylens compare DATA --model A --model B. Two runs need none."
    )
    assert "stands twice" in refused("compare", data, "--model", spec, "--model", spec)
    told = refused("compare", data, "-m", spec, "-m", f"b={spec}", *("--weights", "none") * 3)
    assert told == "--weights: once for all, or one for each of the 2 models. Got 3."
