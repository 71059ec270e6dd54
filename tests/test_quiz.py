"""The quiz: what it asks and holds back, and what its answers amount to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthetic_graphs import attention_graph, segmented_graph, uri
from whylens.errors import InputError
from whylens.view.graph import graph_page
from whylens.view.quiz import quiz_page, summarise

HEAD = (
    "reader,question,photo,target,condition,patches,units,relative,keeps_from,truth,answer,correct,seconds,seed,whylens"
)


def data(html: str) -> dict[str, Any]:
    """What a page holds for its script."""
    found: dict[str, Any] = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    return found


@pytest.fixture(scope="module")
def graphs() -> list[dict[str, Any]]:
    return [attention_graph(roots=3, size=4, depth=3, seed=seed) for seed in range(3)]


# ---- what is asked -----------------------------------------------------------------------------------------------


def test_what_is_asked_is_not_shown_and_its_score_is_the_graphs(graphs: list[dict[str, Any]]) -> None:
    held = data(quiz_page(graphs, questions=6))
    assert len(held["photos"]) == 3
    for photo, graph in zip(held["photos"], graphs, strict=True):
        score = {tuple(node["patches"]): node["relative"] for node in graph["nodes"]}
        roots = {tuple(node["patches"]) for node in graph["nodes"] if node["root"]}
        asked = [tuple(question["patches"]) for question in photo["questions"]]
        shown = {tuple(node["patches"]) for node in photo["graph"]["nodes"]}
        assert len(set(asked)) == 6
        assert all(question["relative"] == score[tuple(question["patches"])] for question in photo["questions"])
        assert shown == set(score) - set(asked)
        assert roots <= shown


def test_as_many_keep_the_target_as_lose_it(graphs: list[dict[str, Any]]) -> None:
    for photo in data(quiz_page(graphs, questions=6, keeps=0.5))["photos"]:
        assert sum(question["relative"] >= 0.5 for question in photo["questions"]) == 3
    for photo in data(quiz_page(graphs, questions=6, keeps=1.0))["photos"]:
        assert len(photo["questions"]) == 6


def test_the_shown_graph_is_whole_after_its_nodes_are_numbered_anew(graphs: list[dict[str, Any]]) -> None:
    for photo, graph in zip(data(quiz_page(graphs))["photos"], graphs, strict=True):
        nodes, edges = photo["graph"]["nodes"], photo["graph"]["edges"]
        assert [node["id"] for node in nodes] == list(range(len(nodes)))
        for edge in edges:
            parent, child = nodes[edge["parent"]]["patches"], nodes[edge["child"]]["patches"]
            assert sorted([*child, edge["removed"]]) == parent
        there = {tuple(node["patches"]) for node in nodes}
        whole = [(graph["nodes"][e["parent"]], graph["nodes"][e["child"]]) for e in graph["edges"]]
        assert len(edges) == sum(tuple(a["patches"]) in there and tuple(b["patches"]) in there for a, b in whole)


def test_the_seed_says_what_is_asked(graphs: list[dict[str, Any]]) -> None:
    assert quiz_page(graphs, seed=4) == quiz_page(graphs, seed=4)
    assert data(quiz_page(graphs, seed=4))["photos"] != data(quiz_page(graphs, seed=5))["photos"]


def test_each_map_is_one_more_kind_of_help(graphs: list[dict[str, Any]]) -> None:
    pictures = [uri(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(3)]
    held = data(quiz_page(graphs, maps={"grad_cam": pictures}, names=["a", "b", "</script>"]))
    assert held["conditions"] == ["none", "graph", "grad_cam"]
    assert [photo["maps"]["grad_cam"] for photo in held["photos"]] == pictures
    assert held["photos"][2]["name"] == "</script>"


def test_a_photo_with_too_small_a_graph_is_left_out_and_counted(graphs: list[dict[str, Any]]) -> None:
    small = attention_graph(roots=2, size=2, depth=0)
    html = quiz_page([small, graphs[0]])
    assert [photo["name"] for photo in data(html)["photos"]] == ["photo 2"]
    assert "1 of 2 photos have too small a graph" in html
    with pytest.raises(InputError, match="no graph has a set to ask about"):
        quiz_page([small])


def test_what_cannot_be_asked_is_refused(graphs: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"quiz: names must be one per photo\. Got 1 for 3 photos"):
        quiz_page(graphs, names=["a"])
    with pytest.raises(InputError, match=r"quiz: grad_cam must be one per photo\. Got 0 for 3 photos"):
        quiz_page(graphs, maps={"grad_cam": []})
    with pytest.raises(InputError, match="a map cannot be called none or graph"):
        quiz_page(graphs, maps={"graph": ["data:,"] * 3})
    with pytest.raises(InputError, match="quiz: questions must be an integer >= 1"):
        quiz_page(graphs, questions=0)
    with pytest.raises(InputError, match=r"quiz: keeps must be a number in \[0, 1\]"):
        quiz_page(graphs, keeps=2.0)


# ---- the page's own data -----------------------------------------------------------------------------------------


def test_segments_go_to_the_page_as_runs_beyond_8_bits() -> None:
    runs = data(graph_page(segmented_graph(300)))["runs"]
    assert runs == [[unit, 40] for unit in range(300)]


def test_a_graph_that_cannot_be_shown_is_refused() -> None:
    graph = attention_graph()
    with pytest.raises(InputError, match="graph: format 2 is newer than this whylens reads"):
        graph_page(graph | {"format": 2})
    with pytest.raises(InputError, match="graph: it lacks nodes, edges"):
        graph_page({k: v for k, v in graph.items() if k not in ("nodes", "edges")})
    with pytest.raises(InputError, match="the photo must be a data URI"):
        graph_page(graph | {"photo": "cat.png"})
    graph["nodes"][0]["relative"] = float("nan")
    with pytest.raises(InputError, match="every score must be finite"):
        graph_page(graph)


def test_what_is_not_to_be_relied_on_is_said() -> None:
    graph = attention_graph()
    assert 'class="flag"' not in graph_page(graph)
    assert "baseline alone keeps more than half" in graph_page(graph | {"baseline": {"name": "blur 5", "kept": 0.5}})
    assert "ended at its limit" in graph_page(graph | {"truncated": True})
    empty = graph_page(graph | {"nodes": [], "edges": []})
    assert "No set of patches was found that keeps 90 %" in empty


# ---- the answers -------------------------------------------------------------------------------------------------


def answers(path: Path, rows: list[str], head: str = HEAD) -> Path:
    path.write_bytes("\r\n".join([head, *rows, ""]).encode())
    return path


def row(reader: int, condition: str, truth: str, answer: str, seconds: float) -> str:
    right = int(truth == answer)
    return f'{reader},1,"a, b",cat,{condition},1 2,49,0.6,0.5,{truth},{answer},{right},{seconds},0,0.1.0'


def test_answers_are_summarised_by_kind_of_help(tmp_path: Path) -> None:
    one = answers(
        tmp_path / "1.csv",
        [
            row(1, "graph", "keeps", "keeps", 4),
            row(1, "'=map", "keeps", "loses", 9),
            row(1, "graph", "loses", "loses", 2),
            row(1, "none", "loses", "keeps", 1.5),
        ],
    )
    two = answers(tmp_path / "2.csv", [row(2, "graph", "keeps", "loses", 60)])
    found = summarise(one, two)
    assert [(f.condition, f.accuracy.n, f.seconds, f.readers) for f in found] == [
        ("none", 1, 1.5, 1),
        ("graph", 3, 4.0, 2),
        ("=map", 1, 9.0, 1),
    ]
    graph = found[1].accuracy
    assert graph.value == pytest.approx(2 / 3)
    # Wilson's bounds by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), p = 2/3, n = 3, z = 1.96
    assert (graph.low, graph.high) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert str(found[1]) == "graph: accuracy 0.667 [0.208, 0.939], median 4.0 s, 3 answers of 2 readers"


def test_answers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the CSV files"):
        summarise()
    with pytest.raises(InputError, match=r"cannot read '.*nowhere\.csv': No such file"):
        summarise(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"line 2 of '.*' has no condition, truth"):
        summarise(answers(tmp_path / "other.csv", ["1,2"], "reader,question"))
    for bad in (row(1, "none", "maybe", "keeps", 1), row(1, "none", "keeps", "keeps", 1).replace(",1,0,", ",soon,0,")):
        with pytest.raises(InputError, match=r"line 3 of '.*' is not as the quiz wrote it"):
            summarise(answers(tmp_path / "bad.csv", [row(1, "none", "keeps", "keeps", 1), bad]))


def test_a_reader_counts_once(tmp_path: Path) -> None:
    one, two = (answers(tmp_path / f"{i}.csv", [row(1, "none", "keeps", "keeps", 1)]) for i in (1, 2))
    with pytest.raises(InputError, match="reader 1 is in both"):
        summarise(one, two)
