// Owns the button that holds the page still while somebody reads, and what it says of the events that wait.
// Must not know what the events are.

import { announce } from "./announcer.js";
import { setText } from "./element.js";
import { count } from "./words.js";

const HELD_MAX = 50_000; // what waits is kept in memory

export class HoldButton {
  #button = document.getElementById("hold");
  #inbox;
  #abort = new AbortController();

  /** @param {import("./inbox.js").Inbox} inbox what is held. */
  constructor(inbox) {
    this.#inbox = inbox;
    this.#button.addEventListener("click", () => this.#toggle(), { signal: this.#abort.signal });
    this.draw(true);
  }

  /** Draw it; `over` where nothing more comes, so that nothing can be held. */
  draw(over) {
    const { held, size } = this.#inbox;
    if (held && size > HELD_MAX) {
      announce(`Not paused any more: ${count(size, "event")} were waiting`);
      this.#toggle();
      return;
    }
    this.#button.hidden = over && !held;
    this.#button.dataset.held = String(held);
    const waiting = size ? ` · ${size.toLocaleString("en")} new` : "";
    setText(this.#button, held ? `Continue${waiting}` : "Pause");
  }

  release() {
    this.#abort.abort();
    this.#button.hidden = true;
  }

  #toggle() {
    const held = !this.#inbox.held;
    this.#inbox.hold(held);
    announce(held ? "Paused: events are kept, and shown when you continue" : "Not paused any more");
    this.draw(false);
  }
}
