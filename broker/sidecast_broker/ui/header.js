// Owns the head of a task's page: its name, state, progress and figures, the window's title, and what is
// announced. Must not know where any of it comes from.

import { announce } from "./announcer.js";
import { copy, el, setText } from "./element.js";
import { INTERRUPTED } from "./task.js";
import { brokerNow, duration, moment, ticking } from "./time.js";
import { percent, stateName, stateTone } from "./words.js";

const SIGNS = { completed: "✓", failed: "✕", rejected: "✕", canceled: "–" };
const PARTS = ["task-id", "state", "task-step", "task-text", "progress", "progress-bar", "facts", "share"];

export class Header {
  #parts = Object.fromEntries(PARTS.map((id) => [id, document.getElementById(id)]));
  #facts = new Map();
  #announced = null;
  #abort = new AbortController();

  constructor(id) {
    setText(this.#parts["task-id"], id);
    this.#parts["task-id"].title = id;
    this.#parts.facts.replaceChildren();
    const button = document.getElementById("copy-id");
    button.addEventListener("click", () => copy(id, button), { signal: this.#abort.signal });
  }

  /** Draw what is known of a task; `delays` are its delays. */
  draw(task, delays) {
    const { state } = this.#parts;
    state.dataset.tone = stateTone(task.state);
    setText(state, task.events ? stateName(task.state) : "No events yet");
    const step = task.terminal ? null : [...task.steps.values()].findLast((each) => each.state === "running");
    const text = task.text.split("\n", 1)[0];
    const title = step?.title || step?.id || "";
    setText(this.#parts["task-step"], title);
    setText(this.#parts["task-text"], text === title ? "" : text);
    this.#drawProgress(task);
    this.#fact("Context", task.contextId);
    const end = task.endedAt ?? Math.max(brokerNow(), task.lastAt ?? 0);
    const elapsed = task.startedAt === null ? NaN : end - task.startedAt;
    this.#fact("Began", task.startedAt === null ? "" : moment(task.startedAt));
    this.#fact("Elapsed", task.terminal || Number.isNaN(elapsed) ? "" : ticking(elapsed));
    this.#fact("Took", task.terminal ? duration(elapsed) : "");
    this.#fact("Events", task.events ? `${task.events.toLocaleString("en")}${task.joined ? ", joined" : ""}` : "");
    const [p50, p95] = delays.quantiles(0.5, 0.95) ?? [];
    this.#fact("Delay p50 / p95", p50 === undefined ? "" : `${duration(p50)} / ${duration(p95)}`);
    this.#announce(task);
    const share = task.progress === null ? "" : percent(task.progress);
    const sign = INTERRUPTED.has(task.state) ? "?" : (SIGNS[task.state] ?? share);
    document.title = `${sign} ${task.id} · Sidecast`.trim();
  }

  release() {
    this.#abort.abort();
    document.title = "Sidecast";
  }

  #drawProgress(task) {
    const { progress, "progress-bar": bar } = this.#parts;
    const done = task.state === "completed" ? 1 : task.progress;
    progress.dataset.tone = stateTone(task.state);
    progress.classList.toggle("unknown", done === null && task.state === "working");
    if (done === null) {
      progress.removeAttribute("aria-valuenow");
      progress.setAttribute("aria-valuetext", task.terminal ? "not known" : "under way");
    } else {
      progress.setAttribute("aria-valuenow", String(Math.round(done * 100)));
      progress.setAttribute("aria-valuetext", percent(done));
    }
    bar.style.transform = `scaleX(${done ?? 0})`;
    setText(this.#parts.share, done === null ? "" : percent(done));
  }

  #fact(name, value) {
    let fact = this.#facts.get(name);
    if (!fact) {
      fact = el("div", {}, el("dt", { text: name }), el("dd", { class: "figure" }));
      this.#facts.set(name, fact);
      this.#parts.facts.append(fact);
    }
    fact.hidden = !value;
    setText(fact.lastChild, value);
  }

  /** Say a new state, and nothing per event: what changes all the time is no announcement. */
  #announce(task) {
    if (!task.state || task.state === this.#announced) return;
    this.#announced = task.state;
    const more = INTERRUPTED.has(task.state) || task.terminal ? `. ${task.text}` : "";
    announce(`Task ${stateName(task.state).toLowerCase()}${more}`);
  }
}
