import assert from "node:assert/strict";
import { test } from "node:test";
import { gridCells, runCells, type Cells } from "../src/cells";

/** The patch of every pixel by its boxes. */
function painted(cells: Cells, [H, W]: [number, number]): (number | null)[] {
  const held: (number | null)[] = Array.from({ length: H * W }, () => null);
  for (let patch = 0; patch < cells.count; patch++) {
    for (const [x, y, w, h] of cells.boxes(patch)) {
      for (let row = y; row < y + h; row++) {
        for (let column = x; column < x + w; column++) {
          assert.equal(held[row * W + column], null);
          held[row * W + column] = patch;
        }
      }
    }
  }
  return held;
}

test("a grid's boxes are the cells that the net was shown, also where the frame does not divide", () => {
  for (const [grid, size] of [
    [
      [7, 7],
      [224, 224],
    ],
    [
      [3, 5],
      [32, 33],
    ],
    [
      [14, 14],
      [45, 61],
    ],
  ] as [[number, number], [number, number]][]) {
    const cells = gridCells(grid, size);
    const found = painted(cells, size);
    found.forEach((patch, i) => {
      const [y, x] = [Math.floor(i / size[1]), i % size[1]];
      assert.equal(patch, Math.floor((y * grid[0]) / size[0]) * grid[1] + Math.floor((x * grid[1]) / size[1]));
      assert.equal(patch, cells.at(x, y));
    });
  }
});

test("segments lie where their runs say, and their borders are where the neighbour is another", () => {
  const size: [number, number] = [4, 5];
  const labels = [0, 0, 1, 1, 1, 0, 0, 2, 1, 1, 0, 2, 2, 2, 1, 0, 0, 0, 0, 0];
  const runs: [number, number][] = [];
  for (const patch of labels) {
    const last = runs[runs.length - 1];
    if (last && last[0] === patch) last[1]++;
    else runs.push([patch, 1]);
  }
  const cells = runCells(runs, 3, size);
  assert.deepEqual(painted(cells, size), labels);
  labels.forEach((patch, i) => assert.equal(cells.at((i % 5) + 0.7, Math.floor(i / 5) + 0.2), patch));
  const border = (patch: number) => {
    const is = (x: number, y: number) => x >= 0 && y >= 0 && x < 5 && y < 4 && labels[y * 5 + x] === patch;
    return labels.reduce((sum, own, i) => {
      const [x, y] = [i % 5, Math.floor(i / 5)];
      return own === patch
        ? sum +
            [
              [x - 1, y],
              [x + 1, y],
              [x, y - 1],
              [x, y + 1],
            ].filter(([a, b]) => !is(a!, b!)).length
        : sum;
    }, 0);
  };
  const length = (patch: number) =>
    cells.border(patch).reduce((sum, [x, y, a, b]) => sum + Math.abs(a - x) + Math.abs(b - y), 0);
  for (const patch of [0, 1, 2]) {
    assert.equal(length(patch), border(patch));
    assert.equal(cells.at(...cells.middle(patch)), patch);
  }
});

test("a unit without a pixel has no boxes and no border", () => {
  const cells = runCells([[0, 4]], 2, [2, 2]);
  assert.deepEqual([cells.boxes(1), cells.border(1)], [[], []]);
});
