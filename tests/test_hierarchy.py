"""Trees of units, and Owen values on them against the definition: a mean over all orders the tree allows."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from whylens import hierarchy, regions
from whylens.hierarchy import Node


def nodes(tree: Node) -> list[Node]:
    return [tree, *(n for half in tree.halves or () for n in nodes(half))]


def is_sound(tree: Node) -> None:
    """Every node's units are those of its halves, each unit is a leaf once."""
    for node in nodes(tree):
        if node.halves is None:
            assert len(node.units) == 1
        else:
            assert sorted(node.units) == sorted((*node.halves[0].units, *node.halves[1].units))


def test_the_longer_side_is_halved_rows_first() -> None:
    tree = hierarchy.halving(4, 4)
    is_sound(tree)
    assert tree.halves is not None
    top, bottom = tree.halves
    assert top.units == tuple(range(8))
    assert bottom.units == tuple(range(8, 16))
    assert top.halves is not None
    assert top.halves[0].units == (0, 1, 4, 5)
    wide = hierarchy.halving(2, 5)
    is_sound(wide)
    assert wide.halves is not None
    assert wide.halves[0].units == (0, 1, 5, 6)
    assert hierarchy.halving(1, 1) == Node((0,))


def test_the_most_alike_neighbours_are_merged_first() -> None:
    """Four strips: the inner two alike in colour; the outer two as well, but they do not touch."""
    labels = torch.arange(4).repeat_interleave(4).expand(8, 16)
    frame = torch.tensor([0.0, 1.0, 0.9, 0.0])[labels][None].expand(3, -1, -1)
    tree = hierarchy.merging(labels, frame)
    is_sound(tree)
    pairs = {frozenset(node.units) for node in nodes(tree)}
    assert frozenset({1, 2}) in pairs
    assert frozenset({0, 3}) not in pairs
    plain = hierarchy.merging(labels, torch.zeros(3, 8, 16))  # nothing but place: neighbours, from the left
    assert {frozenset(node.units) for node in nodes(plain)} >= {frozenset({0, 1}), frozenset({2, 3})}


def test_every_part_of_a_merged_tree_is_connected() -> None:
    frame = torch.rand((3, 24, 30), generator=torch.Generator().manual_seed(0))
    found = regions.find(frame[None], "slic", count=12)
    (tree,) = hierarchy.trees(frame[None], found.labels, "slic")
    is_sound(tree)
    assert sorted(tree.units) == list(range(found.count))
    touching = hierarchy._touching(found.labels[0])
    for node in nodes(tree):
        if node.halves is not None:
            first, second = (set(half.units) for half in node.halves)
            assert any((p in first and q in second) or (q in first and p in second) for p, q in touching)


# ---- Owen values -----------------------------------------------------------------------------------------------------


def by_orders(tree: Node, score: dict[tuple[int, ...], float]) -> Tensor:
    """Mean of what each unit adds, over all orders that swap the halves of nodes."""

    def orders(node: Node) -> list[tuple[int, ...]]:
        if node.halves is None:
            return [node.units]
        both = product(orders(node.halves[0]), orders(node.halves[1]))
        return [order for a, b in both for order in ((*a, *b), (*b, *a))]

    units, every = len(tree.units), orders(tree)
    values = torch.zeros(units, dtype=torch.double)
    for order in every:
        shown: set[int] = set()
        for unit in order:
            before = tuple(int(u in shown) for u in range(units))
            shown.add(unit)
            values[unit] += score[tuple(int(u in shown) for u in range(units))] - score[before]
    return values / len(every)


class Scores:
    """A random score of each mask of each image, and how often it was asked."""

    def __init__(self, images: int, units: int) -> None:
        masks = list(product((0, 1), repeat=units))
        drawn = torch.randn((images, len(masks)), generator=torch.Generator().manual_seed(units)).tolist()
        self.of = [dict(zip(masks, own, strict=True)) for own in drawn]
        self.asked: list[set[tuple[int, ...]]] = [set() for _ in range(images)]

    def __call__(self, masks: Tensor) -> Tensor:
        rows = masks.expand(len(self.of), *masks.shape[-2:]).int().tolist()
        for own, asked in zip(rows, self.asked, strict=True):
            asked.update(tuple(m) for m in own)
        return torch.tensor([[score[tuple(m)] for m in own] for score, own in zip(self.of, rows, strict=True)])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 3), (3, 3)])
def test_owen_values_are_the_mean_over_the_orders_of_the_tree(rows: int, columns: int) -> None:
    units, tree = rows * columns, hierarchy.halving(rows, columns)
    ask = Scores(2, units)
    closed, opened = hierarchy.opened(ask, [tree, tree], units, 10_000)
    for n in range(2):
        values = hierarchy.spread(closed[n], torch.full((units,), 1 / units))
        torch.testing.assert_close(values.double(), by_orders(tree, ask.of[n]), rtol=0, atol=1e-6)
        assert len(ask.asked[n]) == 2 + 2 * int(opened[n])


@pytest.mark.parametrize("most", [2, 3, 4, 9, 40])
def test_any_budget_is_kept_and_adds_up(most: int) -> None:
    tree, ask = hierarchy.halving(3, 3), Scores(2, 9)
    closed, opened = hierarchy.opened(ask, [tree, tree], 9, most)
    area = torch.arange(1.0, 10.0) / 45
    for n in range(2):
        assert len(ask.asked[n]) <= most
        assert int(opened[n]) == (most - 2) // 2
        values = hierarchy.spread(closed[n], area)
        whole = ask.of[n][(1,) * 9] - ask.of[n][(0,) * 9]
        assert float(values.sum()) == pytest.approx(whole, abs=1e-5)
        if most < 4:
            torch.testing.assert_close(values, whole * area)


def test_images_of_smaller_trees_are_not_asked_again() -> None:
    trees, ask = [hierarchy.halving(1, 3), hierarchy.halving(3, 3)], Scores(2, 9)
    closed, opened = hierarchy.opened(ask, trees, 9, 300)
    for n in range(2):
        assert len(ask.asked[n]) == 2 + 2 * int(opened[n])
    assert opened.tolist() == [3, 33]
    assert max(len(b.node.units) for own in closed for b in own) == 1


def test_the_budget_goes_where_the_effect_is() -> None:
    """One unit of 64 decides: with 100 of the 2,732 scores that all branches take, most of its value is its own."""
    tree = hierarchy.halving(8, 8)
    closed, opened = hierarchy.opened(lambda masks: masks[..., 37].expand(1, masks.shape[-2]), [tree], 64, 100)
    values = hierarchy.spread(closed[0], torch.full((64,), 1 / 64))
    assert int(opened[0]) == 49
    assert float(values[37]) > 0.5
    assert float(values.sum()) == pytest.approx(1)


def test_the_largest_credits_open_first_and_ties_by_age() -> None:
    node = hierarchy.halving(1, 2)
    none = torch.zeros(2)
    credits = [0.1, 0.5, 0.5 * (1 + 1e-7), -0.9, 0.5]
    branches = [hierarchy.Branch(node, none, 0.0, c, 1.0) for c in credits]
    leaf = hierarchy.Branch(Node((0,)), none, 0.0, 5.0, 1.0)
    picked = hierarchy._next([leaf, *branches], 3)
    assert [branches.index(b) for b in picked] == [3, 1, 2]
    assert hierarchy._next([leaf, *branches], 0) == []
    assert hierarchy._next([leaf], 3) == []
