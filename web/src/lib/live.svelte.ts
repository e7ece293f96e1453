// Questions to the live model, and what the page says while it waits.
import * as api from "./api";
import type { Fired } from "./api";

export class Asking<T> {
  busy = $state(false);
  message = $state("");
  refused = $state(false);
  answer = $state.raw<T | null>(null);
  private asked = 0;

  async put(run: string, question: () => Promise<T>): Promise<void> {
    const turn = ++this.asked;
    const watch = setInterval(() => this.tell(run), 400);
    Object.assign(this, { busy: true, refused: false, message: "Asking the model…" });
    try {
      const answer = await question();
      if (turn === this.asked) Object.assign(this, { answer, message: "" });
    } catch (error) {
      if (turn === this.asked) Object.assign(this, { answer: null, refused: true, message: (error as Error).message });
    } finally {
      clearInterval(watch);
      if (turn === this.asked) this.busy = false;
    }
  }

  private async tell(run: string): Promise<void> {
    const session = await api.session(run).catch(() => null);
    if (this.busy && session?.state === "loading") this.message = "The model is being loaded. The first question takes a moment.";
  }
}

/** What fires on a text. */
export class Question extends Asking<Fired> {
  ask(run: string, text: string, component?: number): Promise<void> {
    return this.put(run, () => api.fire(run, text, component));
  }
}
