// The graph: levels of nodes from the largest sets down, what belongs to the node in hand brought out.

import type { Edge, Graph, GraphNode } from "./contract";
import { el, svg } from "./dom";
import { levels, ordered, placed, shown, wayTo, type Layout, type Shown } from "./layout";
import type { Outline, Photo } from "./photo";
import { links, nearest, similar, without } from "./sets";
import type { State } from "./state";
import { counted, drop, grade, listed, MARKS, percent, weight } from "./words";

interface Item {
  place: HTMLLIElement;
  button: HTMLButtonElement;
  picture: HTMLCanvasElement;
  badge: HTMLElement;
  chip: HTMLButtonElement;
  /** What the picture shows, so that it is drawn again only when that changes. */
  drawn: string;
}

type Role = "active" | "parent" | "child" | "similar" | "near";

const NEAR = 4;
const MANY_EDGES = 80;

export class Board {
  readonly element = el("section", { class: "board", "aria-label": "Attention graph" });
  readonly links;
  private readonly byId: Map<number, GraphNode>;
  private readonly items = new Map<number, Item>();
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
    this.items.get(id)!.button.focus();
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
    if (held !== null) this.items.get(this.visible.ids.has(held) ? held : this.current)?.button.focus();
    this.paint();
  }

  /** Bring out the node in hand and what belongs to it, or the nodes nearest to the reader's own set. */
  paint(): void {
    const active = this.active;
    const roles = active ? this.around(active) : this.nearQuery();
    const compared = active?.patches ?? this.state.query;
    this.element.classList.toggle("focused", roles.size > 0);
    for (const id of this.visible.ids) {
      const item = this.items.get(id)!;
      const role = roles.get(id);
      item.place.className = ["node", grade(this.byId.get(id)!.relative, this.graph.threshold), role ?? ""].join(" ");
      item.button.setAttribute("aria-pressed", String(this.state.pinned === id));
      const outlines = role && role !== "active" && compared ? this.outlines(id, role, compared, active) : [];
      this.draw(id, outlines);
      item.badge.textContent = this.badge(id, role, active, compared);
    }
    this.lines.replaceChildren(this.lines.firstChild!, ...(active ? [this.edgesOf(active)] : []));
    this.looked(active);
  }

  // ---- nodes ---------------------------------------------------------------------------------------------

  private band(ids: readonly number[], top: number): HTMLElement {
    const kept = this.byId.get(ids[0]!)!.patches.length;
    const name = el("p", { class: "level" }, `${counted(kept, "patch", "patches")} kept`);
    name.style.top = `${top}px`;
    const list = el("ul", { "aria-label": `${counted(kept, "patch", "patches")} kept, ${counted(ids.length, "node")}` });
    for (const id of ids) list.append(this.item(id).place);
    return el("div", {}, name, list);
  }

  private item(id: number): Item {
    const item = this.items.get(id) ?? this.made(id);
    this.items.set(id, item);
    const { x, y } = this.layout.places.get(id)!;
    const side = this.layout.side;
    item.place.style.transform = `translate(${x}px, ${y}px)`;
    item.place.style.width = `${side}px`;
    const [H, W] = this.photo.size;
    item.picture.style.width = `${(side * W) / Math.max(H, W)}px`;
    item.picture.style.height = `${(side * H) / Math.max(H, W)}px`;
    item.button.setAttribute("aria-label", this.spoken(id));
    this.dressChip(id, item.chip);
    return item;
  }

  private made(id: number): Item {
    const node = this.byId.get(id)!;
    const kind = grade(node.relative, this.graph.threshold);
    const picture = el("canvas", {});
    const badge = el("span", { class: "badge", "aria-hidden": "true" });
    const score = el("span", { class: "score", "aria-hidden": "true" }, `${percent(node.relative)} ${MARKS[kind]}`);
    const button = el("button", {
      type: "button", "data-node": id, class: node.root ? "set root" : "set",
      onclick: () => this.click(id),
      onpointerenter: () => this.hover(id),
      onfocus: (event: FocusEvent) => this.focus(id, (event.target as HTMLElement).matches(":focus-visible")),
      onblur: () => this.focus(null, true),
    }, el("span", { class: "frame" }, picture), badge, score);
    const chip = el("button", { type: "button", class: "chip", onclick: () => this.fold(id) });
    return { place: el("li", { class: "node" }, button, chip), button, picture, badge, chip, drawn: "" };
  }

  private dressChip(id: number, chip: HTMLButtonElement): void {
    const folded = this.visible.folded.get(id)?.length ?? 0;
    const opened = this.state.opened.has(id);
    chip.hidden = !folded && !opened;
    chip.textContent = folded ? `+${folded}` : "fold";
    const what = `${folded} below ${percent(this.state.cut)}`;
    chip.setAttribute("aria-label", folded ? `+${folded}: show the folded children, ${what}` : "fold the children again");
  }

  private spoken(id: number): string {
    const node = this.byId.get(id)!;
    const folded = this.visible.folded.get(id)?.length ?? 0;
    return [
      node.root ? "Root" : "Node",
      `keeps ${percent(node.relative)} of the score, ${grade(node.relative, this.graph.threshold)}`,
      `${counted(node.patches.length, "patch", "patches")}: ${listed(node.patches.map((p) => this.photo.cells.name(p)), 6)}`,
      `${counted(this.links.parents.get(id)!.length, "parent")}, ${counted(this.links.children.get(id)!.length, "child", "children")}`,
      folded ? `${folded} folded` : "",
    ].filter(Boolean).join("; ");
  }

  private draw(id: number, outlines: Outline[]): void {
    const item = this.items.get(id)!;
    const asked = JSON.stringify([this.layout.side, outlines]);
    if (asked === item.drawn) return;
    item.drawn = asked;
    this.photo.draw(item.picture, this.byId.get(id)!.patches, this.layout.side, outlines);
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

  private badge(id: number, role: Role | undefined, active: GraphNode | null, compared: readonly number[] | null): string {
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
    const { side, places } = this.layout;
    const tall = (side * this.photo.size[0]) / Math.max(...this.photo.size);
    return edges
      .map(({ parent, child }) => {
        const [from, to] = [places.get(parent)!, places.get(child)!];
        const [x, y, toX, toY] = [from.x + side / 2, from.y + tall, to.x + side / 2, to.y].map(Math.round) as [number, number, number, number];
        const middle = Math.round((y + toY) / 2);
        return `M${x} ${y}C${x} ${middle} ${toX} ${middle} ${toX} ${toY}`;
      })
      .join("");
  }

  // ---- pointer and keys --------------------------------------------------------------------------------------

  private hover(id: number | null): void {
    if (id === this.hovered) return;
    this.hovered = id;
    this.paint();
  }

  private focus(id: number | null, byKey: boolean): void {
    if (id !== null) this.rove(id);
    const next = byKey ? id : null;
    if (next === this.focused) return;
    this.focused = next;
    this.paint();
  }

  private click(id: number): void {
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

  private fold(id: number): void {
    if (this.visible.folded.has(id)) this.state.opened.add(id);
    else this.state.opened.delete(id);
    this.changed();
    this.arrange();
    this.items.get(id)!.button.focus();
  }

  /** One node, and its chip, is what Tab reaches; arrows lead to the others. */
  private rove(id: number): void {
    this.current = id;
    for (const [other, { button, chip }] of this.items) button.tabIndex = chip.tabIndex = other === id ? 0 : -1;
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.step(event.key);
    if (step !== undefined) this.items.get(step)?.button.focus();
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
