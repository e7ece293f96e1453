// Single keys, which do nothing while somebody types into a field.

export function keys(bindings: Record<string, () => void>): () => void {
  function press(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    const typing = target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !bindings[event.key]) return;
    event.preventDefault();
    bindings[event.key]();
  }
  addEventListener("keydown", press);
  return () => removeEventListener("keydown", press);
}
