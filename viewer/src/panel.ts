// Beside the graph: a large photo whose patches can be switched, and what the graph knows about that set.

import type { Graph, GraphNode } from "./contract";
import { el } from "./dom";
import type { Outline, Photo } from "./photo";
import { guess, nearest, toggled, type Links } from "./sets";
import type { State } from "./state";
import { counted, drop, grade, listed, MARKS, percent } from "./words";

const LARGE = 420;
const NEAREST = 5;
const LISTED = 6;

export class Panel {
  readonly element = el("aside", { class: "panel", "aria-label": "Patches" });
  private readonly picture = el("canvas", {});
  private readonly stage: HTMLElement;
  private readonly patches: HTMLButtonElement[];
  private readonly caption = el("p", { class: "caption", role: "status" });
  private readonly found = el("div", {});
  private readonly whole = el("input", { type: "checkbox", name: "whole" });
  private current = 0;
  private active: GraphNode | null = null;

  /** `choose` hears of a set that the reader made, `go` of a node that was asked for. */
  constructor(
    private readonly graph: Graph,
    private readonly links: Links,
    private readonly photo: Photo,
    private readonly state: State,
    private readonly choose: (query: number[] | null) => void,
    private readonly go: (id: number) => void,
    private readonly changed: () => void,
  ) {
    this.patches = Array.from({ length: photo.cells.count }, (_, patch) => this.patch(patch));
    const [H, W] = photo.size;
    this.stage = el(
      "div",
      { class: "stage", role: "group", "aria-label": "Patches of the photo" },
      this.picture,
      ...this.patches,
    );
    this.stage.style.aspectRatio = `${W} / ${H}`;
    this.stage.style.maxWidth = `${(LARGE * W) / Math.max(H, W)}px`;
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.picture.addEventListener("click", (event) => this.click(event));
    this.whole.checked = state.whole;
    this.whole.addEventListener("change", () => {
      state.whole = this.whole.checked;
      this.changed();
      this.show(this.active);
    });
    this.element.append(
      el("h2", {}, "Try a set"),
      el("p", { class: "soft" }, "Switch patches on and off to find the nearest sets that the model was asked about."),
      this.stage,
      this.caption,
      el(
        "p",
        { class: "tools" },
        this.tool("Keep none", () => this.choose([])),
        this.tool("Keep all", () => this.choose(this.patches.map((_, patch) => patch))),
        this.tool("Reset", () => this.choose(null)),
        el("label", {}, this.whole, " whole photo"),
      ),
      this.found,
    );
  }

  /** The set of the node in hand, or the reader's own. */
  show(active: GraphNode | null): void {
    this.active = active;
    const set = this.set;
    const outlines = this.state.whole ? set.map((patch): Outline => ({ patch, width: 2 })) : [];
    this.photo.draw(this.picture, this.state.whole ? this.patches.map((_, i) => i) : set, LARGE, outlines);
    const kept = new Set(set);
    this.patches.forEach((button, patch) => button.setAttribute("aria-pressed", String(kept.has(patch))));
    const of = counted(this.graph.units, "patch", "patches");
    this.caption.textContent = `${set.length} of ${of} kept. ${this.known(set)}`;
    this.found.replaceChildren(...(active ? this.facts(active) : this.neighbours(set)));
  }

  private get set(): readonly number[] {
    const start = this.graph.nodes.find((n) => n.root) ?? this.graph.nodes[0];
    return this.active?.patches ?? this.state.query ?? start?.patches ?? [];
  }

  private known(set: readonly number[]): string {
    const { nodes, threshold } = this.graph;
    if (!nodes.length) return "";
    const said = guess(nodes, set);
    if (said.distance) {
      const range = said.count > 1 ? ` (${percent(said.low)} to ${percent(said.high)})` : "";
      const from = said.count > 1 ? `${said.count} nearest sets` : "nearest set";
      const far = counted(said.distance, "patch differs", "patches differ");
      return `Not in the graph. A guess from the ${from}, ${far}: ${percent(said.mean)}${range}.`;
    }
    const kind = grade(said.mean, threshold);
    return `In the graph: keeps ${percent(said.mean)} of the score ${MARKS[kind]} ${kind}.`;
  }

  private neighbours(set: readonly number[]): HTMLElement[] {
    const rows = nearest(this.graph.nodes, set, NEAREST).map(({ node, distance }) => {
      const says = distance ? `${counted(distance, "patch differs", "patches differ")}` : "this set";
      return this.row(node.id, `${percent(node.relative)} ${MARKS[grade(node.relative, this.graph.threshold)]}`, says);
    });
    return [el("h3", {}, "Nearest sets"), el("ul", { class: "rows" }, ...rows)];
  }

  /** A node in words: what it keeps, and what each patch more or less does to the score, the largest loss first. */
  private facts(node: GraphNode): HTMLElement[] {
    const { cells } = this.photo;
    const byId = (id: number) => this.graph.nodes.find((n) => n.id === id)!;
    const less = [...this.links.children.get(node.id)!].reverse().map((e) => {
      const child = byId(e.child);
      return this.row(
        e.child,
        percent(child.relative),
        `without ${cells.name(e.removed)}: ${drop(node.relative, child.relative)}`,
      );
    });
    const more = this.links.parents.get(node.id)!.map((e) => {
      const parent = byId(e.parent);
      return this.row(
        e.parent,
        percent(parent.relative),
        `with ${cells.name(e.removed)}: ${drop(node.relative, parent.relative)}`,
      );
    });
    const open = !node.expanded && node.relative >= this.graph.expand && node.patches.length > 0;
    return [
      el("h3", {}, node.root ? "This root" : "This node"),
      el("p", {}, `Keeps ${listed(node.patches.map((p) => cells.name(p)))}. Score ${node.score.toPrecision(3)}.`),
      ...(open ? [el("p", { class: "soft" }, "Not taken further: the graph had reached its limit.")] : []),
      ...this.rows("One patch less", less),
      ...this.rows("One patch more", more),
    ];
  }

  private rows(title: string, rows: HTMLElement[]): HTMLElement[] {
    if (!rows.length) return [];
    const rest = rows.length - LISTED;
    const more = rest > 0 ? [el("p", { class: "soft" }, `and ${rest} more in the graph`)] : [];
    return [el("h3", {}, title), el("ul", { class: "rows" }, ...rows.slice(0, LISTED)), ...more];
  }

  private row(id: number, score: string, says: string): HTMLElement {
    const button = el("button", { type: "button", onclick: () => this.go(id) }, el("strong", {}, score), ` ${says}`);
    return el("li", {}, button);
  }

  private tool(says: string, does: () => void): HTMLElement {
    return el("button", { type: "button", onclick: does }, says);
  }

  // ---- the patches -----------------------------------------------------------------------------------------

  private patch(patch: number): HTMLButtonElement {
    const button = el("button", {
      type: "button",
      class: "patch",
      "data-patch": patch,
      tabindex: patch ? -1 : 0,
      "aria-label": this.photo.cells.name(patch),
      "aria-pressed": "false",
      onclick: () => this.toggle(patch),
      onfocus: () => this.rove(patch),
    });
    const [H, W] = this.photo.size;
    const [box] = this.photo.cells.boxes(patch);
    const [x, y] = this.photo.cells.middle(patch);
    const [left, top, width, height] = this.graph.grid && box ? box : [x - W / 40, y - H / 40, W / 20, H / 20];
    const share = (part: number, of: number) => `${(100 * part) / of}%`;
    Object.assign(button.style, {
      left: share(left, W),
      top: share(top, H),
      width: share(width, W),
      height: share(height, H),
    });
    return button;
  }

  private toggle(patch: number): void {
    this.choose(toggled(this.set, patch));
  }

  /** A click beside the small buttons of segments lands on the picture. */
  private click(event: MouseEvent): void {
    const [H, W] = this.photo.size;
    const [x, y] = [(event.offsetX / this.picture.clientWidth) * W, (event.offsetY / this.picture.clientHeight) * H];
    this.toggle(this.photo.cells.at(Math.min(x, W - 1), Math.min(y, H - 1)));
  }

  private rove(patch: number): void {
    this.patches[this.current]!.tabIndex = -1;
    this.patches[(this.current = patch)]!.tabIndex = 0;
  }

  private key(event: KeyboardEvent): void {
    const columns = this.graph.grid?.[1] ?? 1;
    const step = { ArrowUp: -columns, ArrowDown: columns, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = this.patches[this.current + (step ?? 0)];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    next?.focus();
    event.preventDefault();
  }
}
