import assert from "node:assert/strict";
import { test } from "node:test";
import { initial, read, written } from "../src/state";
import { drop, grade, listed, percent, weight } from "../src/words";
import { shown } from "../src/layout";
import { links, similar } from "../src/sets";
import { graphOf, SMALL } from "./graphs";

test("percent never says that a bar is reached which is not", () => {
  assert.deepEqual([0.8999, 0.9, 1, 1.043, 0.004, 0, 0.29].map(percent), [
    "89 %",
    "90 %",
    "100 %",
    "104 %",
    "< 1 %",
    "0 %",
    "29 %",
  ]);
});

test("a score holds above the threshold, is weakened above a half, else lost", () => {
  assert.deepEqual(
    [0.9001, 0.9, 0.5001, 0.5].map((share) => grade(share, 0.9)),
    ["holds", "weakened", "weakened", "lost"],
  );
});

test("a loss is said in points with its sign, and drawn the thicker the more it is", () => {
  assert.deepEqual([drop(0.97, 0.6), drop(0.6, 0.97), drop(0.5, 0.5)], ["−37", "+37", "±0"]);
  assert.deepEqual([weight(0.9, 0.8), weight(0.9, 0.5), weight(0.9, 0.2)], [2, 3.5, 5]);
});

test("long lists are cut and counted", () => {
  assert.equal(listed(["a", "b", "c"], 2), "a; b; and 1 more");
  assert.equal(listed([]), "nothing");
});

test("what the reader chose comes back from the address", () => {
  const start = initial(SMALL);
  assert.equal(written(start, SMALL), "");
  assert.deepEqual(read("", SMALL), start);
  const state = { pinned: 3, query: [1, 5, 48], alike: 0.3, cut: 0.2, opened: new Set([4, 1]), whole: true };
  assert.equal(written(state, SMALL), "node=3&keep=1.5.48&alike=30&fold=20&open=1.4&whole=1");
  assert.deepEqual(read(`#${written(state, SMALL)}`, SMALL), { ...state, opened: new Set([1, 4]) });
  assert.deepEqual(read("#keep=", SMALL).query, []);
});

test("an address that names what is not there is not followed", () => {
  const state = read("#node=99&keep=3.3.49.x&alike=500&fold=-1&open=77.2&whole=yes", SMALL);
  assert.deepEqual(state, { ...initial(SMALL), query: [3], opened: new Set([2]) });
});

test("of a large graph so much is folded that few nodes are shown, and few are similar to a root", () => {
  const patches = Array.from({ length: 24 }, (_, i) => i);
  const without = (...gone: number[]) => patches.filter((p) => !gone.includes(p)).join(" ");
  const scores: [string, number][] = [[without(), 0.95]];
  for (const a of patches) scores.push([without(a), 0.9 - a / 100]);
  for (const a of patches) for (const b of patches) if (a < b) scores.push([without(a, b), 0.85 - (a + b) / 100]);
  const graph = graphOf(scores, [without()]);
  const state = initial(graph);
  const fold = (share: number) => shown(graph.nodes, links(graph), share, new Set()).ids.size;
  assert.ok(fold(0.4) > 200);
  assert.ok(fold(state.cut) <= 60 && fold(state.cut - 0.05) > 60, `${state.cut}`);
  assert.equal(state.alike, 0.95);
  assert.ok(similar(graph.nodes, graph.nodes[0]!, 0.5).length > 200);
  assert.deepEqual([initial(SMALL).cut, initial(SMALL).alike], [0.4, 0.5]);
});
