// The graph: levels of nodes from the largest sets down, what belongs to the node in hand brought out.

import { Card, type Hears } from "./card";
import type { Edge, Graph, GraphNode } from "./contract";
import { el, svg } from "./dom";
import { curves, levels, ordered, placed, shown, wayTo, type Layout, type Shown } from "./layout";
import type { Outline, Photo } from "./photo";
import { links, nearest, similar, without } from "./sets";
import type { State } from "./state";
import { counted, drop, grade, listed, percent, weight } from "./words";

type Role = "active" | "parent" | "child" | "similar" | "near";

const NEAR = 4;
const MANY_EDGES = 80;

export class Board implements Hears {
  readonly element = el("section", { class: "board", "aria-label": "Attention graph" });
  readonly links;
  private readonly byId: Map<number, GraphNode>;
  private readonly cards = new Map<number, Card>();
  private readonly lines = svg("svg", { class: "edges", "aria-hidden": "true" });
  private readonly levels = el("div", { class: "levels" });
  private visible: Shown = { ids: new Set(), folded: new Map() };
  private layout: Layout = { side: 0, height: 0, bands: [], places: new Map() };
  private hovered: number | null = null;
  private focused: number | null = null;
  private current = 0;
  private width = 0;

  /** `changed` hears of every choice, `looked` of the node in hand, null when it is put down. */
  constructor(
    private readonly graph: Graph,
    private readonly photo: Photo,
    readonly state: State,
    private readonly changed: () => void,
    private readonly looked: (node: GraphNode | null) => void,
  ) {
    this.links = links(graph);
    this.byId = new Map(graph.nodes.map((n) => [n.id, n]));
    this.current = state.pinned ?? graph.nodes.find((n) => n.root)?.id ?? 0;
    this.element.append(this.lines, this.levels);
    this.levels.addEventListener("keydown", (event) => this.key(event));
    this.levels.addEventListener("pointerleave", () => this.hover(null));
    if (state.pinned !== null) this.open(state.pinned);
    new ResizeObserver(() => {
      if (this.levels.clientWidth !== this.width) this.arrange();
    }).observe(this.levels);
  }

  /** The node under the pointer, else the one with the keyboard's focus, else the pinned one. */
  get active(): GraphNode | null {
    return this.byId.get(this.hovered ?? this.focused ?? this.state.pinned ?? -1) ?? null;
  }

  /** Pin a node, unfold the way to it and put the focus there. */
  go(id: number): void {
    this.open(id);
    this.pin(id);
    this.arrange();
    this.cards.get(id)!.focus();
  }

  /** Unfold the ways to the nodes that are nearest to a set. */
  reveal(query: readonly number[]): void {
    for (const id of this.nearTo(query)) this.open(id);
  }

  /** Nodes and edges anew: after a change of width, of the cut, or of what is opened. */
  arrange(): void {
    this.width = this.levels.clientWidth;
    if (!this.width) return;
    const held = this.focused;
    this.visible = shown(this.graph.nodes, this.links, this.state.cut, this.state.opened);
    const order = ordered(levels(this.graph.nodes, this.visible.ids), this.links);
    const chips = new Set([...this.visible.folded.keys(), ...this.state.opened]);
    this.layout = placed(order, this.width, chips);
    this.levels.style.height = `${this.layout.height}px`;
    this.levels.replaceChildren(...this.layout.bands.map((band) => this.band(band.ids, band.top)));
    this.drawEdges();
    if (!this.visible.ids.has(this.current)) this.current = this.layout.bands[0]?.ids[0] ?? 0;
    this.rove(this.current);
    if (held !== null) this.cards.get(this.visible.ids.has(held) ? held : this.current)?.focus();
    this.paint();
  }

  /** Bring out the node in hand and what belongs to it, or the nodes nearest to the reader's own set. */
  paint(): void {
    const active = this.active;
    const roles = active ? this.around(active) : this.nearQuery();
    const compared = active?.patches ?? this.state.query;
    this.element.classList.toggle("focused", roles.size > 0);
    for (const id of this.visible.ids) {
      const role = roles.get(id);
      const outlines = role && role !== "active" && compared ? this.outlines(id, role, compared, active) : [];
      const badge = this.badge(id, role, active, compared);
      this.cards.get(id)!.dress(role ?? "", this.state.pinned === id, badge, outlines, this.layout.side);
    }
    this.lines.replaceChildren(this.lines.firstChild!, ...(active ? [this.edgesOf(active)] : []));
    this.looked(active);
  }

  // ---- nodes ---------------------------------------------------------------------------------------------

  private band(ids: readonly number[], top: number): HTMLElement {
    const kept = this.byId.get(ids[0]!)!.patches.length;
    const name = el("p", { class: "level" }, `${counted(kept, "patch", "patches")} kept`);
    name.style.top = `${top}px`;
    const says = `${counted(kept, "patch", "patches")} kept, ${counted(ids.length, "node")}`;
    return el("div", {}, name, el("ul", { "aria-label": says }, ...ids.map((id) => this.card(id).element)));
  }

  private card(id: number): Card {
    const card = this.cards.get(id) ?? new Card(this.byId.get(id)!, this.photo, this.graph.threshold, this);
    this.cards.set(id, card);
    card.place(this.layout.places.get(id)!, this.layout.side);
    const folded = this.visible.folded.get(id)?.length ?? 0;
    card.say(this.spoken(this.byId.get(id)!), folded, this.state.opened.has(id), this.state.cut);
    return card;
  }

  private spoken(node: GraphNode): string {
    const names = node.patches.map((patch) => this.photo.cells.name(patch));
    const [parents, children] = [this.links.parents, this.links.children].map((links) => links.get(node.id)!.length);
    return [
      node.root ? "Root" : "Node",
      `keeps ${percent(node.relative)} of the score, ${grade(node.relative, this.graph.threshold)}`,
      `${counted(names.length, "patch", "patches")}: ${listed(names, 6)}`,
      `${counted(parents!, "parent")}, ${counted(children!, "child", "children")}`,
    ].join("; ");
  }

  // ---- what belongs to what --------------------------------------------------------------------------------

  private around(active: GraphNode): Map<number, Role> {
    const roles = new Map<number, Role>();
    for (const id of similar(this.graph.nodes, active, this.state.alike)) roles.set(id, "similar");
    for (const { parent } of this.links.parents.get(active.id)!) roles.set(parent, "parent");
    for (const { child } of this.links.children.get(active.id)!) roles.set(child, "child");
    return roles.set(active.id, "active");
  }

  private nearQuery(): Map<number, Role> {
    const query = this.state.query;
    if (!query) return new Map();
    return new Map(this.nearTo(query).map((id) => [id, "near"]));
  }

  /** The few nearest nodes, none that is more than a patch further away than the first. */
  private nearTo(query: readonly number[]): number[] {
    const found = nearest(this.graph.nodes, query, NEAR);
    return found.filter(({ distance }) => distance <= found[0]!.distance + 1).map(({ node }) => node.id);
  }

  /** The patches in which a node differs: solid where it has one more, dashed where it has one less. */
  private outlines(id: number, role: Role, compared: readonly number[], active: GraphNode | null): Outline[] {
    const node = this.byId.get(id)!;
    const [from, to] = role === "parent" ? [node, active!] : role === "child" ? [active!, node] : [node, node];
    const width = weight(from.relative, to.relative) * Math.max(0.5, Math.min(1, this.layout.side / 112));
    return [
      ...without(node.patches, compared).map((patch) => ({ patch, width })),
      ...without(compared, node.patches).map((patch) => ({ patch, width, dashed: true })),
    ];
  }

  private badge(
    id: number,
    role: Role | undefined,
    active: GraphNode | null,
    compared: readonly number[] | null,
  ): string {
    const node = this.byId.get(id)!;
    if (role === "parent") return `parent ${drop(node.relative, active!.relative)}`;
    if (role === "child") return `child ${drop(active!.relative, node.relative)}`;
    if (role === "active") return this.state.pinned === id ? "pinned" : "this";
    if (!role) return node.root ? "root" : "";
    const differ = without(node.patches, compared!).length + without(compared!, node.patches).length;
    return differ ? `${role} ≠${differ}` : "same";
  }

  // ---- edges -----------------------------------------------------------------------------------------------

  private drawEdges(): void {
    const there = this.graph.edges.filter((e) => this.visible.ids.has(e.parent) && this.visible.ids.has(e.child));
    this.lines.setAttribute("height", String(this.layout.height));
    this.lines.setAttribute("width", String(this.width));
    const all = svg("path", { class: there.length > MANY_EDGES ? "faint" : "", d: this.path(there) });
    this.lines.replaceChildren(all);
  }

  private edgesOf({ id }: GraphNode): SVGElement {
    const own = [...this.links.parents.get(id)!, ...this.links.children.get(id)!];
    const there = own.filter((e) => this.visible.ids.has(e.parent) && this.visible.ids.has(e.child));
    return svg("path", { class: "own", d: this.path(there) });
  }

  private path(edges: readonly Edge[]): string {
    const tall = (this.layout.side * this.photo.size[0]) / Math.max(...this.photo.size);
    return curves(edges, this.layout, tall);
  }

  // ---- pointer and keys --------------------------------------------------------------------------------------

  hover(id: number | null): void {
    if (id === this.hovered) return;
    this.hovered = id;
    this.paint();
  }

  focus(id: number | null, byKey: boolean): void {
    if (id !== null) this.rove(id);
    const next = byKey ? id : null;
    if (next === this.focused) return;
    this.focused = next;
    this.paint();
  }

  click(id: number): void {
    if (this.state.pinned === id) this.unpin();
    else this.pin(id);
  }

  private pin(id: number): void {
    this.state.pinned = id;
    this.changed();
    this.paint();
  }

  private unpin(): void {
    this.state.pinned = null;
    this.changed();
    this.paint();
  }

  private open(id: number): void {
    const visible = shown(this.graph.nodes, this.links, this.state.cut, this.state.opened);
    for (const parent of wayTo(id, this.links, visible.ids)) this.state.opened.add(parent);
  }

  fold(id: number): void {
    if (this.visible.folded.has(id)) this.state.opened.add(id);
    else this.state.opened.delete(id);
    this.changed();
    this.arrange();
    this.cards.get(id)!.focus();
  }

  /** One node, and its chip, is what Tab reaches; arrows lead to the others. */
  private rove(id: number): void {
    this.current = id;
    for (const [other, card] of this.cards) card.reachable = other === id;
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.step(event.key);
    if (step !== undefined) this.cards.get(step)?.focus();
    else if (event.key === "+" || event.key === "-") this.fold(this.current);
    else if (event.key === "Escape" && this.state.pinned !== null) this.unpin();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Where a key leads from here: the best parent or child that is shown, or the neighbour in the level. */
  private step(key: string): number | undefined {
    const level = this.layout.bands.find((band) => band.ids.includes(this.current))?.ids ?? [];
    const at = level.indexOf(this.current);
    const end = (ids: number[]) => ids.find((id) => this.visible.ids.has(id)) ?? this.current;
    switch (key) {
      case "ArrowUp":
        return end(this.links.parents.get(this.current)!.map((e) => e.parent));
      case "ArrowDown":
        return end(this.links.children.get(this.current)!.map((e) => e.child));
      case "ArrowLeft":
        return level[Math.max(0, at - 1)];
      case "ArrowRight":
        return level[Math.min(level.length - 1, at + 1)];
      case "Home":
        return level[0];
      case "End":
        return level[level.length - 1];
      default:
        return undefined;
    }
  }
}
