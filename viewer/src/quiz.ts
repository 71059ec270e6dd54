// The quiz: photos with parts hidden; does the model keep its answer? With a graph, with a map, with neither.

import { Board } from "./board";
import { el, given, help, isText } from "./dom";
import { Photo } from "./photo";
import { initial } from "./state";
import { course, keeps, table, tally, type Answer, type Question, type Quiz, type QuizPhoto } from "./trial";
import { counted, percent } from "./words";

const LARGE = 260;
const SMALL = 130;

/** Seconds that the page was in sight. */
class Clock {
  private held = 0;
  private since: number | null = performance.now();

  constructor() {
    document.addEventListener("visibilitychange", () => {
      this.held = this.milliseconds;
      this.since = document.hidden ? null : performance.now();
    });
  }

  private get milliseconds(): number {
    return this.held + (this.since === null ? 0 : performance.now() - this.since);
  }

  start(): void {
    [this.held, this.since] = [0, document.hidden ? null : performance.now()];
  }

  get seconds(): number {
    return this.milliseconds / 1000;
  }
}

const quiz = given<Quiz>("data");
const main = document.querySelector("main")!;
const clock = new Clock();
const photos = new Map<number, Photo>();

function show(...content: (HTMLElement | null)[]): void {
  main.replaceChildren(...content.filter((part) => part !== null));
  main.querySelector<HTMLElement>("h2")?.focus();
}

function heading(says: string): HTMLElement {
  return el("h2", { tabindex: -1 }, says);
}

function begin(): void {
  const count = quiz.photos.reduce((sum, photo) => sum + photo.questions.length, 0);
  const reader = el("input", { type: "number", name: "reader", min: 1, step: 1, value: 1, required: true });
  const form = el(
    "form",
    {
      onsubmit: (event: SubmitEvent) => {
        event.preventDefault();
        void ask(course(quiz, reader.valueAsNumber), reader.valueAsNumber, []);
      },
    },
    el("label", {}, "Reader number ", reader),
    " ",
    el("button", { type: "submit", class: "main" }, "Start"),
  );
  show(
    heading("Before you start"),
    el(
      "p",
      {},
      `You will see ${counted(count, "picture")} of ${counted(quiz.photos.length, "photo")}. Parts of each are hidden. ` +
        `Say whether the model still finds the class that it finds in the whole photo. It counts as kept where ` +
        `at least ${percent(quiz.keeps)} of the whole photo's score is left.`,
    ),
    el(
      "p",
      {},
      "Beside some pictures you get help: a graph of sets of patches with their scores, or a map. " +
        "Your time is measured while the page is in sight; there is no hurry. " +
        "Nothing leaves this page: at the end you save your answers as a file.",
    ),
    el("p", {}, "Each reader takes the next number; it decides the order and which photo comes with which help."),
    form,
  );
}

async function ask(questions: Question[], reader: number, answers: Answer[]): Promise<void> {
  const question = questions[answers.length];
  window.onbeforeunload = question && answers.length ? (event) => event.preventDefault() : null;
  if (!question) return end(reader, answers);
  const held = quiz.photos[question.photo]!;
  const photo = photos.get(question.photo) ?? (await Photo.of(held.graph));
  photos.set(question.photo, photo);
  let open = true;
  const answer = (says: boolean) => {
    if (!open) return;
    open = false;
    document.removeEventListener("keydown", key);
    void ask(questions, reader, [...answers, { ...question, says, seconds: clock.seconds }]);
  };
  const key = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isText(event.target)) return;
    if (event.key === "k") answer(true);
    if (event.key === "l") answer(false);
  };
  document.addEventListener("keydown", key);
  const name = held.graph.target.name;
  const { element, arrange } = aid(question, held, photo);
  show(
    heading(`Question ${answers.length + 1} of ${questions.length}`),
    el("progress", { max: questions.length, value: answers.length, "aria-label": "Questions answered" }),
    el(
      "div",
      { class: `question ${question.condition === "graph" ? "wide" : ""}` },
      el(
        "div",
        { class: "asked" },
        el(
          "p",
          {},
          "In the whole photo the model finds ",
          el("strong", {}, name),
          `, score ${held.graph.score_full.toPrecision(3)}. ` +
            `Of the picture below it sees only the patches in colour; the hidden ones are ${held.baseline}. ` +
            "Does it keep its answer?",
        ),
        el(
          "div",
          { class: "pictures" },
          figure(
            photo,
            question.patches,
            LARGE,
            `${counted(question.patches.length, "patch", "patches")} of ${held.graph.units} are left`,
          ),
          figure(
            photo,
            Array.from({ length: photo.cells.count }, (_, i) => i),
            SMALL,
            "The whole photo",
          ),
        ),
        el(
          "p",
          { class: "tools" },
          el(
            "button",
            { type: "button", class: "main", "data-says": "keeps", onclick: () => answer(true) },
            "It keeps it (K)",
          ),
          el(
            "button",
            { type: "button", class: "main", "data-says": "loses", onclick: () => answer(false) },
            "It loses it (L)",
          ),
        ),
      ),
      element,
    ),
  );
  arrange();
  main.dataset["question"] = String(answers.length + 1);
  clock.start();
}

function figure(photo: Photo, patches: number[], side: number, says: string): HTMLElement {
  const picture = el("canvas", { role: "img", "aria-label": says });
  photo.draw(picture, patches, side, [], "hidden");
  return el("figure", {}, picture, el("figcaption", {}, says));
}

/** What the reader is given beside the picture. */
function aid(question: Question, held: QuizPhoto, photo: Photo): { element: HTMLElement | null; arrange: () => void } {
  const nothing = () => undefined;
  if (question.condition === "none") return { element: null, arrange: nothing };
  if (question.condition !== "graph") {
    const says = `Map of the whole photo: ${question.condition}`;
    const picture = el("img", { src: held.maps[question.condition]!, alt: says });
    return { element: el("figure", { class: "map" }, picture, el("figcaption", {}, says)), arrange: nothing };
  }
  const state = { ...initial(held.graph), query: question.patches };
  const board = new Board(held.graph, photo, state, nothing, nothing);
  board.reveal(question.patches);
  const says = el(
    "p",
    { class: "soft" },
    "Sets of patches and the share of the score that each keeps. The sets nearest to your picture are " +
      "framed; red outlines the patches that differ, dashed where the set lacks one. " +
      "Point at a set, or use the arrow keys, to see its parents and children; + shows those folded away.",
  );
  return { element: el("div", { class: "aid" }, says, board.element), arrange: () => board.arrange() };
}

function end(reader: number, answers: Answer[]): void {
  const text = table(quiz, reader, answers);
  const link = el(
    "a",
    {
      class: "main",
      download: `whylens-quiz-${reader}.csv`,
      href: URL.createObjectURL(new Blob([text], { type: "text/csv" })),
    },
    "Save the answers (CSV)",
  );
  const rows = tally(quiz, answers)
    .filter((row) => row.count)
    .map((row) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, row.condition),
        ...[String(row.count), `${row.right}`, percent(row.right / row.count), row.seconds.toFixed(1)].map((cell) =>
          el("td", {}, cell),
        ),
      ),
    );
  const head = ["help", "answers", "right", "share right", "median seconds"].map((says) =>
    el("th", { scope: "col" }, says),
  );
  show(
    heading("Thank you"),
    el("p", {}, link, " ", el("button", { type: "button", onclick: begin }, "Next reader")),
    el(
      "div",
      { class: "scroll", tabindex: 0 },
      el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)),
    ),
    el("h3", {}, "Your answers"),
    el("ol", { class: "answers" }, ...answers.map(review)),
  );
  delete main.dataset["question"];
}

function review(answer: Answer, i: number): HTMLElement {
  const truth = keeps(quiz, answer);
  const says =
    `${i + 1}. ${answer.says === truth ? "Right" : "Wrong"}: ${percent(answer.relative)} is left, the model ` +
    `${truth ? "keeps" : "loses"} ${quiz.photos[answer.photo]!.graph.target.name}. ` +
    `Help: ${answer.condition}. ${answer.seconds.toFixed(1)} s.`;
  return el(
    "li",
    { class: answer.says === truth ? "right" : "wrong" },
    figure(photos.get(answer.photo)!, answer.patches, 120, says),
  );
}

const { button, dialog } = help("Keys", [
  ["K", "the model keeps its answer"],
  ["L", "it loses it"],
  ["Tab", "into the graph; arrows lead from set to set"],
  ["+ −", "in the graph: show or fold the children with low scores"],
  ["?", "these keys"],
]);
document.querySelector("header")!.append(button);
document.body.append(dialog);
begin();
main.dataset["ready"] = "1";
