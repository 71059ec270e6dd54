import assert from "node:assert/strict";
import { test } from "node:test";
import { cell, course, median, random, table, tally, type Quiz } from "../src/trial";
import { SMALL } from "./graphs";

const QUIZ: Quiz = {
  seed: 5,
  version: "0.1.0",
  keeps: 0.5,
  conditions: ["none", "graph", "=map"],
  photos: [0, 1, 2, 3, 4].map((i) => ({
    name: i ? `photo ${i}` : '-a "b", c',
    baseline: "filled with black",
    graph: SMALL,
    maps: { "=map": "data:," },
    questions: [
      { patches: [1], relative: 0.6 },
      { patches: [2], relative: 0.2 },
      { patches: [0, i], relative: 0.4 },
    ],
  })),
};

test("random numbers are even, the same for the same words, others for others", () => {
  const draw = random("5 1");
  const values = Array.from({ length: 4000 }, draw);
  assert.ok(values.every((v) => v >= 0 && v < 1));
  assert.ok(Math.abs(values.reduce((a, b) => a + b) / 4000 - 0.5) < 0.02);
  const again = random("5 1");
  assert.deepEqual(values.slice(0, 5), [again(), again(), again(), again(), again()]);
  assert.notEqual(random("5 2")(), values[0]);
});

test("every question is asked once, in another order for another reader", () => {
  const one = course(QUIZ, 1);
  assert.equal(one.length, 15);
  assert.equal(new Set(one.map((q) => `${q.photo} ${q.patches}`)).size, 15);
  assert.deepEqual(course(QUIZ, 1), one);
  assert.notDeepEqual(
    course(QUIZ, 2).map((q) => q.photo),
    one.map((q) => q.photo),
  );
  assert.notDeepEqual(
    course({ ...QUIZ, seed: 6 }, 1).map((q) => q.photo),
    one.map((q) => q.photo),
  );
});

test("one photo has one kind of help, and over as many readers every kind once", () => {
  const seen = new Map<number, Set<string>>();
  for (const reader of [4, 5, 6]) {
    const own = new Map<number, string>();
    for (const { photo, condition } of course(QUIZ, reader)) {
      assert.equal(own.get(photo) ?? condition, condition);
      own.set(photo, condition);
    }
    assert.equal(new Set(own.values()).size, 3);
    own.forEach((condition, photo) => seen.set(photo, (seen.get(photo) ?? new Set()).add(condition)));
  }
  assert.ok([...seen.values()].every((kinds) => kinds.size === 3));
});

test("answers are counted by kind of help", () => {
  const base = { photo: 0, patches: [1] };
  const answers = [
    { ...base, relative: 0.5, condition: "graph", says: true, seconds: 2 },
    { ...base, relative: 0.4, condition: "graph", says: true, seconds: 4 },
    { ...base, relative: 0.4, condition: "graph", says: false, seconds: 9 },
    { ...base, relative: 0.4, condition: "none", says: true, seconds: 1 },
  ];
  const [none, graph, map] = tally(QUIZ, answers);
  assert.deepEqual(graph, { condition: "graph", count: 3, right: 2, seconds: 4 });
  assert.deepEqual(none, { condition: "none", count: 1, right: 0, seconds: 1 });
  assert.deepEqual({ ...map, seconds: 0 }, { condition: "=map", count: 0, right: 0, seconds: 0 });
  assert.equal(median([4, 1, 3, 2]), 2.5);
});

test("cells hold no formula and no broken line", () => {
  const cells = ["=1+1", "+1", "-1", "@x", "a=1", 'say "x", y', "two\nlines", 0.25, ""].map(cell);
  assert.deepEqual(cells, ["'=1+1", "'+1", "'-1", "'@x", "a=1", '"say ""x"", y"', '"two\nlines"', "0.25", ""]);
});

test("the table has a line for each answer", () => {
  const answers = course(QUIZ, 2).map((q) => ({ ...q, says: true, seconds: 1.23456 }));
  const lines = table(QUIZ, 2, answers).split("\r\n");
  assert.equal(lines.length, 17);
  assert.equal(
    lines[0],
    "reader,question,photo,target,condition,patches,units,relative,keeps_from,truth,answer,correct,seconds,seed,whylens",
  );
  const held = lines.find((line) => line.includes("'-a"))!;
  assert.match(
    held,
    /^2,\d+,"'-a ""b"", c",cat,('=map|none|graph),[\d ]+,49,0\.\d{6},0\.5,(keeps|loses),keeps,[01],1\.235,5,0\.1\.0$/,
  );
});
