// Which components a list shows and in what order: a pure function of the address, so that j and k walk the same list everywhere.
import type { Columns, Found } from "./api";
import { searchToken, searchWords } from "./api";

export const SORTS = ["index", "explanation", "score", "density", "max", "peak"] as const;
export type Sort = (typeof SORTS)[number];

/** A brushed rectangle: densities and scores, from and to. */
export interface Box {
  density: [number, number];
  score: [number, number];
}

export interface View {
  sort: Sort | null;
  descending: boolean;
  words: string;
  token: string;
  box: Box | null;
}

export function viewOf(params: URLSearchParams): View {
  const sort = params.get("sort") as Sort;
  return {
    sort: SORTS.includes(sort) ? sort : null,
    descending: params.get("order") === "down",
    words: params.get("words") ?? "",
    token: params.get("token") ?? "",
    box: boxOf(params.get("box")),
  };
}

function boxOf(text: string | null): Box | null {
  const [a, b, c, d] = (text ?? "").split(",").map(Number);
  return [a, b, c, d].every(Number.isFinite) ? { density: [a, b], score: [c, d] } : null;
}

export const boxText = (box: Box) => [...box.density, ...box.score].map((x) => x.toPrecision(4)).join(",");

/** The answer of the search in this view, or null where it searches for nothing. */
export async function found(run: string, view: View): Promise<Found | null> {
  const [words, token] = await Promise.all([
    view.words.trim() ? searchWords(run, view.words.trim()) : null,
    view.token ? searchToken(run, view.token) : null,
  ]);
  if (!words || !token) return words ?? token;
  const both = new Set(token.components);
  const components = words.components.filter((index) => both.has(index));
  return { components, weight: components.map(() => 1), total: components.length };
}

/** The components of a view, in its order. Without a chosen order, a search keeps its own and the rest goes by score. */
export function listed(columns: Columns, view: View, search: Found | null, vocabulary: string[]): number[] {
  const all = search ? search.components : columns.density.map((_, index) => index);
  const shown = view.box ? all.filter((index) => inside(columns, index, view.box!)) : [...all];
  if (!view.sort && search) return shown;
  return shown.sort(comparison(columns, view.sort ?? "score", view.sort ? view.descending : true, vocabulary));
}

export function inside(columns: Columns, index: number, box: Box): boolean {
  const density = columns.density[index];
  const score = columns.score[index];
  const [low, high] = box.score;
  const scored = score === null || score === undefined ? low <= 0 : score >= low && score <= high;
  return density >= box.density[0] && density <= box.density[1] && scored;
}

/** Nothing (no score, no explanation) always comes last, whichever way the order goes. */
function comparison(columns: Columns, sort: Sort, descending: boolean, vocabulary: string[]) {
  const value = valueOf(columns, sort, vocabulary);
  const sign = descending ? -1 : 1;
  return (a: number, b: number): number => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
    const order = typeof x === "string" ? x.localeCompare(y as string) : x - (y as number);
    return order ? sign * order : a - b;
  };
}

function valueOf(columns: Columns, sort: Sort, vocabulary: string[]): (index: number) => number | string | null {
  if (sort === "index") return (index) => index;
  if (sort === "peak") return (index) => (columns.peak[index] == null ? null : vocabulary[columns.peak[index]!]);
  const column = columns[sort];
  return (index) => column[index] ?? null;
}
