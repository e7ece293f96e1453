// A run with what every page of it needs: its columns and its vocabulary, where it has a catalogue.
import * as api from "./api";
import type { Columns, RunPage } from "./api";

export interface Loaded {
  page: RunPage;
  catalog: { columns: Columns; vocabulary: string[] } | null;
}

export async function load(id: string): Promise<Loaded> {
  const page = await api.run(id);
  if (!page.catalog) return { page, catalog: null };
  const [columns, vocabulary] = await Promise.all([api.columns(page), api.vocabulary(page)]);
  return { page, catalog: { columns, vocabulary } };
}
