import assert from "node:assert/strict";
import { test } from "node:test";
import { guess, hamming, jaccard, links, nearest, similar, toggled, without } from "../src/sets";
import { SMALL } from "./graphs";

test("distance and overlap of sets are those of their patches", () => {
  assert.equal(hamming([1, 2, 3], [2, 3, 4, 5]), 3);
  assert.equal(hamming([], []), 0);
  assert.equal(jaccard([1, 2, 3], [2, 3, 4, 5]), 2 / 5);
  assert.equal(jaccard([], []), 1);
  assert.equal(jaccard([1], []), 0);
  assert.deepEqual(without([1, 2, 3], [2]), [1, 3]);
});

test("distance agrees with counting bits", () => {
  let seed = 1;
  const draw = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const bits = (set: number[]) => set.reduce((sum, patch) => sum | (1n << BigInt(patch)), 0n);
  for (let i = 0; i < 200; i++) {
    const [a, b] = [0, 1].map(() => Array.from({ length: 49 }, (_, p) => p).filter(() => draw() < 0.3)) as [
      number[],
      number[],
    ];
    const differ = (bits(a) ^ bits(b)).toString(2).replaceAll("0", "").length;
    assert.equal(hamming(a, b), differ);
  }
});

test("a patch switched twice leaves the set as it was, sorted", () => {
  assert.deepEqual(toggled([1, 10], 4), [1, 4, 10]);
  assert.deepEqual(toggled(toggled([1, 10], 4), 4), [1, 10]);
});

test("a set of the graph is nearest to itself at distance 0", () => {
  for (const node of SMALL.nodes) {
    assert.deepEqual(nearest(SMALL.nodes, node.patches, 1), [{ node, distance: 0 }]);
    assert.deepEqual(guess(SMALL.nodes, node.patches), {
      distance: 0,
      count: 1,
      mean: node.relative,
      low: node.relative,
      high: node.relative,
    });
  }
});

test("of equally near sets the better score comes first, and the guess is their mean", () => {
  const found = nearest(SMALL.nodes, [0, 1, 2], 3).map(({ node, distance }) => [node.patches.join(), distance]);
  assert.deepEqual(found, [
    ["0,1", 1],
    ["1,2", 1],
    ["1", 2],
  ]);
  const said = guess(SMALL.nodes, [0, 1, 2]);
  assert.deepEqual(
    { ...said, mean: said.mean.toFixed(6) },
    { distance: 1, count: 2, mean: "0.950000", low: 0.93, high: 0.97 },
  );
});

test("similar sets overlap by at least the share, and a set is not similar to itself", () => {
  const root = SMALL.nodes[0]!;
  assert.deepEqual(similar(SMALL.nodes, root, 0.5), [2, 3]);
  assert.deepEqual(similar(SMALL.nodes, root, 1 / 3), [1, 2, 3]);
  assert.deepEqual(similar(SMALL.nodes, root, 0), [1, 2, 3, 4, 5]);
});

test("edges are found from both ends, the best scores first", () => {
  const { parents, children } = links(SMALL);
  assert.deepEqual(
    children.get(0)!.map((e) => [e.child, e.removed]),
    [
      [3, 0],
      [2, 1],
    ],
  );
  assert.deepEqual(
    parents.get(3)!.map((e) => e.parent),
    [0, 1],
  );
  assert.deepEqual(parents.get(0), []);
});
