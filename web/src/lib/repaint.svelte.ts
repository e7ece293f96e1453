// A number that goes up whenever the colours of the page change, for what is painted and not styled.

let times = $state(0);

export const repaint = {
  get times() {
    return times;
  },
};

/** Watch the system's theme and the one chosen here, until the returned function is called. */
export function watchColours(): () => void {
  const change = () => (times += 1);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(change);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  dark.addEventListener("change", change);
  return () => (observer.disconnect(), dark.removeEventListener("change", change));
}
