// How strongly a token is shaded and underlined: two signs for one number, so that colour is never the only one.

export interface Shade {
  level: number;
  weight: number;
}

/** Level from 0.12 to 1 and underline from 1 to 3 pixels, relative to the component's maximum. */
export function shade(value: number, max: number): Shade {
  const share = Math.min(1, value / (max || 1));
  return { level: 0.12 + 0.88 * share, weight: share > 0.66 ? 3 : share > 0.33 ? 2 : 1 };
}
