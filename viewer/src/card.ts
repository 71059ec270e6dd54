// One node as it stands on the board: picture, score, what it is to the node in hand, and the button of its children.

import type { GraphNode } from "./contract";
import { el } from "./dom";
import type { Place } from "./layout";
import type { Outline, Photo } from "./photo";
import { grade, MARKS, percent } from "./words";

export interface Hears {
  click(id: number): void;
  hover(id: number): void;
  focus(id: number | null, byKey: boolean): void;
  fold(id: number): void;
}

export class Card {
  readonly element: HTMLLIElement;
  private readonly button: HTMLButtonElement;
  private readonly picture = el("canvas", {});
  private readonly badge = el("span", { class: "badge", "aria-hidden": "true" });
  private readonly chip: HTMLButtonElement;
  /** What the picture shows, so that it is drawn again only when that changes. */
  private drawn = "";

  constructor(
    private readonly node: GraphNode,
    private readonly photo: Photo,
    private readonly threshold: number,
    hears: Hears,
  ) {
    const { id, root, relative } = node;
    const score = `${percent(relative)} ${MARKS[grade(relative, threshold)]}`;
    this.button = el(
      "button",
      {
        type: "button",
        class: root ? "set root" : "set",
        "data-node": id,
        onclick: () => hears.click(id),
        onpointerenter: () => hears.hover(id),
        onfocus: () => hears.focus(id, this.button.matches(":focus-visible")),
        onblur: () => hears.focus(null, true),
      },
      el("span", { class: "frame" }, this.picture),
      this.badge,
      el("span", { class: "score", "aria-hidden": "true" }, score),
    );
    this.chip = el("button", { type: "button", class: "chip", onclick: () => hears.fold(id) });
    this.element = el("li", { class: "node" }, this.button, this.chip);
  }

  place({ x, y }: Place, side: number): void {
    const [H, W] = this.photo.size;
    Object.assign(this.element.style, { transform: `translate(${x}px, ${y}px)`, width: `${side}px` });
    const [width, height] = [W, H].map((length) => `${(side * length) / Math.max(H, W)}px`);
    Object.assign(this.picture.style, { width, height });
  }

  /** What a screen reader says of it, and how many of its children are folded, by which cut. */
  say(text: string, folded: number, opened: boolean, cut: number): void {
    this.button.setAttribute("aria-label", folded ? `${text}; ${folded} folded` : text);
    this.chip.hidden = !folded && !opened;
    this.chip.textContent = folded ? `+${folded}` : "fold";
    const shows = `+${folded}: show the folded children, ${folded} below ${percent(cut)}`;
    this.chip.setAttribute("aria-label", folded ? shows : "fold the children again");
  }

  /** Its part in what is brought out, the patches in which it differs, and a word on its picture. */
  dress(role: string, pinned: boolean, badge: string, outlines: Outline[], side: number): void {
    this.element.className = `node ${grade(this.node.relative, this.threshold)} ${role}`;
    this.button.setAttribute("aria-pressed", String(pinned));
    this.badge.textContent = badge;
    const asked = JSON.stringify([side, outlines]);
    if (asked !== this.drawn) this.photo.draw(this.picture, this.node.patches, side, outlines);
    this.drawn = asked;
  }

  focus(): void {
    this.button.focus();
  }

  set reachable(is: boolean) {
    this.button.tabIndex = this.chip.tabIndex = is ? 0 : -1;
  }
}
