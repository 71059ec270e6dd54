import assert from "node:assert/strict";
import { test } from "node:test";
import { crossings, levels, ordered, placed, shown, wayTo } from "../src/layout";
import { links } from "../src/sets";
import { graphOf, SMALL } from "./graphs";

const small = links(SMALL);
const all = (graph: typeof SMALL) => new Set(graph.nodes.map((n) => n.id));

/** Ten roots of five patches and what is left of them, each a chain of triangles: more than 200 nodes. */
function large() {
  const scores: Record<string, number> = {};
  const roots: string[] = [];
  for (let k = 0; k < 10; k++) {
    const root = [0, 1, 2, 3, 4].map((i) => (k * 4 + i * 7 + i * i * k) % 49);
    const patches = [...new Set(root)].sort((a, b) => a - b);
    roots.push(patches.join(" "));
    for (let mask = 0; mask < 1 << patches.length; mask++) {
      const left = patches.filter((_, i) => mask & (1 << i));
      scores[left.join(" ")] = left.length / patches.length;
    }
  }
  return graphOf(Object.entries(scores), roots);
}

test("children below the cut are folded until a parent is opened", () => {
  const { ids, folded } = shown(SMALL.nodes, small, 0.4, new Set());
  assert.deepEqual([...ids].sort(), [0, 1, 3]);
  assert.deepEqual(
    [...folded],
    [
      [0, [2]],
      [1, [4]],
      [3, [5]],
    ],
  );
  assert.deepEqual([...shown(SMALL.nodes, small, 0.4, new Set([1])).ids].sort(), [0, 1, 3, 4]);
  assert.equal(shown(SMALL.nodes, small, 0, new Set()).ids.size, SMALL.nodes.length);
});

test("every node is shown or counted at a shown parent, and the way to it shows it", () => {
  const graph = large();
  const own = links(graph);
  for (const cut of [0.3, 0.5, 0.9, 1]) {
    const { ids } = shown(graph.nodes, own, cut, new Set());
    for (const node of graph.nodes) {
      const opened = new Set(wayTo(node.id, own, ids));
      assert.ok(shown(graph.nodes, own, cut, opened).ids.has(node.id));
    }
  }
});

test("a node that lost its parents is shown", () => {
  const graph = { ...SMALL, edges: SMALL.edges.filter((e) => e.child !== 4) };
  assert.ok(shown(graph.nodes, links(graph), 0.4, new Set()).ids.has(4));
});

test("levels go from the largest sets to the smallest", () => {
  assert.deepEqual(levels(SMALL.nodes, all(SMALL)), [[0, 1], [2, 3, 4], [5]]);
  assert.deepEqual(levels(SMALL.nodes, new Set([5, 0])), [[0], [5]]);
});

test("crossings are those of pairs of edges", () => {
  assert.equal(crossings([[0, 1], [2, 3, 4], [5]], small), 0);
  assert.equal(crossings([[1, 0], [2, 3, 4], [5]], small), 3);
  const graph = large();
  const own = links(graph);
  const order = levels(graph.nodes, all(graph));
  const rank = new Map(order.flatMap((level, k) => level.map((id, i) => [id, [k, i]] as const)));
  let slow = 0;
  graph.edges.forEach((a, i) => {
    for (const b of graph.edges.slice(i + 1)) {
      const [p, q, r, s] = [a.parent, a.child, b.parent, b.child].map((id) => rank.get(id)!) as [number, number][] as [
        [number, number],
        [number, number],
        [number, number],
        [number, number],
      ];
      if (p[0] === r[0] && q[0] === s[0] && (p[1] - r[1]) * (q[1] - s[1]) < 0) slow++;
    }
  });
  assert.equal(crossings(order, own), slow);
  assert.ok(slow > 100);
});

test("the order keeps each level's nodes and has fewer crossings, the same every time", () => {
  assert.equal(crossings(ordered([[1, 0], [4, 2, 3], [5]], small), small), 0);
  const graph = large();
  const own = links(graph);
  const before = levels(graph.nodes, all(graph));
  const after = ordered(before, own);
  assert.deepEqual(
    after.map((l) => [...l].sort()),
    before.map((l) => [...l].sort()),
  );
  assert.ok(
    crossings(after, own) < 0.7 * crossings(before, own),
    `${crossings(before, own)} to ${crossings(after, own)}`,
  );
  assert.deepEqual(ordered(before, own), after);
});

test("no two pictures of 200 nodes overlap, and all lie in the width", () => {
  const graph = large();
  assert.ok(graph.nodes.length > 200);
  const order = levels(graph.nodes, all(graph));
  for (const width of [340, 800, 1400]) {
    const { side, height, places, bands } = placed(order, width, new Set([0]));
    const boxes = [...places.values()];
    boxes.forEach(({ x, y }, i) => {
      assert.ok(x >= 0 && x + side <= width && y >= 0 && y + side < height, `${x} ${y} ${side} in ${width}`);
      for (const other of boxes.slice(i + 1))
        assert.ok(Math.abs(x - other.x) >= side + 4 || Math.abs(y - other.y) >= side + 20);
    });
    bands.forEach((band, i) => assert.ok(!i || band.top >= bands[i - 1]!.top + bands[i - 1]!.height));
    assert.ok(side >= 44);
  }
});

test("lines of a level read from left to right, and the order goes on from column to column", () => {
  const { bands, places } = placed([[0, 1, 2, 3, 4, 5]], 400, new Set());
  const ids = bands[0]!.ids;
  assert.equal(new Set(ids.map((id) => places.get(id)!.y)).size, 2);
  assert.deepEqual(ids, [0, 2, 4, 1, 3, 5]);
});
