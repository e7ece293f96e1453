// The address after # is the page's whole state: "#/run/ID/component/12?sort=score&words=comma".

/** Pages of one file each, named as the server names them. */
const KINDS = ["graph", "patch", "circuit", "parts", "study", "dynamics", "compare", "card"] as const;
export type Kind = (typeof KINDS)[number];
const isKind = (kind: string): kind is Kind => KINDS.includes(kind as Kind);

export interface Route {
  page: "runs" | "dictionary" | "component" | "text" | Kind | "nowhere";
  run: string;
  component: number;
  params: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const [first, run = "", kind, number] = path.split("/").map(decode);
  const params = new URLSearchParams(query ?? "");
  const route = { run, component: -1, params };
  if (!first) return { ...route, page: "runs" };
  if (first !== "run" || !run) return { ...route, page: "nowhere" };
  if (!kind) return { ...route, page: "dictionary" };
  if (kind === "text" || isKind(kind)) return { ...route, page: kind };
  if (kind === "component" && /^\d+$/.test(number ?? "")) return { ...route, page: "component", component: +number };
  return { ...route, page: "nowhere" };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

let hash = $state(location.hash);
const current = $derived(parse(hash));
addEventListener("hashchange", () => (hash = location.hash));

export const route = {
  get now() {
    return current;
  },
};

export function address(path: string, params?: URLSearchParams): string {
  const query = params?.toString();
  return query ? `#/${path}?${query}` : `#/${path}`;
}

export const dictionaryAt = (run: string, params?: URLSearchParams) => address(`run/${run}`, params);
export const componentAt = (run: string, index: number, params?: URLSearchParams) =>
  address(`run/${run}/component/${index}`, params);
export const kindAt = (kind: Kind, run: string) => address(`run/${run}/${kind}`);
export const textAt = (run: string, params?: URLSearchParams) => address(`run/${run}/text`, params);

/** Go somewhere, at once: the browser's own event comes too late for a second key press. */
export function go(to: string): void {
  location.hash = to;
  hash = location.hash;
}

/** Change the state without a new entry in the history: for typing, sorting and brushing. */
export function amend(changes: Record<string, string | null>): void {
  const params = new URLSearchParams(current.params);
  for (const [name, value] of Object.entries(changes)) value ? params.set(name, value) : params.delete(name);
  const path = hash.replace(/^#\/?/, "").split("?", 1)[0];
  history.replaceState(null, "", address(path, params));
  hash = location.hash;
}
