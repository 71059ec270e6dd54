// Where the patches of a photo lie: the cells of a grid, or segments of any shape.

export type Box = [x: number, y: number, width: number, height: number];
export type Line = [x: number, y: number, toX: number, toY: number];

export interface Cells {
  count: number;
  /** The patch under a pixel. */
  at(x: number, y: number): number;
  /** Boxes that together are the patch, in pixels of the frame. */
  boxes(patch: number): Box[];
  /** The border of the patch. */
  border(patch: number): Line[];
  /** A pixel well inside the patch. */
  middle(patch: number): [x: number, y: number];
  name(patch: number): string;
}

/** Pixel y of H belongs to row floor(y * rows / H), and so across. */
export function gridCells([rows, columns]: [number, number], [H, W]: [number, number]): Cells {
  const edge = (k: number, parts: number, length: number) => Math.ceil((k * length) / parts);
  const box = (patch: number): Box => {
    const [row, column] = [Math.floor(patch / columns), patch % columns];
    const [x, y] = [edge(column, columns, W), edge(row, rows, H)];
    return [x, y, edge(column + 1, columns, W) - x, edge(row + 1, rows, H) - y];
  };
  return {
    count: rows * columns,
    at: (x, y) => Math.floor((y * rows) / H) * columns + Math.floor((x * columns) / W),
    boxes: (patch) => [box(patch)],
    border: (patch) => {
      const [x, y, w, h] = box(patch);
      return [
        [x, y, x + w, y],
        [x + w, y, x + w, y + h],
        [x + w, y + h, x, y + h],
        [x, y + h, x, y],
      ];
    },
    middle: (patch) => {
      const [x, y, w, h] = box(patch);
      return [x + w / 2, y + h / 2];
    },
    name: (patch) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`,
  };
}

/** Segments from runs: a unit and for how many pixels it goes on, row by row. */
export function runCells(runs: readonly [number, number][], count: number, [H, W]: [number, number]): Cells {
  const unit = new Uint32Array(H * W);
  const held: Box[][] = Array.from({ length: count }, () => []);
  let start = 0;
  for (const [patch, length] of runs) {
    unit.fill(patch, start, start + length);
    for (let at = start; at < start + length;) {
      const row = Math.floor(at / W);
      const end = Math.min(start + length, (row + 1) * W);
      held[patch]!.push([at % W, row, end - at, 1]);
      at = end;
    }
    start += length;
  }
  const is = (patch: number, x: number, y: number) => x >= 0 && y >= 0 && x < W && y < H && unit[y * W + x] === patch;
  return {
    count,
    at: (x, y) => unit[Math.floor(y) * W + Math.floor(x)]!,
    boxes: (patch) => held[patch]!,
    border: (patch) => {
      const lines: Line[] = [];
      for (const [left, y, width] of held[patch]!) {
        for (let x = left; x < left + width; x++) {
          if (!is(patch, x, y - 1)) lines.push([x, y, x + 1, y]);
          if (!is(patch, x, y + 1)) lines.push([x, y + 1, x + 1, y + 1]);
        }
        if (!is(patch, left - 1, y)) lines.push([left, y, left, y + 1]);
        if (!is(patch, left + width, y)) lines.push([left + width, y, left + width, y + 1]);
      }
      return lines;
    },
    middle: (patch) => middle(held[patch]!),
    name: (patch) => `segment ${patch + 1}`,
  };
}

/** The middle of the row that lies nearest to the centre of mass; of none, the corner. */
function middle(boxes: readonly Box[]): [number, number] {
  const area = boxes.reduce((sum, [, , w, h]) => sum + w * h, 0);
  if (!area) return [0, 0];
  const centre = boxes.reduce((sum, [, y, w, h]) => sum + w * h * (y + h / 2), 0) / area;
  const cost = ([, y, w, h]: Box) => Math.abs(y + h / 2 - centre) - w / 1000;
  const [x, y, w, h] = boxes.reduce((best, box) => (cost(box) < cost(best) ? box : best));
  return [x + w / 2, y + h / 2];
}
