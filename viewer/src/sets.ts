// Sets of patches, as sorted lists, and how near they are to each other.

import type { Edge, Graph, GraphNode } from "./contract";

type Patches = readonly number[];

/** Patches of `a` that `b` lacks. */
export function without(a: Patches, b: Patches): number[] {
  const other = new Set(b);
  return a.filter((patch) => !other.has(patch));
}

/** How many patches are in one of the two sets but not in both. */
export function hamming(a: Patches, b: Patches): number {
  return without(a, b).length + without(b, a).length;
}

/** Shared patches as a share of all patches of the two sets; two empty sets are the same, 1. */
export function jaccard(a: Patches, b: Patches): number {
  const shared = a.length - without(a, b).length;
  const all = a.length + b.length - shared;
  return all ? shared / all : 1;
}

/** The set with this patch put in or taken out. */
export function toggled(patches: Patches, patch: number): number[] {
  const rest = patches.filter((other) => other !== patch);
  return rest.length < patches.length ? rest : [...rest, patch].sort((a, b) => a - b);
}

export interface Near {
  node: GraphNode;
  distance: number;
}

/** The nodes nearest to a set, by Hamming distance; of equals the higher score, then the lower id, is first. */
export function nearest(nodes: readonly GraphNode[], patches: Patches, count: number): Near[] {
  return nodes
    .map((node) => ({ node, distance: hamming(node.patches, patches) }))
    .sort((a, b) => a.distance - b.distance || b.node.relative - a.node.relative || a.node.id - b.node.id)
    .slice(0, count);
}

/** What the nearest nodes, all those at the least distance, say about a set: their mean score and its range. */
export function guess(nodes: readonly GraphNode[], patches: Patches) {
  const all = nearest(nodes, patches, nodes.length);
  const least = all[0]?.distance ?? 0;
  const scores = all.filter((near) => near.distance === least).map((near) => near.node.relative);
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  return { distance: least, count: scores.length, mean, low: Math.min(...scores), high: Math.max(...scores) };
}

/** Ids of the other nodes whose overlap with this one is at least `least`. */
export function similar(nodes: readonly GraphNode[], to: GraphNode, least: number): number[] {
  return nodes.filter((n) => n.id !== to.id && jaccard(n.patches, to.patches) >= least).map((n) => n.id);
}

/** The edges of each node, by id: to those with one patch more, and to those with one less; the best scores first. */
export interface Links {
  parents: Map<number, Edge[]>;
  children: Map<number, Edge[]>;
}

export function links(graph: Pick<Graph, "nodes" | "edges">): Links {
  const parents = new Map<number, Edge[]>(graph.nodes.map((n) => [n.id, []]));
  const children = new Map<number, Edge[]>(graph.nodes.map((n) => [n.id, []]));
  for (const edge of graph.edges) {
    parents.get(edge.child)?.push(edge);
    children.get(edge.parent)?.push(edge);
  }
  const relative = new Map(graph.nodes.map((n) => [n.id, n.relative]));
  const better = (end: "parent" | "child") => (a: Edge, b: Edge) =>
    relative.get(b[end])! - relative.get(a[end])! || a[end] - b[end];
  for (const edges of parents.values()) edges.sort(better("parent"));
  for (const edges of children.values()) edges.sort(better("child"));
  return { parents, children };
}
