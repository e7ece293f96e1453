// The server's answers, typed from its OpenAPI description. A refusal is an Error whose message is the server's sentence.
import type { components } from "../openapi";

type Schemas = components["schemas"];
export type RunList = Schemas["RunList"];
export type RunCard = Schemas["RunCard"];
export type RunPage = Schemas["RunPage"];
export type Curve = Schemas["Curve"];
export type Columns = Schemas["Components"];
export type ComponentCard = Schemas["ComponentCard"];
export type GraphPage = Schemas["GraphPage"];
export type GraphNode = Schemas["GraphNode"];
export type EffectGrid = Schemas["EffectGrid"];
export type CircuitPage = Schemas["CircuitPage"];
export type PartsPage = Schemas["PartsPage"];
export type PartCard = Schemas["PartCard"];
export type StudyPage = Schemas["StudyPage"];
export type DynamicsPage = Schemas["DynamicsPage"];
export type ComparePage = Schemas["ComparePage"];
export type ScoresPage = Schemas["ScoresPage"];
export type CardRow = Schemas["CardRow"];
export type Fact = Schemas["Fact"];
export type Scored = Schemas["Scored"];
export type Intervened = Schemas["Intervened"];
export type MovedNodes = Schemas["MovedNodes"];
export type Said = Schemas["Said"];
export type Shown = Schemas["Shown"];
export type Group = Schemas["Group"];
export type Logit = Schemas["Logit"];
export type Neighbour = Schemas["Neighbour"];
export type Found = Schemas["Found"];
export type Fired = Schemas["Fired"];
export type Summary = Schemas["Summary"];
export type SessionState = Schemas["SessionState"];

const kept = new Map<string, Promise<unknown>>();

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  const answer = await fetch(`api/${path}`, init).catch(() => {
    throw new Error("Microtome does not answer. Is it still running in the terminal?");
  });
  if (!answer.ok) throw new Error(await sentence(answer));
  return answer.json();
}

async function sentence(answer: Response): Promise<string> {
  const text = await answer.text();
  try {
    return JSON.parse(text).detail;
  } catch {
    return text || `The server answered ${answer.status}.`;
  }
}

/** Ask once, and keep the answer for as long as the page is open. A failure is not kept. */
function keep<T>(path: string): Promise<T> {
  if (!kept.has(path)) {
    const asked = ask<T>(path);
    kept.set(path, asked);
    asked.catch(() => kept.delete(path));
  }
  return kept.get(path) as Promise<T>;
}

const at = (run: string) => `runs/${encodeURIComponent(run)}`;

export const runs = () => ask<RunList>("runs");
export const run = (id: string) => ask<RunPage>(at(id));
export const session = (id: string) => ask<SessionState>(`${at(id)}/session`);
export const graph = (id: string) => ask<GraphPage>(`${at(id)}/graph`);
export const circuit = (id: string) => ask<CircuitPage>(`${at(id)}/circuit`);
export const effects = (id: string) => ask<EffectGrid>(`${at(id)}/patch`);
export const parts = (id: string) => ask<PartsPage>(`${at(id)}/parts`);
export const part = (id: string, part: number) => keep<PartCard>(`${at(id)}/parts/${part}`);
export const study = (id: string) => ask<StudyPage>(`${at(id)}/study`);
export const studyFile = (id: string) => `api/${at(id)}/page.html`;
export const dynamics = (id: string) => ask<DynamicsPage>(`${at(id)}/dynamics`);
export const card = (id: string) => ask<ScoresPage>(`${at(id)}/card`);
export const compare = (id: string) => ask<ComparePage>(`${at(id)}/compare`);
export const component = (id: string, index: number) => keep<ComponentCard>(`${at(id)}/components/${index}`);
export const columns = (page: RunPage) =>
  keep<Columns>(`${at(page.card.id)}/components?catalog=${page.catalog}&explained=${page.card.explained}`);
export const vocabulary = (page: RunPage) => keep<string[]>(`${at(page.card.id)}/vocabulary?catalog=${page.catalog}`);
export const searchWords = (id: string, words: string) =>
  keep<Found>(`${at(id)}/search/words?words=${encodeURIComponent(words)}`);
export const searchExample = (id: string, text: string) =>
  keep<Found>(`${at(id)}/search/example?text=${encodeURIComponent(text)}`);
export const searchToken = (id: string, token: string) =>
  keep<Found>(`${at(id)}/search/token?token=${encodeURIComponent(token)}`);

const post = <T>(path: string, body: unknown) =>
  ask<T>(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const fire = (id: string, text: string, component?: number) =>
  post<Fired>(`${at(id)}/fire`, { text, component: component ?? null });
export const intervene = (id: string, asked: Schemas["Intervention"]) => post<Intervened>(`${at(id)}/intervene`, asked);
export const graphFile = (id: string, groups: string, pinned: string) =>
  `api/${at(id)}/graph.json?${new URLSearchParams({ groups, pinned })}`;
