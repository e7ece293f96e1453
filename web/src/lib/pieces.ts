// A window of tokens as the page writes it: cropped around its peak, silent tokens run together.
import type { Shown } from "./api";

const BEFORE = 22;
const AFTER = 10;

export interface Piece {
  text: string;
  value: number;
  peak: boolean;
}

export interface Crop {
  pieces: Piece[];
  before: boolean;
  after: boolean;
}

export function crop(shown: Shown, vocabulary: string[], whole: boolean): Crop {
  const length = shown.tokens.length;
  const from = whole ? 0 : Math.max(0, shown.position - BEFORE);
  const to = whole ? length : Math.min(length, shown.position + AFTER + 1);
  const values = new Map(shown.at.map((place, i) => [place, shown.values[i]]));
  const tokens = shown.tokens.slice(from, to).map((id, i) => ({
    text: vocabulary[id] ?? "�",
    value: values.get(from + i) ?? 0,
    peak: from + i === shown.position,
  }));
  return { pieces: joined(tokens), before: from > 0, after: to < length };
}

/** Silent neighbours as one piece: fewer elements, and the text stays whole for a screen reader. */
export function joined(tokens: Piece[]): Piece[] {
  const pieces: Piece[] = [];
  for (const token of tokens) {
    const last = pieces.at(-1);
    if (last && !last.value && !last.peak && !token.value && !token.peak) last.text += token.text;
    else pieces.push({ ...token });
  }
  return pieces;
}
