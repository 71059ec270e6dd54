"""Attention graphs: known nodes, scores computed again from the file, the rule of growth, what is asked of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import whylens
from test_sufficient import WHITE, A, B, C, conv, guide, logic
from whylens import AttentionGraph, InputError, Model, attention_graph
from whylens.contract import MethodFacts
from whylens.graph import GUIDE, read_guide, search_settings
from whylens.probe import Probe
from whylens.structured.dag import grow
from whylens.structured.sets import Scored, bitmask, children

FRAME = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))


@MethodFacts(needs=("scores",), unit="share", signed=False)
def finger(probe: Probe) -> Tensor:
    """Points at the three cells that matter."""
    return guide(A, B, C).expand(len(probe), -1, -1, -1)


def known() -> AttentionGraph:
    return attention_graph(logic(), WHITE, "yes", guide=finger, baseline="black")


def of_conv(**more: Any) -> AttentionGraph:
    return attention_graph(conv(), FRAME, grid=4, guide="grad_cam", baseline="black", **more)


# ---- what is in it -------------------------------------------------------------------------------------------------


def test_the_graph_of_two_ways_is_known() -> None:
    graph = known()
    scores = {node.patches: round(node.score, 4) for node in graph.nodes}
    assert scores == {(C,): 0.97, (A, B): 0.97, (A,): 0.03, (B,): 0.03, (): 0.03}
    assert [node.patches for node in graph.roots] == [(C,), (A, B)]
    by_id = {node.id: node.patches for node in graph.nodes}
    edges = {(by_id[e.parent], by_id[e.child], e.removed) for e in graph.edges}
    assert edges == {((C,), (), C), ((A, B), (B,), A), ((A, B), (A,), B)}
    assert dict(graph.overlap) == {"t0": 2, "t1": 2, "t2": 2, "jaccard": 2, "jaccard_limit": 0.2}
    assert graph.stops["search"] == "no set left"
    assert not graph.truncated


def composed(frame: Tensor, patches: list[int], grid: list[int]) -> Tensor:
    """The frame with everything but these cells black."""
    rows, columns = (torch.arange(n) * cells // n for n, cells in zip(frame.shape[1:], grid, strict=True))
    return frame * torch.isin(rows[:, None] * grid[1] + columns, torch.tensor(patches))


@pytest.mark.parametrize("overlap", [0, 1, 16])
def test_the_file_says_what_the_model_says(overlap: int, tmp_path: Path) -> None:
    model = conv()
    graph = of_conv(overlap=overlap, params={"beam": 4, "max_sets": 6})
    said = json.loads(graph.save(tmp_path / "deep" / "graph.json").read_text("utf-8"))
    assert said["nodes"]
    assert said["score_full"] == pytest.approx(float(model.predict(FRAME[None])[0, said["target"]["index"]]), abs=1e-5)
    for node in said["nodes"]:
        shown = composed(FRAME, node["patches"], said["grid"])
        true = float(model.predict(shown[None])[0, said["target"]["index"]])
        assert node["score"] == pytest.approx(true, abs=1e-5)
        assert node["relative"] == pytest.approx(node["score"] / said["score_full"])
        assert node["patches"] == sorted(node["patches"])
    assert [node["id"] for node in said["nodes"]] == list(range(len(said["nodes"])))
    assert len({tuple(node["patches"]) for node in said["nodes"]}) == len(said["nodes"])
    for a in graph.roots:
        for b in graph.roots:
            assert a is b or len({*a.patches} & {*b.patches}) <= overlap


def test_a_node_that_keeps_enough_has_all_its_children() -> None:
    for graph in (of_conv(), of_conv(max_nodes=12), of_conv(expand=0.0), of_conv(expand=1.0)):
        sets = {bitmask(node.patches, 16): node for node in graph.nodes}
        below: dict[int, set[int]] = {}
        for edge in graph.edges:
            parent, child = graph.nodes[edge.parent], graph.nodes[edge.child]
            assert {*parent.patches} - {edge.removed} == {*child.patches}
            below.setdefault(edge.parent, set()).add(bitmask(child.patches, 16))
        for members, node in sets.items():
            assert below.get(node.id, set()) == ({*children(members)} if node.expanded else set())
            if node.relative < graph.expand:
                assert not node.expanded
            elif not graph.truncated:
                assert node.expanded
        assert len(graph.nodes) <= graph.stops["max_nodes"]
        reached = {edge.child for edge in graph.edges}
        assert all(node.root or node.id in reached for node in graph.nodes)
    assert of_conv(max_nodes=12).truncated


def test_the_best_of_a_level_grow_first_when_nodes_run_out() -> None:
    score = Scored(lambda sets: [0.9 if m in (0b0011, 0b1100) else 0.8 + m / 100 for m in sets])
    grown = grow(score, [0b0011, 0b1100], least=0.5, most=4)
    assert grown.truncated
    assert grown.sets == (0b0011, 0b1100, 0b0010, 0b0001)
    assert grown.expanded == (True, False, False, False)
    whole = grow(score, [0b0011, 0b1100], least=0.5, most=7)
    assert not whole.truncated
    assert set(whole.sets) == {0b0011, 0b1100, 1, 2, 4, 8, 0}


# ---- what is asked of it -------------------------------------------------------------------------------------------


def test_a_node_is_nearest_to_itself() -> None:
    graph = of_conv()
    for node in graph.nodes:
        (nearest, distance), *_ = graph.nearest(node.patches)
        assert (nearest, distance) == (node, 0)
    away = known().nearest([A, C], count=3)
    assert [(node.patches, distance) for node, distance in away] == [((C,), 1), ((A,), 1), ((A, B), 2)]
    with pytest.raises(InputError, match="from 0 to 48"):
        known().nearest([49])


def test_what_if_is_the_true_score() -> None:
    graph = known()
    assert graph.what_if([A, B]) == pytest.approx(0.97)
    assert graph.what_if([A, 0, 1]) == pytest.approx(0.03)
    assert graph.what_if(range(49)) == pytest.approx(graph.score_full)


def test_networkx_gets_the_same_graph() -> None:
    import networkx

    graph = of_conv()
    made = graph.networkx()
    assert networkx.is_directed_acyclic_graph(made)
    assert made.number_of_nodes() == len(graph.nodes)
    assert {(a, b, d["removed"]) for a, b, d in made.edges(data=True)} == {
        (e.parent, e.child, e.removed) for e in graph.edges
    }
    assert made.nodes[0]["patches"] == graph.nodes[0].patches


def test_a_saved_graph_opens_as_it_was(tmp_path: Path) -> None:
    graph = of_conv()
    opened = AttentionGraph.load(graph.save(tmp_path / "graph.json"))
    assert opened.as_json() == graph.as_json()
    assert opened.nodes == graph.nodes
    assert opened.nearest(graph.nodes[1].patches)[0][1] == 0
    with pytest.raises(InputError, match="has no model to ask"):
        opened.what_if([0])
    bare = AttentionGraph.load(graph.save(tmp_path / "bare.json", photo=False))
    assert bare.subject.photo is None
    assert bare.figure()[0].get_axes()


def test_the_photo_in_the_file_is_the_frame(tmp_path: Path) -> None:
    address = of_conv().as_json()["photo"]
    head, _, body = address.partition(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(body))))
    assert pixels.shape == (24, 24, 3)
    np.testing.assert_array_equal(pixels, (FRAME.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


@pytest.mark.parametrize("segments", [9, 200])
def test_segments_are_in_the_file_as_a_picture(segments: int, tmp_path: Path) -> None:
    frame = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(108, 3)).eval()
    params = {"regions": "slic", "segments": segments, "beam": 1, "max_scores": 60}
    graph = attention_graph(Model(net), frame, guide="none", baseline="black", params=params)
    labels = AttentionGraph.load(graph.save(tmp_path / "g.json")).subject.labels()
    assert graph.subject.grid is None
    assert labels.shape == (48, 48)
    assert labels.max() + 1 == graph.subject.units


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged"),
        ("[]", "holds no attention graph"),
        ('{"kind": "whylens.AttentionGraph", "format": 99}', "newer than the 1 known here"),
    ],
)
def test_a_file_that_is_none_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=said):
        AttentionGraph.load(tmp_path / "g.json")
    with pytest.raises(InputError, match="no file"):
        AttentionGraph.load(tmp_path / "nothing.json")


def test_format_1_opens() -> None:
    graph = AttentionGraph.load(Path(__file__).parent / "fixtures" / "graph_format_1.json")
    assert [node.patches for node in graph.roots] == [(C,), (A, B)]
    assert graph.subject.labels().shape == (28, 28)


# ---- what it is made of --------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_graph_and_the_world_stays() -> None:
    model = conv()
    state = {k: v.clone() for k, v in model.net.state_dict().items()}
    frame, drawn = FRAME.clone(), torch.get_rng_state()
    made = [attention_graph(model, frame, grid=4, seed=3).as_json() for _ in range(2)]
    assert made[0] == made[1]
    assert torch.equal(frame, FRAME)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.net.parameters())


def test_the_guide_has_the_grids_size_and_the_graphs_baseline() -> None:
    settings = search_settings({"grid": 5, "baseline": "black"}, {}, "here")
    method = read_guide(GUIDE, conv(), settings)
    assert method is not None
    assert method.checked_params(0)["iterations"] == 2
    assert [method.checked_params(0)[k] for k in ("steps", "baseline", "size")] == [20, "black", 5]
    assert method.key == GUIDE
    plain = read_guide("grad_cam", conv(), settings)
    assert plain is not None
    assert plain.params is None
    assert read_guide("none", conv(), settings) is None


def test_a_black_box_needs_its_own_guide() -> None:
    net = conv().net
    box = Model(lambda frames: net(frames).detach(), name="box")
    with pytest.raises(InputError, match=r"igos needs gradients, and box gives none.*guide='rise:samples=500'"):
        attention_graph(box, FRAME)
    for words in ("none", "rise:samples=20"):
        assert attention_graph(box, FRAME, grid=4, guide=words, baseline="black").roots


def test_a_function_is_a_target() -> None:
    def first(output: Tensor) -> Tensor:
        return output[:, 0].sigmoid()

    graph = attention_graph(conv(), FRAME, first, grid=4, baseline="black")
    assert (graph.subject.target_index, graph.subject.target_name) == (-1, "first")
    full = float(conv().net(FRAME[None]).detach()[0, 0].sigmoid())
    assert graph.score_full == pytest.approx(full, abs=1e-5)
    assert all(root.score > 0.9 * full for root in graph.roots)


def test_tokens_and_one_channel_and_odd_sizes() -> None:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, in_chans=1, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    frame = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    graph = attention_graph(Model(vit.eval()), frame, params={"regions": "tokens"})
    assert graph.subject.grid == (4, 4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    odd = attention_graph(Model(net), torch.rand(3, 23, 37), grid=5)
    assert odd.subject.size == (23, 37)
    assert odd.figure()[0].get_axes()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"target": "top3"}, "of one target. Got 'top3'"),
        ({"grid": 15}, r"grid must be an integer in \[2, 14\]. Got 15"),
        ({"overlap": -1}, "overlap must be an integer >= 0. Got -1"),
        ({"expand": 1.5}, r"expand must be a number in \[0, 1\]. Got 1.5"),
        ({"params": {"grid": 4}}, "grid is not among params"),
        ({"params": {"guide": None}}, "guide is not among params"),
        ({"params": {"beams": 4}}, "No parameter 'beams'. Did you mean 'beam'"),
        ({"params": {"beam": 0}}, "beam must be an integer >= 1. Got 0"),
        ({"image": torch.rand(2, 3, 24, 24)}, "give one image. Got 2"),
        ({"model": "resnet50"}, "whylens.load_model"),
    ],
)
def test_what_cannot_be_a_graph_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        attention_graph(**{"model": conv(), "image": FRAME[None], **asked})


def test_when_the_search_finds_nothing_the_graph_is_empty_and_says_so(tmp_path: Path) -> None:
    graph = attention_graph(logic(), WHITE, 0, guide="none", baseline="black", params={"max_scores": 1})
    assert graph.nodes == ()
    assert graph.stops["search"] == "max_scores"
    words = [text.get_text() for text in graph.figure()[0].texts]
    assert any("No set of patches was found" in word for word in words)
    assert AttentionGraph.load(graph.save(tmp_path / "g.json")).nearest([0]) == ()


def test_the_picture_says_how_much_each_node_keeps() -> None:
    figure, axes = known().figure()
    words = [text.get_text() for text in figure.texts]
    assert words.count("100%, enough") == 2
    assert words.count("3%") == 3
    assert axes in figure.get_axes()
    few = of_conv(expand=0.0).figure(most=2)[0]
    assert any(text.get_text().startswith("+") for text in few.texts)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_graph_and_picture(place: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    photo, model = place / "föto 1.png", f"{place / 'nets.py'}:model"
    words = ("--grid", "3", "--guide", "grad_cam", "--target", "tabby", "--param", "beam=2", "--out", tmp_path / "g")
    said = command("graph", photo, "--model", model, *words)
    assert said.code == 0, said
    assert "tabby" in said.out
    graph = AttentionGraph.load(tmp_path / "g" / "graph.json")
    assert graph.subject.target_name == "tabby"
    assert graph.stops["beam"] == 2
    assert Image.open(tmp_path / "g" / "graph.png").size[0] > 200
    said = command("graph", photo, place / "föto 2.png", "--model", model, *words, "--json")
    told = json.loads(said.out)
    assert [Path(one["folder"]).name for one in told["graphs"]] == ["föto 1", "föto 2"] or len(told["graphs"]) == 2
    assert all((Path(one["folder"]) / "graph.json").exists() for one in told["graphs"])


BRIGHT = """
import torch
from torch import nn
from whylens import Model, Preprocess


class Bright(nn.Module):
    def forward(self, x):
        seen = 20 * x.mean((1, 2, 3)) - 4
        return torch.stack([seen, -seen], 1)


def make():
    frame = Preprocess((32, 32), 32, mean=(0, 0, 0), std=(1, 1, 1))
    return Model(Bright(), preprocess=frame, classes=["bright", "dark"])
"""


def test_the_command_makes_a_quiz_with_maps(place: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "bright.py").write_text(BRIGHT, "utf-8")
    words = ("--model", f"{tmp_path / 'bright.py'}:make", "--grid", "3", "--baseline", "black", "--out", tmp_path / "g")
    words += ("--target", "bright", "--guide", "none", "--quiz", "--method", "saliency")
    said = command("graph", place / "föto 1.png", place / "föto 2.png", *words)
    assert said.code == 0, said
    assert '"conditions": ["none", "graph", "saliency"]' in (tmp_path / "g" / "quiz.html").read_text("utf-8")
    none = command("graph", place / "föto 1.png", *words, "--param", "max_scores=1")
    assert none.code == 3
    assert "no quiz" in none.out


def test_a_photo_that_fails_does_not_stop_the_others(
    place: Path, tmp_path: Path, command: Callable[..., Any], refused: Callable[..., str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    words = ("--model", f"{place / 'nets.py'}:model", "--grid", "2", "--guide", "none", "--out", tmp_path / "g")
    said = command("graph", place / "föto 1.png", tmp_path / "broken.png", *words)
    assert said.code == 3
    assert "no graph" in said.out
    assert "broken.png" in refused("graph", tmp_path / "broken.png", *words)
    assert "--param" in refused("graph", place / "föto 1.png", *words, "--param", "beam")
    assert "grid must be" in refused("graph", place / "föto 1.png", *words[:2], "--grid", "99")


def test_public() -> None:
    assert whylens.attention_graph is attention_graph
