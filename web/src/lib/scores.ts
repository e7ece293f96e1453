// Scores of a card as they are written on the page.
import type { Scored } from "./api";

/** Three digits, with a true minus; a score that could not be taken is a dash. */
export function number(value: number | null | undefined): string {
  if (value == null) return "–";
  const size = Math.abs(value);
  const digits = size >= 100 ? Math.round(size).toLocaleString("en-US") : size >= 0.01 || size === 0 ? `${Number(size.toPrecision(3))}` : size.toPrecision(2);
  return value < 0 ? `−${digits}` : digits;
}

/** A score with its interval. */
export const said = (one: Scored | undefined): string =>
  one?.low == null || one.high == null ? number(one?.found) : `${number(one.found)} [${number(one.low)}, ${number(one.high)}]`;

export const GROUPS: Record<string, string> = {
  reconstruction: "Reconstruction",
  activity: "Activity",
  faithfulness: "In the network",
  probing: "Probing",
  absorption: "Absorption",
  structure: "Structure",
  biases: "Biases",
};

export const BEST: Record<string, string> = {
  high: "Higher is better.",
  low: "Lower is better.",
  one: "1 is best.",
  none: "",
};
