// What a page is given: the JSON of an attention graph, as whylens writes it.

export interface GraphNode {
  id: number;
  patches: number[];
  score: number;
  relative: number;
  root: boolean;
  expanded: boolean;
}

export interface Edge {
  parent: number;
  child: number;
  removed: number;
}

export interface Graph {
  photo: string;
  size: [number, number];
  grid: [number, number] | null;
  /** Row by row: a unit and for how many pixels it goes on; null where the units are a grid. */
  runs: [number, number][] | null;
  target: { index: number; name: string };
  model: string;
  score_full: number;
  threshold: number;
  expand: number;
  units: number;
  nodes: GraphNode[];
  edges: Edge[];
}
