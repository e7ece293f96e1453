// A circuit as the page needs it: which units are shown, where places are drawn, how faithful so many units are.
import type { CircuitPage } from "./api";

/** How many of the units a slider's place from 0 to 1 means: as fine among the first ten as among the last thousand. */
export const countAt = (place: number, total: number) => (place <= 0 ? 0 : Math.round(total ** place));
export const placeOf = (count: number, total: number) => (count < 1 ? 0 : total > 1 ? Math.max(0.01, Math.log(count) / Math.log(total)) : 1);

/** A column of the curve at any number of units: along the line between the two that were measured. */
export function valueAt(counts: number[], column: (number | null)[], count: number): number | null {
  const after = counts.findIndex((one) => one >= count);
  if (after < 0) return column.at(-1) ?? null;
  const [a, b] = [column[Math.max(0, after - 1)], column[after]];
  if (counts[after] === count || after === 0) return b ?? null;
  if (a == null || b == null) return null;
  const part = (count - counts[after - 1]) / (counts[after] - counts[after - 1]);
  return a + part * (b - a);
}

export interface Spot {
  x: number;
  y: number;
}

export interface Drawing {
  width: number;
  height: number;
  spots: Spot[];
  rows: { name: string; y: number }[];
  columns: { name: string; x: number }[];
}

const [SIDE, EDGE, ROW] = [56, 26, 46];

/** Heads along x and the MLP after them, layers upwards; the embedding below all and the logits above. */
export function drawing(page: CircuitPage, room: number): Drawing {
  const first = Math.min(...page.places.map((one) => one.layer));
  const last = Math.max(...page.places.map((one) => one.layer));
  const step = Math.max(22, (room - SIDE - EDGE) / (page.heads + 1));
  const width = SIDE + EDGE + step * (page.heads + 1);
  const y = (layer: number) => EDGE + (last - layer) * ROW;
  const x = (head: number) => SIDE + (head < 0 ? page.heads + 0.5 : head + 0.5) * step;
  const alone = (layer: number) => layer < 0 || layer >= page.layers;
  const rows = Array.from({ length: last - first + 1 }, (_, i) => {
    const layer = first + i;
    return { name: layer < 0 ? "Input" : layer >= page.layers ? "Logits" : `${layer}`, y: y(layer) };
  });
  const heads = Array.from({ length: page.heads }, (_, head) => ({ name: `${head}`, x: x(head) }));
  return {
    width,
    height: EDGE * 2 + (last - first) * ROW + 14,
    spots: page.places.map(({ layer, head }) => ({ x: alone(layer) ? SIDE + (width - SIDE - EDGE) / 2 : x(head), y: y(layer) })),
    rows,
    columns: [...heads, { name: "MLP", x: x(-1) }],
  };
}

/** How a unit is called where there is room for words. */
export const said = (name: string) => name.replace("->", " → ").replace(/<q>/, ", queries").replace(/<k>/, ", keys").replace(/<v>/, ", values");

export const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;
