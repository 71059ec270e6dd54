// The page of one graph.

import { Board } from "./board";
import type { Graph } from "./contract";
import { el, given, help, slider } from "./dom";
import { legend } from "./legend";
import { Panel } from "./panel";
import { Photo } from "./photo";
import { links } from "./sets";
import { read, written } from "./state";

const KEYS: [string, string][] = [
  ["↑ ↓", "the parent or the child with the best score"],
  ["← →", "the neighbour in the level; Home and End: its first and last"],
  ["Enter", "pin the node, or let it go"],
  ["+ −", "show or fold the children with low scores"],
  ["Esc", "let go of the pinned node, then of your own set"],
  ["Space", "on the large photo: switch a patch; arrows lead to the others"],
  ["?", "these keys"],
];

async function start(): Promise<void> {
  const graph = given<Graph>("data");
  const main = document.querySelector("main")!;
  const photo = await Photo.of(graph);
  const state = read(location.hash, graph);
  const keep = () => {
    // A document given in a frame's srcdoc has no address of its own.
    if (location.protocol !== "about:") history.replaceState(null, "", `#${written(state, graph)}`);
  };
  const choose = (query: number[] | null) => {
    [state.query, state.pinned] = [query, null];
    keep();
    board.paint();
  };
  const panel = new Panel(graph, links(graph), photo, state, choose, (id) => board.go(id), keep);
  const board = new Board(graph, photo, state, keep, (node) => panel.show(node));
  const { button, dialog } = help("Keys", KEYS);
  const controls = el(
    "div",
    { class: "controls" },
    slider("alike", "Similar from an overlap of", state.alike, (share) => {
      state.alike = share;
      keep();
      board.paint();
    }),
    slider("fold", "Fold children below", state.cut, (share) => {
      state.cut = share;
      keep();
      board.arrange();
    }),
    button,
  );
  main.append(
    el("div", { class: "sides" }, el("div", { class: "left" }, legend(graph), controls, board.element), panel.element),
    dialog,
  );
  board.arrange();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !dialog.open && state.query) choose(null);
  });
  window.addEventListener("hashchange", () => {
    Object.assign(state, read(location.hash, graph));
    board.arrange();
  });
  main.dataset["ready"] = "1";
}

void start();
