// Numbers and tokens as they are written on the page.

export const integer = (value: number) => Math.round(value).toLocaleString("en-US");
export const score = (value: number | null | undefined) => (value == null ? "–" : value.toFixed(2));
export const figure = (value: number) => (value === 0 ? "0" : Math.abs(value) >= 100 ? integer(value) : value.toPrecision(3));

export function percent(share: number | null | undefined): string {
  if (share == null) return "–";
  const value = 100 * share;
  if (value === 0) return "0%";
  return `${value >= 99.95 || value >= 10 ? value.toFixed(1) : value.toPrecision(2)}%`.replace(/\.0%$/, "%");
}

/** "1 in 240": how often, for people. */
export const oneIn = (share: number) => (share > 0 ? `1 in ${integer(1 / share)}` : "never");

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const bytes = (value: number) => `${(value / 1e9).toFixed(1)} GB`;

export function date(iso: string): string {
  const when = new Date(iso);
  if (Number.isNaN(when.getTime())) return iso;
  return when.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

/** A token with its whitespace made visible, for use outside of running text. */
export const visible = (token: string) => token.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "·");

export const GROUPS: Record<string, string> = {
  top: "Strongest",
  q5: "Strongest fifth",
  q4: "Second fifth",
  q3: "Middle fifth",
  q2: "Fourth fifth",
  q1: "Weakest fifth",
};
