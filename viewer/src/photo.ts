// The photo with some of its patches in colour and the rest grey and dark, drawn without reading a pixel back.

import { gridCells, runCells, type Box, type Cells } from "./cells";
import type { Graph } from "./contract";
import { loaded } from "./dom";

export interface Outline {
  patch: number;
  width: number;
  dashed?: boolean;
}

/** What stands for the patches that are not kept: the photo, grey and dark, or nothing at all. */
export type Rest = "dimmed" | "hidden";

export class Photo {
  private readonly scratch: HTMLCanvasElement;
  private readonly rests: Record<Rest, HTMLCanvasElement>;

  constructor(
    private readonly colour: HTMLImageElement,
    readonly size: [number, number],
    readonly cells: Cells,
  ) {
    const [H, W] = size;
    this.scratch = canvas(W, H);
    this.rests = { dimmed: canvas(W, H), hidden: canvas(W, H) };
    const dimmed = this.rests.dimmed.getContext("2d")!;
    dimmed.drawImage(colour, 0, 0, W, H);
    dimmed.globalCompositeOperation = "saturation";
    fill(dimmed, "#808080");
    dimmed.globalCompositeOperation = "source-over";
    fill(dimmed, "rgb(0 0 0 / 50%)");
    fill(this.rests.hidden.getContext("2d")!, "#3a3a3a");
  }

  static async of(graph: Pick<Graph, "photo" | "size" | "grid" | "runs" | "units">): Promise<Photo> {
    const cells = graph.grid ? gridCells(graph.grid, graph.size) : runCells(graph.runs!, graph.units, graph.size);
    return new Photo(await loaded(graph.photo), graph.size, cells);
  }

  /** Fill a canvas `side` pixels of the page along its longer edge. */
  draw(
    onto: HTMLCanvasElement,
    patches: readonly number[],
    side: number,
    outlines: Outline[] = [],
    rest: Rest = "dimmed",
  ): void {
    const [H, W] = this.size;
    const scale = side / Math.max(H, W);
    const dense = Math.min(2, window.devicePixelRatio || 1);
    onto.width = Math.max(1, Math.round(W * scale * dense));
    onto.height = Math.max(1, Math.round(H * scale * dense));
    const context = onto.getContext("2d")!;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.composed(patches, rest), 0, 0, onto.width, onto.height);
    for (const outline of outlines) this.outline(context, outline, scale * dense, dense);
  }

  private composed(patches: readonly number[], rest: Rest): HTMLCanvasElement {
    const context = this.scratch.getContext("2d")!;
    const [H, W] = this.size;
    context.drawImage(this.rests[rest], 0, 0);
    if (!patches.length) return this.scratch;
    context.save();
    context.beginPath();
    const boxes = patches.flatMap((patch): Box[] => this.cells.boxes(patch));
    for (const box of boxes) context.rect(...box);
    context.clip();
    context.drawImage(this.colour, 0, 0, W, H);
    context.restore();
    return this.scratch;
  }

  /** A red line with a white one around it, so that it is seen on any photo. */
  private outline(
    context: CanvasRenderingContext2D,
    { patch, width, dashed }: Outline,
    scale: number,
    dense: number,
  ): void {
    context.save();
    context.beginPath();
    for (const [x, y, toX, toY] of this.cells.border(patch)) {
      context.moveTo(x * scale, y * scale);
      context.lineTo(toX * scale, toY * scale);
    }
    context.lineCap = "square";
    for (const [colour, thick] of [
      ["#fff", 2 * width],
      ["#d50000", width],
    ] as const) {
      if (dashed) context.setLineDash([3 * dense, 4 * dense]);
      context.strokeStyle = colour;
      context.lineWidth = thick * dense;
      context.stroke();
    }
    context.restore();
  }
}

function canvas(width: number, height: number): HTMLCanvasElement {
  const made = document.createElement("canvas");
  [made.width, made.height] = [width, height];
  return made;
}

function fill(context: CanvasRenderingContext2D, colour: string): void {
  context.fillStyle = colour;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}
