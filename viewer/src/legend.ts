// What the rings, marks and outlines mean, and how many nodes have each ring.

import type { Graph } from "./contract";
import { el } from "./dom";
import { grade, MARKS, percent, type Grade } from "./words";

export function legend(graph: Graph): HTMLElement {
  const says: Record<Grade, string> = {
    holds: `more than ${percent(graph.threshold)} of the whole photo's score`,
    weakened: "more than half",
    lost: "half or less",
  };
  const rings = (Object.keys(says) as Grade[]).map((kind) => {
    const count = graph.nodes.filter((n) => grade(n.relative, graph.threshold) === kind).length;
    return el("li", { class: kind }, el("span", { class: "ring" }, MARKS[kind]), ` ${kind}: ${says[kind]} (${count})`);
  });
  return el(
    "div",
    { class: "legend" },
    el("ul", {}, ...rings),
    el(
      "p",
      { class: "soft" },
      "Patches in colour are kept. A node in hand shows its parents and children with what the score " +
        "changes by, in points, and sets that overlap. Outlined in red: the patch that differs, solid where that set has it, " +
        "dashed where it lacks it.",
    ),
  );
}
