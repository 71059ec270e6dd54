// What the reader has chosen, as it stands behind the # of the address.

import type { Graph, GraphNode } from "./contract";
import { shown } from "./layout";
import { links, similar } from "./sets";

export interface State {
  pinned: number | null;
  /** The reader's own set of patches. */
  query: number[] | null;
  /** Overlap from which on a node counts as similar. */
  alike: number;
  /** Score below which children are folded away. */
  cut: number;
  opened: Set<number>;
  /** Whether the large photo is shown whole, its patches outlined. */
  whole: boolean;
}

type Known = Pick<Graph, "expand" | "nodes" | "edges">;

const FEW = 60;
const SIMILAR = 12;

/**
 * At the beginning so much is folded that at most some sixty nodes are shown, and a root has at most a dozen similar
 * sets beside its children.
 */
export function initial(graph: Known): State {
  const own = links(graph);
  const roots = graph.nodes.filter((n) => n.root);
  const cut = first(graph.expand, (share) => shown(graph.nodes, own, share, new Set()).ids.size <= FEW);
  const others = (root: GraphNode, share: number) => {
    const children = new Set(own.children.get(root.id)!.map((e) => e.child));
    return similar(graph.nodes, root, share).filter((id) => !children.has(id));
  };
  const alike = first(0.5, (share) => roots.every((root) => others(root, share).length <= SIMILAR));
  return { pinned: null, query: null, alike, cut, opened: new Set(), whole: false };
}

/** The first share, in steps of 5 %, for which something holds; 100 % where it holds for none. */
function first(from: number, holds: (share: number) => boolean): number {
  for (let percent = Math.round(100 * from); percent < 100; percent += 5)
    if (holds(percent / 100)) return percent / 100;
  return 1;
}

/** Only what differs from the beginning. */
export function written(state: State, graph: Known): string {
  const start = initial(graph);
  const words: string[] = [];
  if (state.pinned !== null) words.push(`node=${state.pinned}`);
  if (state.query) words.push(`keep=${state.query.join(".")}`);
  if (state.alike !== start.alike) words.push(`alike=${Math.round(100 * state.alike)}`);
  if (state.cut !== start.cut) words.push(`fold=${Math.round(100 * state.cut)}`);
  if (state.opened.size) words.push(`open=${[...state.opened].sort((a, b) => a - b).join(".")}`);
  if (state.whole) words.push("whole=1");
  return words.join("&");
}

/** The state of an address; what it names that is not in the graph is left out. */
export function read(text: string, graph: Known & Pick<Graph, "units">): State {
  const said = new URLSearchParams(text.replace(/^#/, ""));
  const state = initial(graph);
  const known = new Set(graph.nodes.map((n) => n.id));
  const numbers = (key: string) =>
    (said.get(key) ?? "")
      .split(".")
      .filter((word) => /^\d+$/.test(word))
      .map(Number);
  const share = (key: string, otherwise: number) => {
    const [value] = numbers(key);
    return value !== undefined && value <= 100 ? value / 100 : otherwise;
  };
  state.pinned = numbers("node").find((id) => known.has(id)) ?? null;
  if (said.has("keep")) {
    state.query = [...new Set(numbers("keep").filter((patch) => patch < graph.units))].sort((a, b) => a - b);
  }
  state.alike = share("alike", state.alike);
  state.cut = share("fold", state.cut);
  state.opened = new Set(numbers("open").filter((id) => known.has(id)));
  state.whole = said.get("whole") === "1";
  return state;
}
