// Which components a list shows and in what order: a pure function of the address, so that j and k walk the same list everywhere.
import type { Columns, Found } from "./api";
import { searchExample, searchToken, searchWords } from "./api";

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
  example: string;
  box: Box | null;
  lasso: Place[] | null;
}

/** A place on the map of directions. */
export type Place = [number, number];

export function viewOf(params: URLSearchParams): View {
  const sort = params.get("sort") as Sort;
  return {
    sort: SORTS.includes(sort) ? sort : null,
    descending: params.get("order") === "down",
    words: params.get("words") ?? "",
    token: params.get("token") ?? "",
    example: params.get("example") ?? "",
    box: boxOf(params.get("box")),
    lasso: lassoOf(params.get("lasso")),
  };
}

function boxOf(text: string | null): Box | null {
  const [a, b, c, d] = (text ?? "").split(",").map(Number);
  return [a, b, c, d].every(Number.isFinite) ? { density: [a, b], score: [c, d] } : null;
}

/** A closed line around part of the map, as "x,y,x,y,...": three places or more. */
function lassoOf(text: string | null): Place[] | null {
  const numbers = (text ?? "").split(",").map(Number);
  if (numbers.length < 6 || numbers.length % 2 || !numbers.every(Number.isFinite)) return null;
  return Array.from({ length: numbers.length / 2 }, (_, i) => [numbers[2 * i], numbers[2 * i + 1]]);
}

/** At most 80 places of a line, which is enough for any hand. */
export function lassoText(line: Place[]): string {
  const every = Math.ceil(line.length / 80);
  return line.filter((_, i) => i % every === 0).flat().map((x) => x.toPrecision(4)).join(",");
}

/** Whether a place lies inside a closed line: whether a ray from it crosses the line an odd number of times. */
export function enclosed([x, y]: Place, line: Place[]): boolean {
  let inside = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [[ax, ay], [bx, by]] = [line[i], line[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

export const boxText = (box: Box) => [...box.density, ...box.score].map((x) => x.toPrecision(4)).join(",");

/** The answer of the search in this view, or null where it searches for nothing. */
export async function found(run: string, view: View): Promise<Found | null> {
  const asked = await Promise.all([
    view.words.trim() ? searchWords(run, view.words.trim()) : null,
    view.token ? searchToken(run, view.token) : null,
    view.example.trim() ? searchExample(run, view.example) : null,
  ]);
  const answers = asked.filter((one) => one !== null);
  if (answers.length < 2) return answers[0] ?? null;
  const rest = answers.slice(1).map((one) => new Set(one.components));
  const components = answers[0].components.filter((index) => rest.every((some) => some.has(index)));
  return { components, weight: components.map(() => 1), total: components.length };
}

/** The components of a view, in its order. Without a chosen order, a search keeps its own and the rest goes by score. */
export function listed(columns: Columns, view: View, search: Found | null, vocabulary: string[]): number[] {
  const all = search ? search.components : columns.density.map((_, index) => index);
  const boxed = view.box ? all.filter((index) => inside(columns, index, view.box!)) : [...all];
  const shown = view.lasso ? boxed.filter((index) => within(columns, index, view.lasso!)) : boxed;
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

function within(columns: Columns, index: number, line: Place[]): boolean {
  const [x, y] = [columns.x[index], columns.y[index]];
  return x != null && y != null && enclosed([x, y], line);
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
