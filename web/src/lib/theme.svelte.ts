// Light, dark, or as the system says; remembered on this machine.

const CHOICES = ["auto", "light", "dark"] as const;
type Theme = (typeof CHOICES)[number];

let chosen = $state<Theme>(remembered());

function remembered(): Theme {
  const stored = localStorage.getItem("theme") as Theme;
  return CHOICES.includes(stored) ? stored : "auto";
}

export const theme = {
  get now() {
    return chosen;
  },
};

export function applyTheme(): void {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

export function nextTheme(): void {
  chosen = CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];
  localStorage.setItem("theme", chosen);
  applyTheme();
}
