// Small graphs for the tests.

import type { Graph } from "../src/contract";

/** A graph of these sets, with an edge wherever one lacks one patch of another; the scores are by the set's words. */
export function graphOf(scores: readonly [string, number][], roots: string[]): Graph {
  const nodes = scores.map(([key, relative], id) => ({
    id,
    patches: key ? key.split(" ").map(Number) : [],
    score: 0.8 * relative,
    relative,
    root: roots.includes(key),
    expanded: relative >= 0.4,
  }));
  const edges = nodes.flatMap((parent) =>
    nodes.flatMap((child) => {
      const removed = parent.patches.filter((patch) => !child.patches.includes(patch));
      const below = removed.length === 1 && child.patches.length === parent.patches.length - 1;
      return below ? [{ parent: parent.id, child: child.id, removed: removed[0]! }] : [];
    }),
  );
  return {
    photo: "data:image/png;base64,",
    size: [70, 70],
    grid: [7, 7],
    runs: null,
    target: { index: 1, name: "cat" },
    model: "net",
    score_full: 0.8,
    threshold: 0.9,
    expand: 0.4,
    units: 49,
    nodes,
    edges,
  };
}

/** Two roots that share a child; {0} and {2} are lost. */
export const SMALL = graphOf(
  [
    ["0 1", 0.97],
    ["1 2", 0.93],
    ["0", 0.1],
    ["1", 0.6],
    ["2", 0.2],
    ["", 0.01],
  ],
  ["0 1", "1 2"],
);
