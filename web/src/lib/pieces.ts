// A window of tokens as the page writes it: cropped around its peak, silent tokens run together.
import type { Shown } from "./api";

const BEFORE = 28;
const AFTER = 14;

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

/** The window around its peak: from the start of a line near by to the end of one, or the whole of it. */
export function crop(shown: Shown, vocabulary: string[], whole: boolean): Crop {
  const texts = shown.tokens.map((id) => vocabulary[id] ?? "�");
  const values = new Map(shown.at.map((place, i) => [place, shown.values[i]]));
  const [from, to] = whole ? [0, texts.length] : bounds(texts, shown.position);
  const tokens = texts.slice(from, to).map((text, i) => ({
    text: i === 0 && !whole && from < shown.position ? lineStart(text) : text,
    value: values.get(from + i) ?? 0,
    peak: from + i === shown.position,
  }));
  return { pieces: joined(tokens.filter((token) => token.text)), before: from > 0, after: to < texts.length };
}

const breaks = (text: string) => text.includes("\n");

/** Two lines before the peak's own and one after, within BEFORE and AFTER tokens. */
function bounds(texts: string[], peak: number): [number, number] {
  const near = (place: number) => place >= Math.max(0, peak - BEFORE);
  let from = peak;
  for (let lines = 0; near(from - 1) && lines < 3; from--) if (breaks(texts[from - 1])) lines++;
  const start = texts.findIndex((text, place) => place >= from && place < peak && breaks(text));
  if (start > from && start - from < BEFORE / 2) from = start;
  let to = peak + 1;
  for (let lines = 0; to < Math.min(texts.length, peak + 1 + AFTER) && lines < 2; to++) if (breaks(texts[to])) lines++;
  return [from, to];
}

/** A first token that ends a line is shown from where the next begins: its indentation. */
const lineStart = (text: string) => text.slice(text.lastIndexOf("\n") + 1);

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
