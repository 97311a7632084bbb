// Owns the list of who watches a task: for whom the broker lets see it, asked for while it is open and seen.
// Must not know how this page itself watches.

import { watchersAddress } from "./address.js";
import { el, setText } from "./element.js";
import { ask } from "./session.js";
import { duration } from "./time.js";
import { askedPace, count, doneAbout, servedName, servedTone } from "./words.js";

const EVERY_MS = 2000;

export class Watchers {
  #box = document.getElementById("watchers");
  #count = document.getElementById("watchers-count");
  #note = document.getElementById("watchers-note");
  #list = document.getElementById("watchers-list");
  #task = null;
  #allowed = false;
  #timer = 0;

  constructor() {
    this.#box.addEventListener("toggle", () => this.#refresh());
    document.addEventListener("visibilitychange", () => this.#refresh());
  }

  /** Show those of another task, or of none for null. */
  watch(task) {
    this.#task = task;
    this.#list.replaceChildren();
    setText(this.#count, "");
    setText(this.#note, "");
    this.#refresh();
  }

  /** Know whether the broker lets this be seen. */
  allow(allowed) {
    if (this.#allowed === allowed) return;
    this.#allowed = allowed;
    this.#box.hidden = !allowed;
    this.#refresh();
  }

  async #refresh() {
    clearTimeout(this.#timer);
    const task = this.#task;
    if (task === null || !this.#allowed || !this.#box.open || document.hidden) return;
    let answer = null;
    try {
      const response = await ask(watchersAddress(task));
      if (response.ok) answer = await response.json();
    } catch {
      // away: the list of tasks says so
    }
    if (task !== this.#task) return;
    if (answer) this.#draw(answer);
    else setText(this.#note, "The broker does not answer. This list is as it was.");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#refresh(), EVERY_MS);
  }

  #draw({ watching, streams, worker, silent }) {
    setText(this.#count, watching.toLocaleString("en"));
    const missing = silent.length ? `, but for ${count(silent.length, "worker")} that did not answer` : "";
    const whose = worker ? "of one of its workers: the others could not be asked" : `of this broker${missing}`;
    const some = watching > streams.length ? `, the ${streams.length} furthest behind` : "";
    setText(this.#note, `Streams of this task alone, ${whose}${some}.`);
    this.#list.replaceChildren(...streams.map(row));
  }
}

function row(stream) {
  const tone = stream.behind_events ? "attention" : servedTone(stream.served);
  const behind = stream.behind_events ? `${count(stream.behind_events, "event")} behind` : "";
  const late = stream.lag_s >= 1 ? `has taken nothing for ${duration(stream.lag_s * 1000)}` : "";
  const state = [behind, late, ...doneAbout(stream)].filter(Boolean).join(" · ");
  return el(
    "li",
    { "data-tone": tone },
    el("span", { class: "watcher-peer figure", text: stream.peer || "unknown", title: `open for ${duration(stream.open_s * 1000)}` }),
    el("span", { class: "watcher-served", text: servedName(stream.served) }),
    el("span", { class: "remark", text: `${stream.format} · ${askedPace(stream)}` }),
    state ? el("span", { class: "watcher-behind", text: state }) : null,
  );
}
