// Which nodes are shown, in what order, and where: levels from the largest sets down to the smallest.

import type { Edge, GraphNode } from "./contract";
import type { Links } from "./sets";

export interface Shown {
  ids: Set<number>;
  /** By parent: its children that are folded away. */
  folded: Map<number, number[]>;
}

/**
 * Nodes without parents are always shown; a child is where its score reaches `cut`, or where a shown parent is opened.
 */
export function shown(nodes: readonly GraphNode[], links: Links, cut: number, opened: ReadonlySet<number>): Shown {
  const relative = new Map(nodes.map((n) => [n.id, n.relative]));
  const queue = nodes.filter((n) => n.root || !links.parents.get(n.id)!.length).map((n) => n.id);
  const ids = new Set(queue);
  for (const id of queue) {
    for (const { child } of links.children.get(id)!) {
      if (ids.has(child) || (relative.get(child)! < cut && !opened.has(id))) continue;
      ids.add(child);
      queue.push(child);
    }
  }
  const folded = new Map<number, number[]>();
  for (const id of ids) {
    const hidden = links.children
      .get(id)!
      .map((e) => e.child)
      .filter((child) => !ids.has(child));
    if (hidden.length) folded.set(id, hidden);
  }
  return { ids, folded };
}

/** The parents to open so that a node is shown: those on its best way up to a node that is. */
export function wayTo(id: number, links: Links, ids: ReadonlySet<number>): number[] {
  const way: number[] = [];
  for (let at = id; !ids.has(at);) {
    const up = links.parents.get(at)!;
    at = (up.find((e) => ids.has(e.parent)) ?? up[0]!).parent;
    way.push(at);
  }
  return way;
}

/** Nodes by how many patches they keep, most first. */
export function levels(nodes: readonly GraphNode[], ids: ReadonlySet<number>): number[][] {
  const bySize = new Map<number, number[]>();
  for (const node of nodes) {
    if (!ids.has(node.id)) continue;
    const size = node.patches.length;
    if (!bySize.has(size)) bySize.set(size, []);
    bySize.get(size)!.push(node.id);
  }
  return [...bySize].sort(([a], [b]) => b - a).map(([, level]) => level);
}

const SWEEPS = 8;

/** Each level in an order with few crossings: barycentre sweeps down and up; the best order met is kept. */
export function ordered(given: readonly number[][], links: Links): number[][] {
  let now = given.map((level) => [...level]);
  let best = now;
  let fewest = crossings(now, links);
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep++) {
    now = swept(now, links, sweep % 2 === 0);
    const found = crossings(now, links);
    if (found < fewest) [best, fewest] = [now, found];
  }
  return best;
}

function swept(given: readonly number[][], links: Links, down: boolean): number[][] {
  const order = given.map((level) => [...level]);
  const at = new Map<number, number>();
  const note = (level: number[]) => level.forEach((id, i) => at.set(id, (i + 0.5) / level.length));
  order.forEach(note);
  for (const level of down ? order : [...order].reverse()) {
    const pull = new Map<number, number>();
    for (const id of level) {
      const ends = down ? links.parents.get(id)!.map((e) => e.parent) : links.children.get(id)!.map((e) => e.child);
      const places = ends.filter((end) => at.has(end)).map((end) => at.get(end)!);
      pull.set(id, places.length ? places.reduce((a, b) => a + b, 0) / places.length : at.get(id)!);
    }
    level.sort((a, b) => pull.get(a)! - pull.get(b)! || at.get(a)! - at.get(b)!);
    note(level);
  }
  return order;
}

/** Pairs of edges between the same two levels that cross. */
export function crossings(order: readonly number[][], links: Links): number {
  const level = new Map<number, number>();
  const rank = new Map<number, number>();
  order.forEach((ids, k) => ids.forEach((id, i) => (level.set(id, k), rank.set(id, i))));
  const between = new Map<string, [number, number][]>();
  for (const id of order.flat()) {
    for (const { child } of links.children.get(id)!) {
      if (!rank.has(child)) continue;
      const key = `${level.get(id)} ${level.get(child)}`;
      if (!between.has(key)) between.set(key, []);
      between.get(key)!.push([rank.get(id)!, rank.get(child)!]);
    }
  }
  return [...between.values()].reduce((sum, edges) => sum + inversions(edges), 0);
}

/** Pairs whose order differs at their two ends: a tree of counts, so that a thousand edges take no time. */
function inversions(edges: [number, number][]): number {
  edges.sort((a, b) => b[0] - a[0] || b[1] - a[1]);
  const size = Math.max(...edges.map(([, end]) => end)) + 1;
  const tree = new Uint32Array(size + 1);
  let count = 0;
  for (const [, end] of edges) {
    for (let i = end; i > 0; i -= i & -i) count += tree[i]!;
    for (let i = end + 1; i <= size; i += i & -i) tree[i]!++;
  }
  return count;
}

export interface Place {
  x: number;
  y: number;
}

export interface Band {
  top: number;
  height: number;
  /** Left to right, line by line. */
  ids: number[];
}

export interface Layout {
  /** Side of a node's picture in pixels. */
  side: number;
  height: number;
  bands: Band[];
  /** Left upper corner of each node's picture. */
  places: Map<number, Place>;
}

const SIDES = [112, 96, 80, 64, 56];
const LINES = 3;
const GAP = 16;
const NAME = 32;
const LABEL = 26;
const CHIP = 32;
const BETWEEN = 18;

/**
 * Places of the levels in a given width. A level that is too wide goes over several lines, column by column, so that
 * the order from left to right stays; pictures are as large as they can be with at most three lines a level.
 */
export function placed(order: readonly number[][], width: number, chips: ReadonlySet<number>): Layout {
  const widest = Math.max(1, ...order.map((level) => level.length));
  const lines = (side: number, count: number) => Math.ceil(count / Math.max(1, Math.floor(width / (side + GAP))));
  const side = SIDES.find((s) => lines(s, widest) <= LINES) ?? SIDES[SIDES.length - 1]!;
  const places = new Map<number, Place>();
  const bands: Band[] = [];
  let top = 0;
  for (const level of order) {
    const rows = lines(side, level.length);
    const columns = Math.ceil(level.length / rows);
    const across = Math.min(width / columns, 2 * (side + GAP));
    const left = (width - across * columns) / 2;
    const line = side + LABEL + (level.some((id) => chips.has(id)) ? CHIP : 0) + GAP;
    level.forEach((id, i) => {
      const column = Math.floor(i / rows);
      places.set(id, { x: left + (column + 0.5) * across - side / 2, y: top + NAME + (i % rows) * line });
    });
    const ids = [...level].sort((a, b) => places.get(a)!.y - places.get(b)!.y || places.get(a)!.x - places.get(b)!.x);
    bands.push({ top, height: NAME + rows * line, ids });
    top += NAME + rows * line + BETWEEN;
  }
  return { side, height: top, bands, places };
}

/** Edges as the path of an SVG, from the lower edge of one picture, `tall` pixels high, to the upper one of another. */
export function curves(edges: readonly Edge[], { side, places }: Layout, tall: number): string {
  const curve = ({ parent, child }: Edge) => {
    const [from, to] = [places.get(parent)!, places.get(child)!];
    const [x, toX] = [Math.round(from.x + side / 2), Math.round(to.x + side / 2)];
    const [y, toY] = [Math.round(from.y + tall), Math.round(to.y)];
    const middle = Math.round((y + toY) / 2);
    return `M${x} ${y}C${x} ${middle} ${toX} ${middle} ${toX} ${toY}`;
  };
  return edges.map(curve).join("");
}
