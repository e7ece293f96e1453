// An attribution graph as the page needs it: who has how much influence, what is left when it is cut down, where it is drawn.
//
// Influence flows from the targets back along each node's incoming links, by their share of the magnitude of its whole row.
// Ameisen et al. 2025, Circuit Tracing, appendices "Graph pruning" and "Evaluating attribution graphs".
import type { GraphNode, GraphPage } from "./api";

const EPSILON = 1e-9;

export interface Links {
  from: Int32Array;
  to: Int32Array;
  weight: Float64Array;
  share: Float64Array;
  /** The share of each node's row that was left out before the file was written. */
  dropped: Float64Array;
}

export interface Whole {
  page: GraphPage;
  nodes: GraphNode[];
  links: Links;
  /** What is read but not explained: errors, and components whose own sources were not worked out. */
  unexplained: boolean[];
  /** How much of each target's probability stands at it. */
  start: Float64Array;
  /** The share of all influence that a node and those with more have: 0 for tokens and targets, which always stay. */
  rank: Float64Array;
  /** The largest rank, in whole percent: a graph that was pruned before it was written holds no more. */
  most: number;
  /** For each node the links into it and out of it, the heaviest first. */
  into: number[][];
  out: number[][];
  place: Map<string, number>;
}

export interface Cut {
  nodes: boolean[];
  links: boolean[];
  nodeCount: number;
  linkCount: number;
  scores: Scores;
}

/** Shares from 0 to 1. `leftOut` is what of all that is read was dropped or cut, and so counts as error. */
export interface Scores {
  replacement: number;
  completeness: number;
  leftOut: number;
  /** The same two as circuit-tracer prints them, which counts tokens and errors as explained and forgets what was cut. */
  printed: { replacement: number; completeness: number };
}

export interface Group {
  name: string;
  nodes: number[];
}

export function whole(page: GraphPage): Whole {
  const { nodes } = page;
  const from = Int32Array.from(page.links.sources);
  const to = Int32Array.from(page.links.targets);
  const weight = Float64Array.from(page.links.weights);
  const row = Float64Array.from(nodes, (node) => node.dropped);
  weight.forEach((value, i) => (row[to[i]] += Math.abs(value)));
  const share = weight.map((value, i) => Math.abs(value) / row[to[i]]);
  const links = { from, to, weight, share, dropped: row.map((sum, i) => (sum ? nodes[i].dropped / sum : 0)) };
  const start = starts(nodes);
  const [into, out] = [lists(nodes.length, to, weight), lists(nodes.length, from, weight)];
  const place = new Map(nodes.map((node, i) => [node.id, i] as const).reverse());
  const rank = ranks(nodes, links, start);
  const most = Math.ceil(100 * rank.reduce((a, b) => Math.max(a, b), 0.01) - EPSILON) / 100;
  const unexplained = nodes.map((node) => node.kind === "error" || (node.kind === "feature" && !node.explored));
  return { page, nodes, links, unexplained, start, rank, most, into, out, place };
}

function starts(nodes: GraphNode[]): Float64Array {
  const chance = Float64Array.from(nodes, (node) => (node.kind === "target" ? Math.max(0, node.probability ?? 0) : 0));
  return chance.some(Boolean) ? chance : Float64Array.from(nodes, (node) => +(node.kind === "target"));
}

function lists(count: number, end: Int32Array, weight: Float64Array): number[][] {
  const found: number[][] = Array.from({ length: count }, () => []);
  end.forEach((node, link) => found[node].push(link));
  for (const links of found) links.sort((a, b) => Math.abs(weight[b]) - Math.abs(weight[a]));
  return found;
}

/** What arrives at each node when the start flows back along all paths; a path is no longer than there are nodes. */
export function influence({ from, to, share }: Pick<Links, "from" | "to" | "share">, start: Float64Array): Float64Array {
  const total = new Float64Array(start.length);
  let now = start;
  for (let step = 0; step < start.length && now.some((amount) => amount > 1e-12); step++) {
    const next = new Float64Array(start.length);
    for (let i = 0; i < from.length; i++) next[from[i]] += now[to[i]] * share[i];
    next.forEach((amount, node) => (total[node] += amount));
    now = next;
  }
  return total;
}

/** As the file says, which knows the graph before it was pruned; worked out from the links where it does not. */
function ranks(nodes: GraphNode[], links: Links, start: Float64Array): Float64Array {
  const rank = new Float64Array(nodes.length);
  if (nodes.every((node) => node.influence !== null || node.kind === "target")) return rank.map((_, i) => nodes[i].influence ?? 0);
  return cumulative(influence(links, start));
}

/** The share of the sum that an amount and all larger ones have. */
function cumulative(amounts: Float64Array): Float64Array {
  const order = [...amounts.keys()].sort((a, b) => amounts[b] - amounts[a]);
  const sum = amounts.reduce((a, b) => a + b, 0) || 1;
  const shares = new Float64Array(amounts.length);
  let so = 0;
  for (const i of order) shares[i] = (so += amounts[i]) / sum;
  return shares;
}

const fixed = (node: GraphNode) => node.kind === "token" || node.kind === "target";

/** The nodes, then the links among them, that carry these shares of the influence; then whatever hangs loose goes. */
export function cut(graph: Whole, nodeShare: number, linkShare: number): Cut {
  const { nodes, links, rank } = graph;
  const kept = nodes.map((node, i) => fixed(node) || nodeShare >= graph.most || rank[i] <= nodeShare + EPSILON);
  const left = strongest(graph, kept, linkShare);
  for (let loose = true; loose; ) {
    loose = false;
    const [fed, feeding] = [new Uint8Array(nodes.length), new Uint8Array(nodes.length)];
    left.forEach((on, i) => on && ((fed[links.to[i]] = 1), (feeding[links.from[i]] = 1)));
    nodes.forEach((node, i) => {
      if (!kept[i] || fixed(node) || (feeding[i] && (fed[i] || graph.unexplained[i]))) return;
      kept[i] = false;
      loose = true;
    });
    left.forEach((on, i) => (left[i] = on && kept[links.from[i]] && kept[links.to[i]]));
  }
  const counts = { nodeCount: kept.filter(Boolean).length, linkCount: left.filter(Boolean).length };
  return { nodes: kept, links: left, ...counts, scores: { ...scores(graph, left), printed: printed(graph, kept, left) } };
}

/** The fewest links among the kept nodes that carry this share of what flows along them. */
function strongest({ links, start }: Whole, kept: boolean[], linkShare: number): boolean[] {
  const left = Array.from(links.from, (from, i) => kept[from] && kept[links.to[i]]);
  if (linkShare >= 1) return left;
  const row = new Float64Array(kept.length);
  left.forEach((on, i) => on && (row[links.to[i]] += links.share[i]));
  const share = links.share.map((value, i) => (left[i] ? value / row[links.to[i]] : 0));
  const reached = influence({ ...links, share }, start);
  const carried = share.map((value, i) => value * (reached[links.to[i]] + start[links.to[i]]));
  const sum = carried.reduce((a, b) => a + b, 0);
  const order = [...carried.keys()].filter((i) => left[i]).sort((a, b) => carried[b] - carried[a]);
  let so = 0;
  for (const i of order) {
    left[i] = so < linkShare * sum;
    so += carried[i];
  }
  return left;
}

/** The paper's two scores of what is left: what was cut or dropped counts as error. */
function scores({ nodes, links, unexplained, start }: Whole, left: boolean[]): Omit<Scores, "printed"> {
  const share = links.share.map((value, i) => (left[i] ? value : 0));
  const cut = new Float64Array(nodes.length);
  const failed = new Float64Array(nodes.length);
  links.share.forEach((value, i) => {
    if (!left[i]) cut[links.to[i]] += value;
    else if (unexplained[links.from[i]]) failed[links.to[i]] += value;
  });
  const reached = influence({ ...links, share }, start);
  let [tokens, nowhere, reading, good, lost] = [0, 0, 0, 0, 0];
  nodes.forEach((node, i) => {
    if (node.kind === "token") tokens += reached[i];
    else if (unexplained[i]) nowhere += reached[i];
    else {
      const [amount, out] = [reached[i] + start[i], cut[i] + links.dropped[i]];
      reading += amount;
      good += amount * (1 - failed[i] - out);
      lost += amount * out;
    }
  });
  return { replacement: tokens / (tokens + nowhere + lost || 1), completeness: good / (reading || 1), leftOut: lost / (reading || 1) };
}

/** Both scores as circuit-tracer 0.5 computes them, from the links that are left alone. */
function printed({ nodes, links, unexplained, start }: Whole, kept: boolean[], left: boolean[]): Scores["printed"] {
  const there = nodes.map((node, i) => kept[i] && (node.kind === "error" || !unexplained[i]));
  const row = new Float64Array(nodes.length);
  const used = left.map((on, i) => on && there[links.from[i]]);
  used.forEach((on, i) => on && (row[links.to[i]] += Math.abs(links.weight[i])));
  const share = links.share.map((_, i) => (used[i] ? Math.abs(links.weight[i]) / row[links.to[i]] : 0));
  const reached = influence({ ...links, share }, start);
  const failed = new Float64Array(nodes.length);
  share.forEach((value, i) => nodes[links.from[i]].kind === "error" && (failed[links.to[i]] += value));
  let [tokens, errors, output, good] = [0, 0, 0, 0];
  nodes.forEach((node, i) => {
    if (!there[i]) return;
    if (node.kind === "token") tokens += reached[i];
    if (node.kind === "error") errors += reached[i];
    output += reached[i] + start[i];
    good += (reached[i] + start[i]) * (1 - failed[i]);
  });
  return { replacement: tokens / (tokens + errors || 1), completeness: good / (output || 1) };
}

export interface Ends {
  node: number;
  weight: number;
  links: number;
}

/** What goes into some nodes, or out of them, with links to one other node added up; the heaviest first. */
export function ends(graph: Whole, left: boolean[], members: number[], side: "into" | "out"): Ends[] {
  const found = new Map<number, Ends>();
  for (const member of members)
    for (const link of graph[side][member]) {
      const node = (side === "into" ? graph.links.from : graph.links.to)[link];
      if (!left[link] || members.includes(node)) continue;
      const before = found.get(node) ?? { node, weight: 0, links: 0 };
      found.set(node, { node, weight: before.weight + graph.links.weight[link], links: before.links + 1 });
    }
  return [...found.values()].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
}

/** What a node is called in lists. */
export function called(graph: Whole, place: number): string {
  const node = graph.nodes[place];
  if (node.kind === "token") return `Token ${quoted(graph.page.tokens[node.position])}`;
  if (node.kind === "error") return `Error of layer ${node.layer}`;
  if (node.label) return node.label;
  return node.kind === "target" ? `Target ${node.index ?? ""}` : `Component ${node.index ?? node.id}`;
}

export const quoted = (token: string) => `“${token.replace(/\n/g, "↵").replace(/\t/g, "⇥")}”`;

export function where(graph: Whole, place: number): string {
  const node = graph.nodes[place];
  const on = `position ${node.position}, ${quoted(graph.page.tokens[node.position])}`;
  if (node.kind === "feature") return `layer ${node.layer}, component ${node.index ?? "?"}, ${on}`;
  return node.kind === "error" ? `layer ${node.layer}, ${on}` : on;
}

// ---------------------------------------------------------------- the address

/** Groups as the address holds them: [["name", "id", …], …]. What names no node of this graph is passed over. */
export function groupsOf(graph: Whole, text: string | null): Group[] {
  if (text === null) return graph.page.supernodes.map(({ name, nodes }) => ({ name, nodes: placed(graph, nodes) }));
  try {
    const lists: unknown = JSON.parse(text);
    if (!Array.isArray(lists)) return [];
    return lists.filter(Array.isArray).map(([name, ...ids]) => ({ name: String(name), nodes: placed(graph, ids) }));
  } catch {
    return [];
  }
}

const placed = (graph: Whole, ids: string[]) => ids.flatMap((id) => graph.place.get(String(id)) ?? []);

export const groupsText = (graph: Whole, groups: Group[]) =>
  JSON.stringify(groups.map(({ name, nodes }) => [name, ...nodes.map((place) => graph.nodes[place].id)]));

/** What each changed node writes, as a multiple of what it wrote: 0 takes it away. */
export type Changes = Map<number, number>;

/** Changes as the address holds them: [["id", 0], …]. What names no node that could be changed is passed over. */
export function changesOf(graph: Whole, text: string | null): Changes {
  const found: Changes = new Map();
  try {
    const pairs: unknown = JSON.parse(text ?? "[]");
    for (const pair of Array.isArray(pairs) ? pairs : []) {
      const [id, times] = Array.isArray(pair) ? pair : [];
      const place = graph.place.get(String(id));
      if (place !== undefined && graph.nodes[place].kind !== "target" && Number.isFinite(times) && times !== 1) found.set(place, times);
    }
  } catch {
    return found;
  }
  return found;
}

export const changesText = (graph: Whole, changes: Changes) =>
  changes.size ? JSON.stringify([...changes].map(([place, times]) => [graph.nodes[place].id, times])) : null;

/** A share from the address, from 0 to 1. */
export function shareOf(text: string | null, otherwise: number): number {
  const value = Number(text ?? otherwise);
  return Number.isFinite(value) ? Math.min(1, Math.max(0, value)) : otherwise;
}

// ---------------------------------------------------------------- the drawing

export interface Layout {
  width: number;
  height: number;
  x: Float64Array;
  y: Float64Array;
  columns: { position: number; left: number; width: number }[];
  rows: { name: string; y: number }[];
}

const [SIDE, TOP, UNDER, DOT] = [52, 10, 84, 11];

/** Tokens along x, each as wide as its fullest cell asks; layers along y, the targets on top and the tokens below. */
export function layout(graph: Whole, kept: boolean[], room: number): Layout {
  const shown = graph.nodes.map((_, i) => i).filter((i) => kept[i]);
  const layers = [...new Set(shown.map((i) => graph.nodes[i]).filter((n) => !fixed(n)).map((n) => n.layer))].sort((a, b) => b - a);
  const names = ["Targets", ...layers.map((layer) => `Layer ${layer}`), "Tokens"];
  const row = (node: GraphNode) => (node.kind === "target" ? 0 : node.kind === "token" ? names.length - 1 : 1 + layers.indexOf(node.layer));
  const cells = new Map<string, number[]>();
  for (const i of shown) {
    const key = `${row(graph.nodes[i])} ${graph.nodes[i].position}`;
    cells.set(key, [...(cells.get(key) ?? []), i]);
  }
  const count = graph.page.tokens.length;
  const fullest = new Array(count).fill(0);
  for (const [key, members] of cells) fullest[+key.split(" ")[1]] = Math.max(fullest[+key.split(" ")[1]], members.length);
  const widths = widthsOf(fullest, room - SIDE);
  const lefts = widths.map((_, i) => SIDE + widths.slice(0, i).reduce((a, b) => a + b, 0));
  const across = widths.map((width) => Math.max(1, Math.floor((width - 4) / DOT)));
  const lines = names.map((_, r) => Math.max(1, ...[...cells].filter(([key]) => +key.split(" ")[0] === r).map(([key, m]) => Math.ceil(m.length / across[+key.split(" ")[1]]))));
  const spare = Math.min(44, Math.max(14, (520 - lines.reduce((a, b) => a + b * DOT, 0)) / names.length));
  const tops = lines.map((_, r) => TOP + lines.slice(0, r).reduce((a, b) => a + b * DOT + spare, 0));
  const [x, y] = [new Float64Array(graph.nodes.length), new Float64Array(graph.nodes.length)];
  for (const [key, members] of cells) {
    const [r, position] = key.split(" ").map(Number);
    members.sort((a, b) => graph.rank[a] - graph.rank[b]);
    members.forEach((node, i) => {
      const line = Math.floor(i / across[position]);
      const inLine = Math.min(across[position], members.length - line * across[position]);
      x[node] = lefts[position] + widths[position] / 2 + (i % across[position] - (inLine - 1) / 2) * DOT;
      y[node] = tops[r] + spare / 2 + (line + 0.5) * DOT;
    });
  }
  const bottom = tops.at(-1)! + lines.at(-1)! * DOT + spare;
  return {
    width: SIDE + widths.reduce((a, b) => a + b, 0),
    height: bottom + UNDER,
    x,
    y,
    columns: widths.map((width, position) => ({ position, left: lefts[position], width })),
    rows: names.map((name, r) => ({ name, y: tops[r] + spare / 2 + (lines[r] * DOT) / 2 })),
  };
}

/** Room shared by how full the columns are; wider than the room where columns would become narrower than a dot. */
function widthsOf(fullest: number[], room: number): number[] {
  const wanted = fullest.map((count) => 1 + Math.sqrt(count));
  const sum = wanted.reduce((a, b) => a + b, 0) || 1;
  return wanted.map((part) => Math.max(16, (part / sum) * room));
}
