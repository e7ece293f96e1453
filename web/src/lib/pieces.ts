// A window of tokens as the page writes it: cropped around its peak, silent tokens run together.
import type { Shown } from "./api";

const BEFORE = 28;
const AFTER = 14;

export interface Piece {
  text: string;
  value: number;
  peak: boolean;
}

/** `before` and `after` say whether a line is cut there; `part`, whether anything is left out at all. */
export interface Crop {
  pieces: Piece[];
  before: boolean;
  after: boolean;
  part: boolean;
}

/** The window around its peak: from the start of a line near by to the end of one, or the whole of it. */
export function crop(shown: Shown, vocabulary: string[], whole: boolean): Crop {
  const texts = shown.tokens.map((id) => vocabulary[id] ?? "�");
  const values = new Map(shown.at.map((place, i) => [place, shown.values[i]]));
  const [from, to] = whole ? [0, texts.length] : bounds(texts, shown.position);
  const [before, after] = [from > 0 && !breaks(texts[from]), to < texts.length && !breaks(texts[to - 1])];
  const tokens = texts.slice(from, to).map((text, i) => ({
    text: trimmed(text, !whole && i === 0 && from < shown.position, !whole && from + i === to - 1 && to < texts.length),
    value: values.get(from + i) ?? 0,
    peak: from + i === shown.position,
  }));
  return { pieces: joined(tokens.filter((token) => token.text)), before, after, part: from > 0 || to < texts.length };
}

const breaks = (text: string) => text.includes("\n");

/** Two lines before the peak's own and one after, within BEFORE and AFTER tokens; no blank lines first. */
function bounds(texts: string[], peak: number): [number, number] {
  let from = peak;
  for (let lines = 0; from > Math.max(0, peak - BEFORE) && lines < 3; from--) if (breaks(texts[from - 1])) lines++;
  const start = texts.findIndex((text, place) => place >= from && place < peak && breaks(text));
  if (start > from && start - from < BEFORE / 2) from = start;
  while (from + 1 < peak && breaks(texts[from]) && breaks(texts[from + 1]) && !texts[from + 1].trim()) from++;
  let to = peak + 1;
  for (let lines = 0; to < Math.min(texts.length, peak + 1 + AFTER) && lines < 2; to++) if (breaks(texts[to])) lines++;
  return [from, to];
}

/** A first token that ends a line gives only the next line's indentation, a last one only the line's end. */
function trimmed(text: string, first: boolean, last: boolean): string {
  const line = text.lastIndexOf("\n") + 1;
  if (first) return text.slice(line);
  return last && line ? text.slice(0, line) : text;
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
