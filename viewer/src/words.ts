// What is said about sets and scores, in one spelling.

export type Grade = "holds" | "weakened" | "lost";

export const MARKS: Record<Grade, string> = { holds: "●", weakened: "◐", lost: "○" };

const HALF = 0.5;

/** A score as a share of the whole photo's: it holds above `threshold`, and is lost at a half or below. */
export function grade(relative: number, threshold: number): Grade {
  return relative > threshold ? "holds" : relative > HALF ? "weakened" : "lost";
}

/** Whole percent, rounded down so that 90 % is never said of what did not reach it; never 0 % of what is left. */
export function percent(share: number): string {
  return share > 0 && share < 0.01 ? "< 1 %" : `${Math.floor(100 * share + 1e-9)} %`;
}

/** What a score loses on the way to another one, in points of the whole photo's score. */
export function drop(from: number, to: number): string {
  const points = Math.round(100 * (to - from));
  return points < 0 ? `−${-points}` : points > 0 ? `+${points}` : "±0";
}

/** How thick the outline of a patch is that costs so much: up to 20 points, up to 60, more. */
export function weight(from: number, to: number): number {
  const lost = from - to;
  return lost < 0.2 ? 2 : lost < 0.6 ? 3.5 : 5;
}

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The first few of a list in words, and how many more there are. */
export function listed(names: readonly string[], most = 8): string {
  const rest = names.length - most;
  return rest > 0 ? `${names.slice(0, most).join("; ")}; and ${rest} more` : names.join("; ") || "nothing";
}
