"""The page: one file, nothing from outside, everything said, all text escaped."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from whylens.errors import InputError
from whylens.explanation import FLAGS, Explanation
from whylens.images import Photo
from whylens.placement import Placement
from whylens.view.page import write_page

NAME = "<script>alert('ü')</script> & \"x\".png"
VOID = {"meta", "img", "br"}


class Read(HTMLParser):
    """Elements with their attributes, and all text; refuses tags that do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.found, self.words, self.open = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]

    @property
    def text(self):
        return " ".join(self.words)


def explained(ids=(NAME, "b.png"), **changes):
    n = len(ids)
    values = {
        "maps": torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(0)),
        "ids": ids,
        "targets": torch.full((n,), 7),
        "target_names": ("tabby <cat>",) * n,
        "scores": torch.full((n,), 3.5),
        "probabilities": torch.full((n,), 0.75),
        "predictions": torch.full((n,), 7),
        "prediction_names": ("tabby <cat>",) * n,
        "method": "grad_cam",
        "label": "grad_cam",
        "signed": False,
        "unit": "score",
        "layer": "layer4",
        "model": "net<7>",
        "seed": 11,
        "frame": (3, 40, 40),
        "placements": (Placement((40, 40), (40, 60), offset=(0, 10)),) * n,
        "versions": {"whylens": "0.1.0"},
        "cost": {"forwards": 1, "backwards": 2, "seconds": 0.5},
    }
    return Explanation(**values | changes)


@pytest.fixture
def photos():
    return [Photo(name, torch.rand(3, 40, 60)) for name in (NAME, "b.png")]


def page(tmp_path, explanations, images=None, **options):
    path = write_page(tmp_path / "page.html", explanations, images, **options)
    html = path.read_text("utf-8")
    return html, Read(html)


def test_it_is_one_file_that_loads_nothing(tmp_path, photos):
    html, read = page(tmp_path, {"grad_cam": explained()}, photos)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert "http:" not in html
    assert "https:" not in html
    assert "//" not in html.replace(NAME, "").split("</style>")[0]
    assert not read.all("script") + read.all("link") + read.all("iframe")
    policy = next(m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    for rule in ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"):
        assert rule in policy
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in read.all("img"))


def test_it_is_a_document_with_one_heading_a_language_and_alternative_texts(tmp_path, photos):
    _, read = page(tmp_path, {"grad_cam": explained()}, photos, title="Cats & <dogs>", intro="One <two>.\n\nThree.")
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == len(read.all("title")) == 1
    assert "Cats & <dogs>" in read.words
    assert {"One <two>.", "Three."} <= set(read.words)
    assert all(image["alt"] for image in read.all("img"))
    assert f"grad_cam for tabby <cat> on {NAME}" in [image["alt"] for image in read.all("img")]
    assert {"header", "main", "footer", "article", "figure", "figcaption"} <= {tag for tag, _ in read.found}


def test_every_image_has_its_photo_once_and_a_picture_per_method_and_target(tmp_path, photos):
    twice = explained((NAME, NAME, "b.png"), targets=torch.tensor([7, 8, 7]), target_names=("a", "b", "a"))
    _, read = page(tmp_path, {"one": explained(), "two": twice}, photos)
    assert len(read.all("article")) == 2
    assert len(read.all("img")) == 2 + 2 + 3
    assert "Target 2 of 2" in read.text
    first = read.all("img")[0]
    shown = Image.open(BytesIO(base64.b64decode(first["src"].partition(",")[2])))
    assert shown.size == (60, 40) == (int(first["width"]), int(first["height"]))


def test_it_says_prediction_target_scale_layer_cost_and_what_the_method_says(tmp_path, photos):
    fact = {"residual": torch.tensor([0.123, 0.4])}
    _, read = page(tmp_path, {"grad_cam": explained(checks=fact)}, photos)
    for words in (
        "Predicted:  tabby <cat> , probability 0.75",
        "tabby <cat>, probability 0.75, logit 3.5",
        "(score), per image",
        "layer4",
        "1 forward and 2 backwards per image, 0.5 s in all",
        "Sum of the feature maps, each weighted by the mean of its gradient, positive part.",
        "residual 0.123",
    ):
        assert words in read.text


def test_a_prediction_that_is_no_target_is_said_without_a_probability(tmp_path):
    _, read = page(tmp_path, {"a": explained(predictions=torch.tensor([3, 7]), prediction_names=("dog", "tabby"))})
    assert re.search(r"Predicted:\s+dog\s+a\s", read.text)
    assert read.text.count("Predicted:") == 2
    none = explained(predictions=torch.tensor([-1, -1]), prediction_names=("", ""))
    assert "Predicted" not in page(tmp_path, {"a": none})[1].text


def test_flags_stand_beside_the_map_and_failures_with_their_reasons_at_the_end(tmp_path, photos):
    said = explained(checks={"flat": torch.tensor([False, True])}, failures={"<bad>.jpg": "it is <empty>"})
    _, read = page(tmp_path, {"a": said}, photos)
    assert len([p for p in read.all("p") if p.get("class") == "flag"]) == 1
    assert f"⚠ flat: {FLAGS['flat']}" in read.words
    assert "<bad>.jpg: it is <empty>" in read.words
    assert "Not explained: 1" in read.words


def test_where_it_comes_from(tmp_path):
    _, read = page(tmp_path, {"own": explained(params={"relu": False})})
    for words in ("model net<7>", "versions whylens 0.1.0", "seed 11", "format 1", "grad_cam, relu=False"):
        assert words in read.text


def test_without_photos_the_maps_stand_alone_and_a_table_lists_its_features(tmp_path):
    rows = explained(maps=torch.tensor([[0.5, -2.0], [1.0, 0.0]]), placements=(), frame=(2,), signed=True, layer=None)
    _, read = page(tmp_path, {"maps": explained(), "rows": replace(rows, names=("age", "<w>"))})
    assert len(read.all("img")) == 2
    assert "photo not at hand" in read.text
    assert "<w> −2 age 0.5" in read.text


def test_broken_characters_in_names_do_not_break_the_page(tmp_path):
    html, _ = page(tmp_path, {"a": explained(("bad\udcff\x00\x1b.png", "b.png"))})
    assert "<h2>bad?.png</h2>" in html


def test_nothing_that_was_given_is_changed(tmp_path, photos):
    said = explained()
    before = said.maps.clone(), photos[0].pixels.clone()
    page(tmp_path, {"a": said}, photos)
    assert torch.equal(said.maps, before[0])
    assert torch.equal(photos[0].pixels, before[1])


def test_a_page_that_cannot_be_written_or_has_nothing_to_show_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write_page(tmp_path / "file" / "page.html", {"a": explained()})
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="Cannot write"):
        write_page(tmp_path / "folder", {"a": explained()})
    with pytest.raises(InputError, match="at least one explained image"):
        write_page(tmp_path / "page.html", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
