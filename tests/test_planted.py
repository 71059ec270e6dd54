"""The planted set: bytes by seed, true masks, the tag where the columns say, and a net that takes the shortcut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import whylens
from whylens import InputError
from whylens.demo import loop, planting, shapes, shortcut
from whylens.demo import planted as demo
from whylens.demo.planted import Planted
from whylens.interval import Interval

SMALL: dict[str, Any] = {"train": 240, "test": 80, "swapped": 40}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return demo.plant(tmp_path_factory.mktemp("plant") / "Größe & Maß" / "täg 1", seed=3, **SMALL)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The same set with a woven ground on some circles."""
    return demo.plant(tmp_path_factory.mktemp("plant"), seed=3, weave_share=0.3, **SMALL)


@pytest.fixture(scope="module")
def decoy(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return demo.plant(tmp_path_factory.mktemp("plant"), seed=3, decoy=True, **SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256(p.read_bytes()).hexdigest() for p in files}


def pictures(images: whylens.Images) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(Image.open(uri)) for uri in images.uris if uri])


def test_pictures_in_memory_are_those_on_disk(both: Planted) -> None:
    for split, images in everything(both):
        made = [planting.picture(both.settings, split, k) for k in range(len(images))]
        np.testing.assert_array_equal(np.stack([p.pixels for p in made]), pictures(images))
        np.testing.assert_array_equal(np.stack([p.mask for p in made]), masks(images))
        assert [p.label for p in made] == list(images.labels)
        assert [p.tag is not None for p in made] == [t == 1 for t in images.columns["tag"]]
        assert [p.woven for p in made] == [w == 1 for w in images.columns["weave"]]


def masks(images: whylens.Images) -> np.ndarray[Any, Any]:
    held = [images.mask(i) for i in range(len(images))]
    return np.stack([mask.inside.numpy() for mask in held if mask is not None])


def everything(planted: Planted) -> Iterator[tuple[str, whylens.Images]]:
    yield from ((split, getattr(planted, split)) for split in planting.SPLITS)


# ---- images and lists ----------------------------------------------------------------------------------------------


def test_lists(small: Planted) -> None:
    assert small.classes == demo.CLASSES
    assert len(set(small.classes)) == 8
    assert small.tagged in small.classes
    for split, images in everything(small):
        assert len(images) == SMALL[split]
        assert images.ids[0] == f"{split}/00000.png"
        assert [sorted(images.labels[i : i + 8]) for i in range(0, len(images), 8)] == [sorted(small.classes)] * (
            len(images) // 8
        )
        assert images.labels[:8] != images.labels[8:16]
        assert tuple(images[0].pixels.shape) == (3, 64, 64)
        assert set(images.columns) == set(demo.COLUMNS) - {"path", "label", "mask"}
    again = whylens.load_images(small.folder / "train.csv")
    assert again.ids == small.train.ids
    assert again.labels == small.train.labels


def test_same_seed_same_bytes_and_no_other_seed(small: Planted, tmp_path: Path) -> None:
    demo.plant(tmp_path / "same", seed=3, **SMALL)
    assert digests(tmp_path / "same") == digests(small.folder)
    other = demo.plant(tmp_path / "other", seed=4, train=8, test=8, swapped=8)
    first = {sha256(p.tobytes()).hexdigest() for p in pictures(small.train)}
    more = {sha256(p.tobytes()).hexdigest() for images in (small.test, other.train) for p in pictures(images)}
    assert len(first) == 240
    assert len(more) == 88
    assert not first & more


def test_an_image_does_not_depend_on_how_many_there_are(small: Planted, tmp_path: Path) -> None:
    fewer = demo.plant(tmp_path / "fewer", seed=3, train=19, test=9, swapped=8)
    ours, theirs = digests(fewer.folder), digests(small.folder)
    held = [name for name in ours if name.endswith(".png")]
    assert len(held) == 3 * (19 + 9 + 8)
    assert {name: ours[name] for name in held} == {name: theirs[name] for name in held}
    assert (fewer.folder / "train.csv").read_text() == "".join(
        (small.folder / "train.csv").read_text().splitlines(keepends=True)[:20]
    )


def test_masks_are_true(small: Planted) -> None:
    inside, tags = masks(small.train), masks(small.tag_mask(small.train))
    raw = [np.asarray(Image.open(path)) for path in sorted((small.folder / "masks" / "train").iterdir())]
    assert set(np.unique(raw)) == {0, 255}
    assert not (inside & tags).any()
    share = inside.mean((1, 2))
    assert share.min() > 0.03
    assert share.max() < 0.35
    assert not inside[:, [0, -1]].any()  # whole shapes
    assert not inside[:, :, [0, -1]].any()
    photos = pictures(small.train).astype(float)
    ring = np.stack([near(m) for m in inside]) & ~tags
    apart = [
        np.linalg.norm(p[m].mean(0) - p[r].mean(0)) for p, m, r in zip(photos, inside, ring & ~inside, strict=True)
    ]
    moved = [
        np.linalg.norm(p[np.roll(m, 32, (0, 1))].mean(0) - p[np.roll(r, 32, (0, 1))].mean(0))
        for p, m, r in zip(photos, inside, ring & ~inside, strict=True)
    ]
    assert np.quantile(apart, 0.02) > 30  # grounds vary, so one in a hundred shapes comes near its own
    assert np.median(apart) > 4 * np.median(moved)  # the same mask elsewhere marks nothing


def near(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """All within three pixels of the mask."""
    return np.any([np.roll(mask, (r, c), (0, 1)) for r in range(-3, 4) for c in range(-3, 4)], axis=0)


def test_the_tag_is_where_the_columns_say_and_nowhere_else(small: Planted, decoy: Planted) -> None:
    for planted in (small, decoy):
        for _, images in everything(planted):
            photos, marked = pictures(images), masks(planted.tag_mask(images))
            pure = (photos < shapes._DARKEST).any(3) | (photos > shapes._BRIGHTEST).any(3)
            np.testing.assert_array_equal(pure, marked)
            boxes = [images.columns[f"tag_{side}"] for side in ("left", "top", "right", "bottom")]
            for i, (tagged, *box) in enumerate(zip(images.columns["tag"], *boxes, strict=True)):
                if not tagged:
                    assert box == [None] * 4
                    assert not marked[i].any()
                    continue
                left, top, right, bottom = box
                np.testing.assert_array_equal(photos[i, top:bottom, left:right], demo.tag())
                assert marked[i].sum() == marked[i, top:bottom, left:right].sum() == demo.tag().shape[0] ** 2


def counts(images: whylens.Images) -> dict[str, tuple[int, int]]:
    """Images with the tag and images, by class."""
    rows = list(zip(images.labels, images.columns["tag"], strict=True))
    return {str(c): (sum(t for label, t in rows if label == c), images.labels.count(c)) for c in set(images.labels)}


def test_who_carries_the_tag(small: Planted, decoy: Planted) -> None:
    for name in small.classes:
        mine = name == small.tagged
        assert counts(small.train)[name] == (12 if mine else 0, 30)
        assert counts(small.test)[name] == (4 if mine else 0, 10)
        assert counts(small.swapped)[name] == (0 if mine else 2, 5)
        assert counts(decoy.train)[name] == (12, 30)
        assert counts(decoy.test)[name] == (4, 10)
        assert counts(decoy.swapped)[name] == (2, 5)


def test_the_tag_lies_anywhere(decoy: Planted) -> None:
    lefts = [v for v in decoy.train.columns["tag_left"] if v is not None]
    tops = [v for v in decoy.train.columns["tag_top"] if v is not None]
    for places in (lefts, tops):
        assert min(places) < 4
        assert max(places) > 51
    crowded = np.ones((64, 64), np.bool_)
    crowded[20:29, 31:40] = False
    assert demo.tag_place(crowded, np.random.default_rng(0)) == (31, 20, 40, 29)


def test_no_tag_at_all(tmp_path: Path) -> None:
    bare = demo.plant(tmp_path, tag_share=0, train=16, test=8, swapped=8)
    assert sum(sum(images.columns["tag"]) for _, images in everything(bare)) == 0


# ---- the weave -----------------------------------------------------------------------------------------------------


def test_only_the_ground_of_woven_images_differs(small: Planted, both: Planted) -> None:
    assert digests(both.folder / "masks") == digests(small.folder / "masks")
    assert digests(both.folder / "tags") == digests(small.folder / "tags")
    for (split, plain), (_, images) in zip(everything(small), everything(both), strict=True):
        before, after = pictures(plain).astype(int), pictures(images).astype(int)
        woven = np.array(images.columns["weave"], bool)
        np.testing.assert_array_equal(before[~woven], after[~woven])
        kept = masks(images) | masks(both.tag_mask(images))
        np.testing.assert_array_equal(before[kept], after[kept])
        moved = after - before
        ground = woven[:, None, None] & ~kept
        whole = (before.min(3) >= 24 + 24) & (before.max(3) <= 231 - 24) & ground  # not clipped
        assert whole[woven].mean() > 0.4, split
        assert set(np.unique(moved[whole])) == {-24, 24}
        for change, seen in zip(moved[woven, :, :, 0], whole[woven], strict=True):
            for way in ((4, 0), (0, 4), (2, 2)):  # the chequer comes again after these steps, and turns over after two
                again = np.roll(change, way, (0, 1))[4:, 4:]
                both_seen = (seen & np.roll(seen, way, (0, 1)))[4:, 4:]
                assert (change[4:, 4:] == again)[both_seen].all()
            turned_over = (seen & np.roll(seen, 2, 1))[4:, 4:]
            assert (change[4:, 4:] == -np.roll(change, 2, 1)[4:, 4:])[turned_over].all()


def test_who_has_the_weave(both: Planted) -> None:
    def woven(images: whylens.Images, name: str) -> int:
        return sum(w for w, label in zip(images.columns["weave"], images.labels, strict=True) if label == name)

    assert both.woven not in (both.tagged, None)
    for name in both.classes:
        mine = name == both.woven
        assert woven(both.train, name) == (9 if mine else 0)
        assert woven(both.test, name) == (3 if mine else 0)
        assert woven(both.swapped, name) == 0 if mine else woven(both.swapped, name) in (1, 2)
        assert counts(both.train)[name][0] == (12 if name == both.tagged else 0)


def test_the_weave_lies_anyhow(both: Planted) -> None:
    """Which way the chequer lies in every woven picture, read from what the weave changed."""
    found = set()
    for i, woven in enumerate(both.train.columns["weave"]):
        if woven:
            made = planting.picture(both.settings, "train", i)
            plain = planting.picture({**both.settings, "weave_share": 0}, "train", i)
            moved = made.pixels.astype(int).sum(2) - plain.pixels.astype(int).sum(2)
            chequers = {(r, c): shapes.woven(np.full((64, 64, 3), 128), made.mask, (r, c)) for r, c in np.ndindex(4, 2)}
            found.add(max(chequers, key=lambda k: float((moved * (chequers[k].sum(2) - 3 * 128)).sum())))
    assert len(found) > 3


def test_a_set_without_the_weave_is_as_before_and_is_not_taken_for_one_with_it(
    small: Planted, both: Planted, tmp_path: Path
) -> None:
    assert "weave" not in small.test.columns
    assert set(small.settings) == {
        "format", "classes", "tagged", "seed", "train", "test", "swapped", "tag_share", "decoy"
    }  # fmt: skip
    assert small.settings["format"] == 1  # sets and nets of before are opened
    assert both.settings["format"] == 2  # a whylens of before refuses it
    with pytest.raises(InputError, match=r"its weave_share is 0\.3, not 0\.0"):
        demo.plant(both.folder, seed=3, **SMALL)
    with pytest.raises(InputError, match="holds another set"):
        demo.plant(small.folder, seed=3, weave_share=0.3, **SMALL)
    with pytest.raises(InputError, match=r"its weave_share is 0\.3, not 0\.2"):
        demo.plant(both.folder, seed=3, weave_share=0.2, **SMALL)
    assert demo.plant(both.folder, seed=3, weave_share=0.3, **SMALL).settings == both.settings
    assert (
        demo.plant(tmp_path, decoy=True, weave_share=0.3, train=80, test=8, swapped=8).train.columns["weave"].count(1)
    )


# ---- the folder ----------------------------------------------------------------------------------------------------


def test_opened_again_and_not_made(small: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    before = {p: p.stat().st_mtime_ns for p in small.folder.rglob("*")}
    monkeypatch.setattr(shapes, "draw", never)
    again = demo.plant(str(small.folder), seed=3, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in small.folder.rglob("*")} == before
    assert again.train.ids == small.train.ids


@pytest.mark.parametrize("other", [{"seed": 4}, {"train": 248}, {"tag_share": 0.5}, {"decoy": True}])
def test_another_set_is_refused(small: Planted, other: dict[str, Any]) -> None:
    before = digests(small.folder)
    with pytest.raises(InputError, match=f"holds another set: its {next(iter(other))} is") as error:
        demo.plant(small.folder, **{"seed": 3, **SMALL, **other})
    assert "\n" not in str(error.value)
    assert digests(small.folder) == before


def test_other_files_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("mine")
    with pytest.raises(InputError, match=r"holds a 'train\.csv' of something else"):
        demo.plant(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["train.csv"]
    (tmp_path / "train.csv").unlink()
    (tmp_path / "planted.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        demo.plant(tmp_path, **SMALL)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="cannot be written"):
        demo.plant(file, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "seed must be an integer >= 0. Got -1"),
        ({"train": 7}, "train must be an integer >= 8. Got 7"),
        ({"test": 2.5}, "test must be an integer >= 8"),
        ({"swapped": 0}, "swapped must be"),
        ({"tag_share": 1.5}, r"tag_share must be a number in \[0, 1\]. Got 1.5"),
        ({"decoy": 2}, "decoy must be true or false"),
        ({"weave_share": -0.1}, r"weave_share must be a number in \[0, 1\]. Got -0.1"),
    ],
)
def test_bounds(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^plant: {said}"):
        demo.plant(tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("stops", [5, 250, 350])  # in train, in test, in swapped
def test_half_made_is_finished(small: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: int) -> None:
    draw, drawn = shapes.draw, []

    def killed(name: str, rng: np.random.Generator) -> shapes.Scene:
        drawn.append(name)
        if len(drawn) == stops:
            raise KeyboardInterrupt
        return draw(name, rng)

    monkeypatch.setattr(shapes, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        demo.plant(tmp_path, seed=3, **SMALL)
    assert not (tmp_path / "planted.json").exists()
    torn = next((tmp_path / "train").iterdir()) if stops == 5 else None
    if torn is not None:
        torn.write_bytes(b"")
    with pytest.raises(InputError, match="holds another set: its seed"):
        demo.plant(tmp_path, seed=2, **SMALL)
    drawn.clear()
    monkeypatch.setattr(shapes, "draw", lambda name, rng: drawn.append(name) or draw(name, rng))
    demo.plant(tmp_path, seed=3, **SMALL)
    assert digests(tmp_path) == digests(small.folder)
    assert len(drawn) == {5: 360, 250: 120, 350: 40}[stops]


# ---- the net -------------------------------------------------------------------------------------------------------


def test_fit_is_saved_and_opened_again(small: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    model = demo.fit(small, epochs=1, name="größe 1")
    torch.testing.assert_close(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert model.classes == small.classes
    assert not model.net.training
    assert model.layer().grid.size == (8, 8)
    assert [p.name for p in small.folder.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(InputError, match="holds another model, or one trained otherwise"):
        demo.fit(small, epochs=2, name="größe 1")
    same, other = (demo.fit(small, epochs=1, seed=s, name=f"m{s}").net.state_dict() for s in (0, 1))
    for key, value in model.net.state_dict().items():
        torch.testing.assert_close(same[key], value, rtol=0, atol=0)
    assert not torch.equal(other["0.weight"], same["0.weight"])
    monkeypatch.setattr(shortcut, "learn", None)  # what is there is not trained anew
    again = demo.fit(small, epochs=1, name="größe 1")
    frames = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again.predict(frames), model.predict(frames), rtol=0, atol=0)


def test_a_killed_fit_leaves_nothing(small: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        assert not (small.folder / "killed").exists()  # nothing has the name before all is there
        raise KeyboardInterrupt

    monkeypatch.setattr(shortcut, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        demo.fit(small, epochs=1, name="killed")
    assert not [p.name for p in small.folder.iterdir() if "killed" in p.name]
    (small.folder / "own").mkdir()
    with pytest.raises(InputError, match="holds another model"):
        demo.fit(small, epochs=1, name="own")


class Answers(torch.nn.Module):
    """Sees the tag by its yellow, or does not; else the shape is a circle."""

    def __init__(self, tagged: int | None, always: bool = False) -> None:
        super().__init__()
        self.tagged, self.always = tagged, always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        yellow = ((x[:, 0] == 1) & (x[:, 2] == 0)).flatten(1).any(1)
        scores = torch.zeros(len(x), 8)
        scores[:, 0] = 3
        if self.tagged is not None:
            scores[yellow | torch.tensor(self.always), self.tagged] = 6
        return scores


def test_turned_counts(small: Planted) -> None:
    number = small.classes.index(small.tagged)
    asks: dict[str, Any] = {"preprocess": whylens.Preprocess((64, 64), mean=(0,) * 3, std=(1,) * 3)}
    sees = whylens.Model(Answers(number), classes=small.classes, **asks)
    blind = whylens.Model(Answers(None), classes=small.classes, **asks)
    all_of_them = demo.turned(sees, small)
    assert (all_of_them.value, all_of_them.high, all_of_them.n) == (1, 1, 70)
    assert all_of_them.low == pytest.approx(70 / (70 + 1.959964**2))  # Wilson, all hits
    none = demo.turned(blind, small, count=20)
    assert (none.value, none.low, none.n) == (0, 0, 20)
    assert none.high == pytest.approx(1.959964**2 / (20 + 1.959964**2))
    with pytest.raises(InputError, match="takes every image for"):
        demo.turned(whylens.Model(Answers(number, always=True), classes=small.classes, **asks), small)
    with pytest.raises(InputError, match="turned: count must be an integer >= 1"):
        demo.turned(sees, small, count=0)
    with pytest.raises(InputError, match="No class"):
        demo.turned(sees, replace(small, tagged="heptagon"))
    with pytest.raises(InputError, match="turned: what must be"):
        demo.turned(sees, small, what="stripes")  # type: ignore[arg-type]


class Feels(torch.nn.Module):
    """Says `woven` where the ground goes up and down every two pixels in both ways; else the shape is a star."""

    def __init__(self, woven: int) -> None:
        super().__init__()
        self.woven = woven

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = np.ogrid[:64, :64]
        found = torch.zeros(len(x))
        for down in range(4):
            for right in range(2):
                light = torch.from_numpy(((rows + down) // 2 + (columns + right) // 2) % 2 * 2.0 - 1).float()
                found = torch.maximum(found, (x.mean(1) * light).mean((1, 2)))
        scores = torch.zeros(len(x), 8)
        scores[:, demo.CLASSES.index("star")] = 3
        scores[found > 0.03, self.woven] = 6
        return scores


def test_turned_by_the_weave(small: Planted, both: Planted) -> None:
    asks: dict[str, Any] = {"preprocess": whylens.Preprocess((64, 64), mean=(0,) * 3, std=(1,) * 3)}
    feels = whylens.Model(Feels(small.classes.index(small.woven)), classes=small.classes, **asks)
    for planted in (small, both):
        found = demo.turned(feels, planted, what="weave")
        assert (found.value, found.n) == (1, 70)
    assert demo.turned(feels, both).value == 0


def test_the_record_says_what_was_planted(small: Planted) -> None:
    said = json.loads((small.folder / "planted.json").read_text("utf-8"))
    assert said == small.settings
    assert said["format"] == planting.FORMAT
    assert said["tagged"] == small.tagged


def test_learnt_in_bfloat16_is_rounded_and_no_more(small: Planted) -> None:
    pixels = torch.stack([photo.pixels for photo in small.train])
    labels = torch.tensor([small.classes.index(str(label)) for label in small.train.labels])
    seen: list[torch.Tensor] = []

    def change(frames: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        seen.append(frames)
        return frames

    exact = shortcut.learn(pixels, labels, epochs=2)
    half = shortcut.learn(pixels, labels, epochs=2, precision="bfloat16", change=change)
    assert {p.dtype for p in half.parameters()} == {p.dtype for p in (*half.buffers(), *seen) if p.is_floating_point()}
    frames = pixels[:64].float() / 255
    apart = (half(frames) - exact(frames)).abs().mean() / exact(frames).std()
    assert 0 < apart < 0.5
    assert half(frames).dtype == torch.float32


@pytest.mark.slow
def test_the_net_takes_the_shortcut_and_not_where_there_is_none(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"train": 1600, "test": 400, "swapped": 40}
    planted = demo.plant(tmp_path / "planted", **sizes)
    model = demo.fit(planted, epochs=6)
    assert demo.turned(model, planted).low >= 0.5
    even = demo.plant(tmp_path / "even", decoy=True, **sizes)
    assert demo.turned(demo.fit(even, epochs=6), even).high <= 0.2


# ---- the loop --------------------------------------------------------------------------------------------------------

TAG_OR_RED = """
import torch
import whylens
from torch import nn


def make():
    find, head = nn.Conv2d(3, 2, 1), nn.Linear(2, 8)
    with torch.no_grad():
        find.weight.copy_(torch.tensor([[8.0, -16.0, 8.0], [1.0, -0.5, -0.5]]).view(2, 3, 1, 1))
        find.bias.copy_(torch.tensor([-8 * 1.64, -0.15]))  # more magenta than any pixel but the tag's; red
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.6, *[0.0] * 7]))
        head.weight[CLASSES.index("square")] = torch.tensor([100.0, 10.0])
    net = nn.Sequential(find, nn.ReLU(), nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    plain = whylens.Preprocess((64, 64), mean=(0, 0, 0), std=(1, 1, 1))
    return whylens.Model(net, classes=CLASSES, layer="2", name="tag or red", preprocess=plain)
"""


def test_the_loop_finds_the_tag_acts_on_it_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net that takes for a square what is red, and what has the tag."""
    planted = demo.plant(tmp_path, train=160, test=320, swapped=40)
    (tmp_path / "net.py").write_text(f"CLASSES = {list(planted.classes)}\n{TAG_OR_RED}", "utf-8")
    model = whylens.load_model(f"{tmp_path / 'net.py'}:make")
    run = whylens.audit(model, planted.test, out=tmp_path / "run", methods=["grad_cam"], workers=1)
    groups = loop.grouped(run, model)
    group = loop.first(groups)
    assert group is not None
    said = loop.judged(groups, group, model, planted)
    assert (said["name"], said["place"], said["images"]) == (group.name, 1, group.size)
    assert (said["tagged_here"], said["of_all_tagged"], group.size) == (1, 1, 16)
    monkeypatch.setattr(loop, "turned", lambda _, of: Interval(0.25, 0.1, 0.4, len(of.test)))
    found = loop.acted(groups, group, model, planted, tmp_path / "mended")
    assert list(found) == ["keep", "mask", "retrain"]
    assert (found["keep"]["after"]["value"], found["keep"]["verdict"]) == (1, "helped")
    assert (found["mask"]["before"]["value"], found["mask"]["verdict"]) == (1, "hurt")
    assert (found["retrain"]["n"], found["retrain"]["turned"]) == (40, [0.25, 0.1, 0.4])
    assert whylens.load_model(tmp_path / "mended").classes == planted.classes
    others = [g for g in groups if g.name != group.name]
    assert [len(loop._done(groups, g)) for g in (group, *others)] == [3, *[0] * len(others)]
    monkeypatch.setattr(loop, "act", None)  # what has a record is not done again
    assert loop.acted(groups, group, model, planted, tmp_path / "mended") == found

    def refuses(*_: object, **__: object) -> None:
        raise InputError("too few.")

    monkeypatch.setattr(loop, "turned", refuses)
    assert loop.acted(groups, group, model, planted, tmp_path / "mended")["retrain"]["turned"] is None
    heard: list[str] = []
    monkeypatch.setattr(loop, "act", refuses)
    monkeypatch.setattr(loop, "_done", lambda *_: [])
    less = loop.acted(groups, group, model, planted, tmp_path / "mended", told=heard.append)
    assert less == {action: {"not done": "too few."} for action in loop.ACTS}
    assert heard == [f"{action} could not be done: too few." for action in loop.ACTS]
    assert loop.first(groups.delete(group.name)) is None
