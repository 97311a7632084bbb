// Owns the list of steps: each with its state, its duration, and its place in time.
// Must not know the timeline.

import { el, setText } from "./element.js";
import { brokerNow, duration, ticking } from "./time.js";

const MARKS = { running: "●", done: "✓", failed: "✕", skipped: "–" };
const NAMES = { running: "running", done: "done", failed: "failed", skipped: "skipped" };

export class Steps {
  #section = document.getElementById("steps");
  #list = document.getElementById("steps-list");
  #title = document.getElementById("steps-title");
  #rows = new Map();
  #inSight = null;

  constructor() {
    this.release();
  }

  /** Draw the steps of a task; called again every second while it works. */
  draw(task) {
    this.#section.hidden = task.steps.size === 0;
    const now = task.endedAt ?? Math.max(brokerNow(), task.lastAt ?? 0);
    const start = task.startedAt ?? now;
    const span = Math.max(1, now - start);
    for (const id of this.#rows.keys()) if (!task.steps.has(id)) this.#remove(id);
    let done = 0;
    for (const [id, step] of task.steps) {
      this.#row(id).draw(step, { start, span, now, over: task.endedAt !== null });
      done += step.state === "done" ? 1 : 0;
    }
    this.#keepInSight([...task.steps.values()].findLast((step) => step.state === "running"));
    const total = Math.max(task.steps.size, ...[...task.steps.values()].map((step) => Number(step.total) || 0));
    setText(this.#title, `Steps · ${done} of ${total} done`);
  }

  release() {
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#list.removeAttribute("tabindex");
    this.#section.hidden = true;
  }

  /** Scroll to a step that has begun to run, unless somebody is at the list. */
  #keepInSight(step) {
    if (!step || step.id === this.#inSight) return;
    this.#inSight = step.id;
    const list = this.#list;
    // Only a list that scrolls is a stop for the keyboard.
    if (list.scrollHeight > list.clientHeight) list.tabIndex = 0;
    if (list.matches(":hover, :focus-within")) return;
    const { offsetTop, offsetHeight } = this.#rows.get(step.id).element;
    list.scrollTop = offsetTop + offsetHeight * 2 - list.clientHeight;
  }

  #row(id) {
    let row = this.#rows.get(id);
    if (!row) {
      row = new Row();
      this.#rows.set(id, row);
      this.#list.append(row.element);
    }
    return row;
  }

  #remove(id) {
    this.#rows.get(id).element.remove();
    this.#rows.delete(id);
  }
}

class Row {
  #mark = el("span", { class: "step-mark", "aria-hidden": "true" });
  #title = el("span", { class: "step-title" });
  #bar = el("span", { class: "step-bar" });
  #time = el("span", { class: "step-time figure" });
  #spoken = el("span", { class: "sr" });
  element = el(
    "li",
    { class: "step" },
    this.#mark,
    this.#title,
    el("span", { class: "step-track", "aria-hidden": "true" }, this.#bar),
    this.#time,
    this.#spoken,
  );

  draw(step, { start, span, now, over }) {
    const stopped = step.state === "running" && over;
    const state = stopped ? "skipped" : step.state;
    this.element.dataset.state = state;
    setText(this.#mark, MARKS[state] ?? "○");
    setText(this.#title, step.title || step.id);
    setText(this.#spoken, stopped ? "not finished" : (NAMES[state] ?? state));
    const began = step.startedAt;
    const length = step.duration_ms >= 0 ? step.duration_ms : began ? (step.endedAt ?? now) - began : NaN;
    setText(this.#time, state === "running" ? ticking(length) : duration(length));
    const known = began !== undefined && Number.isFinite(length);
    const left = known ? Math.min(0.994, Math.max(0, (began - start) / span)) : 0;
    const width = known ? Math.min(1 - left, Math.max(0.006, length / span)) : 0;
    this.#bar.style.left = `${left * 100}%`;
    this.#bar.style.width = `${width * 100}%`;
  }
}
