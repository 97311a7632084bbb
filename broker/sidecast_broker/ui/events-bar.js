// Owns what stands above the raw events: their number, the choice of some by kind or text, and their download.
// Must not know how rows are drawn.

import { save, setText } from "./element.js";

const SEARCH_MS = 120;

export class EventsBar {
  #count = document.getElementById("events-count");
  #kind = document.getElementById("events-kind");
  #words = document.getElementById("events-words");
  #rows;
  #narrowed;
  #timer = 0;

  /**
   * @param {import("./event-rows.js").EventRows} rows
   * @param {string} task names what is downloaded.
   * @param {() => void} narrowed is called when other rows are asked for.
   * @param {AbortSignal} signal ends the listening.
   */
  constructor(rows, task, narrowed, signal) {
    this.#rows = rows;
    this.#narrowed = narrowed;
    this.#kind.value = this.#words.value = "";
    this.#kind.addEventListener("change", () => this.#narrow(), { signal });
    this.#words.addEventListener("input", () => this.#narrowSoon(), { signal });
    document.getElementById("events-save").addEventListener("click", () => this.#download(task), { signal });
    signal.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  /** Draw the numbers. */
  draw() {
    const { shown, total, narrowed, forgotten } = this.#rows;
    const all = total ? total.toLocaleString("en") : "";
    setText(this.#count, narrowed ? `${shown.length.toLocaleString("en")} of ${all || 0}` : all);
    this.#count.title = forgotten ? `the oldest ${forgotten.toLocaleString("en")} are not kept` : "";
  }

  #narrowSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#narrow(), SEARCH_MS);
  }

  #narrow() {
    this.#rows.narrow(this.#kind.value, this.#words.value);
    this.#narrowed();
  }

  #download(task) {
    const lines = this.#rows.shown.map(({ raw }) => `${raw}\n`);
    save(new Blob(lines, { type: "application/x-ndjson" }), `${task}.ndjson`);
  }
}
