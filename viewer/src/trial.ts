// The course of a quiz: which picture comes when, with what help; and what the answers amount to.

import type { Graph } from "./contract";

export interface Quiz {
  seed: number;
  version: string;
  /** Share of the whole photo's score from which on the model counts as keeping its answer. */
  keeps: number;
  /** "none", "graph", or the name of a map. */
  conditions: string[];
  photos: QuizPhoto[];
}

export interface QuizPhoto {
  name: string;
  baseline: string;
  graph: Graph;
  maps: Record<string, string>;
  questions: { patches: number[]; relative: number }[];
}

export interface Question {
  photo: number;
  patches: number[];
  relative: number;
  condition: string;
}

export interface Answer extends Question {
  /** Whether the reader thinks that the model keeps its answer. */
  says: boolean;
  seconds: number;
}

/** Numbers in [0, 1), the same for the same words (mulberry32, started by FNV-1a). */
export function random(words: string): () => number {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(words)) state = Math.imul(state ^ byte, 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function shuffled<T>(values: readonly T[], draw: () => number): T[] {
  const mixed = [...values];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!];
  }
  return mixed;
}

/**
 * All questions in this reader's order. All pictures of one photo come with the same help, so that what was seen with
 * the graph is not remembered without it; over as many readers in a row as there are conditions, every photo has every
 * one of them once.
 */
export function course(quiz: Quiz, reader: number): Question[] {
  const photos = shuffled(
    quiz.photos.map((_, i) => i),
    random(`${quiz.seed}`),
  );
  const questions = photos.flatMap((photo, rank) => {
    const condition = quiz.conditions[(rank + reader) % quiz.conditions.length]!;
    return quiz.photos[photo]!.questions.map((question) => ({ ...question, photo, condition }));
  });
  return shuffled(questions, random(`${quiz.seed} ${reader}`));
}

export function keeps(quiz: Pick<Quiz, "keeps">, question: Pick<Question, "relative">): boolean {
  return question.relative >= quiz.keeps;
}

export interface Tally {
  condition: string;
  count: number;
  right: number;
  seconds: number;
}

/** By condition: how many answers, how many right, and the median of their seconds. */
export function tally(quiz: Pick<Quiz, "keeps" | "conditions">, answers: readonly Answer[]): Tally[] {
  return quiz.conditions.map((condition) => {
    const own = answers.filter((answer) => answer.condition === condition);
    const right = own.filter((answer) => answer.says === keeps(quiz, answer)).length;
    return { condition, count: own.length, right, seconds: median(own.map((answer) => answer.seconds)) };
  });
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  if (!sorted.length) return NaN;
  return sorted.length % 2 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const word = (kept: boolean) => (kept ? "keeps" : "loses");

/** The answers as CSV, a line each in the order they were given. */
export function table(quiz: Quiz, reader: number, answers: readonly Answer[]): string {
  const rows = answers.map((answer, i) => {
    const photo = quiz.photos[answer.photo]!;
    return {
      reader,
      question: i + 1,
      photo: photo.name,
      target: photo.graph.target.name,
      condition: answer.condition,
      patches: answer.patches.join(" "),
      units: photo.graph.units,
      relative: answer.relative.toFixed(6),
      keeps_from: quiz.keeps,
      truth: word(keeps(quiz, answer)),
      answer: word(answer.says),
      correct: answer.says === keeps(quiz, answer) ? 1 : 0,
      seconds: answer.seconds.toFixed(3),
      seed: quiz.seed,
      whylens: quiz.version,
    };
  });
  const lines = [Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row))];
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/** One cell: nothing that a spreadsheet takes for a formula, quoted where it must be. */
export function cell(value: string | number): string {
  const text = String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
