// One small label that follows whatever carries data-tip, under the pointer or under the keyboard's focus.

export const tip = $state({ text: "", x: 0, y: 0 });

function show(event: Event): void {
  const target = (event.target as Element).closest?.<HTMLElement>("[data-tip]");
  if (!target) return hide();
  const box = target.getClientRects()[0] ?? target.getBoundingClientRect();
  Object.assign(tip, { text: target.dataset.tip, x: box.left + box.width / 2, y: box.top });
}

export function hide(): void {
  tip.text = "";
}

export function watchTips(): void {
  addEventListener("pointerover", show);
  addEventListener("focusin", show);
  // Later, because an element that is removed while it has the focus says so in the middle of Svelte's own update.
  // Where the focus has moved on to another label by then, that one stays.
  addEventListener("focusout", () => queueMicrotask(() => document.activeElement?.closest("[data-tip]") || hide()));
  addEventListener("scroll", hide, true);
}

/** Within `node`, the arrow keys move the focus from one [data-stop] to the next, and only one of them takes Tab. */
export function roving(node: HTMLElement) {
  function step(event: KeyboardEvent): void {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    const stops = [...node.querySelectorAll<HTMLElement>("[data-stop]")];
    const next = stops[stops.indexOf(document.activeElement as HTMLElement) + move];
    if (next) event.preventDefault();
    next?.focus();
  }
  node.addEventListener("keydown", step);
  return { destroy: () => node.removeEventListener("keydown", step) };
}
