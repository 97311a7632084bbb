// Owns the list of tasks: asked for every few seconds while the page is seen, filtered, walked with the keys.
// Must not know how one task is shown.

import { pageOf, tasksAddress } from "./address.js";
import { el, setText } from "./element.js";
import { ask, onLogin } from "./session.js";
import { ago, brokerNow, full, learnClock } from "./time.js";
import { count, stateName, stateTone } from "./words.js";

const EVERY_MS = 3000;
const SOON_MS = 300;
const EVERY_MS_MAX = 15_000;
const SHOWN_MAX = 500;

export class Tasks {
  #list = document.getElementById("tasks-list");
  #count = document.getElementById("tasks-count");
  #note = document.getElementById("tasks-note");
  #filter = document.getElementById("filter");
  #lead = document.getElementById("home-lead");
  #empty = document.getElementById("tasks-empty");
  #agent = document.getElementById("agent");
  #rows = new Map();
  #answer = null;
  #current = null;
  #learned = { task: null, state: null };
  #failures = 0;
  #timer = 0;
  #onWatchers;

  /**
   * @param {(task: string) => void} choose opens a task in this page.
   * @param {(allowed: boolean) => void} onWatchers learns whether who watches a task may be asked for.
   */
  constructor(choose, onWatchers) {
    this.#onWatchers = onWatchers;
    this.#filter.addEventListener("input", () => this.#draw());
    this.#filter.addEventListener("keydown", (event) => this.#keyInFilter(event));
    this.#list.addEventListener("keydown", (event) => this.#keyInList(event));
    this.#list.addEventListener("click", (event) => {
      const anchor = event.target.closest("a");
      if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, as with any link
      event.preventDefault();
      choose(anchor.dataset.task);
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    onLogin(() => this.refresh());
    this.refresh();
  }

  /** Mark which task is shown. */
  mark(task) {
    this.#current = task;
    this.#learned = { task: null, state: null }; // nobody watches it any more: the list knows better
    this.#draw();
  }

  focusFilter() {
    this.#filter.focus();
    this.#filter.select();
  }

  /** Take what is known of the task that is shown, and ask for the list in a moment. */
  learn(task, state) {
    this.#learned = { task, state };
    this.#draw();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), SOON_MS);
  }

  /** Ask for the list now, and then every few seconds. */
  async refresh() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    const sentAt = Date.now();
    try {
      const response = await ask(tasksAddress());
      const answer = await response.json();
      learnClock(Date.parse(answer.now), sentAt, Date.now());
      this.#failures = response.ok ? 0 : this.#failures + 1;
      if (response.ok) this.#answer = answer;
      if (response.ok) this.#onWatchers(answer.watchers === true);
      const refusal = answer.error?.message ?? `The broker answered ${response.status}.`;
      this.#say(response.ok ? this.#remark() : refusal);
    } catch {
      this.#failures += 1;
      this.#say("The broker does not answer. This list is as it was.");
    }
    this.#draw();
    clearTimeout(this.#timer);
    const pause = Math.min(EVERY_MS_MAX, EVERY_MS * 2 ** Math.min(this.#failures, 3));
    this.#timer = setTimeout(() => this.refresh(), pause);
  }

  #remark() {
    if (this.#answer.partial) return "NATS is away: these are the tasks known so far.";
    if (this.#answer.silent?.length) return "A worker did not answer: who watches at it is not counted.";
    return this.#answer.truncated ? "There are more tasks than are listed; any can be opened by its address." : "";
  }

  #say(text) {
    setText(this.#note, text);
    this.#note.hidden = !text;
  }

  #draw() {
    if (!this.#answer) return;
    const { tasks, agent, tenant } = this.#answer;
    setText(this.#agent, [tenant, agent].filter(Boolean).join(" / "));
    setText(this.#count, tasks.length ? tasks.length.toLocaleString("en") : "");
    this.#empty.hidden = tasks.length > 0;
    setText(
      this.#lead,
      tasks.length
        ? "Choose a task from the list. Its page stays connected, and misses nothing when the connection drops."
        : "This page stays connected, and misses nothing when the connection drops.",
    );
    const wanted = this.#filter.value.trim().toLowerCase();
    const found = tasks.filter(
      ({ task, state }) => task.toLowerCase().includes(wanted) || stateName(state).toLowerCase().includes(wanted),
    );
    const shown = found.slice(0, SHOWN_MAX);
    const names = new Set(shown.map(({ task }) => task));
    for (const [task, row] of this.#rows) {
      if (!names.has(task)) {
        row.element.remove();
        this.#rows.delete(task);
      }
    }
    const focused = document.activeElement;
    shown.forEach((told, index) => {
      const row = this.#rows.get(told.task) ?? new Row(told.task);
      this.#rows.set(told.task, row);
      const { task: learned, state } = this.#learned;
      row.draw(learned === told.task && state ? { ...told, state } : told, told.task === this.#current);
      const there = this.#list.children[index] ?? null;
      if (there !== row.element) this.#list.insertBefore(row.element, there);
    });
    // A row that moves in the page loses the focus.
    if (focused !== document.activeElement && this.#list.contains(focused)) focused.focus();
    if (wanted && !this.#failures) {
      const more = found.length > SHOWN_MAX ? `, the newest ${SHOWN_MAX} shown` : "";
      this.#say(`${count(found.length, "task")} found${more}`);
    } else if (!this.#failures) this.#say(this.#remark());
  }

  #keyInFilter(event) {
    if (event.key === "Escape" && this.#filter.value) {
      event.preventDefault();
      this.#filter.value = "";
      this.#draw();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      const first = this.#list.querySelector("a");
      if (event.key === "Enter") first?.click();
      else first?.focus();
    }
  }

  #keyInList(event) {
    const anchors = [...this.#list.querySelectorAll("a")];
    const at = anchors.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: anchors.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    if (to < 0) this.#filter.focus();
    else anchors[Math.min(to, anchors.length - 1)].focus();
  }
}

class Row {
  #dot = el("span", { class: "dot", "aria-hidden": "true" });
  #id = el("span", { class: "row-id" });
  #state = el("span", { class: "row-state" });
  #time = el("time", { class: "row-time figure" });
  #watchers = el("span", { class: "row-watchers" });
  #anchor = el("a", {}, this.#dot, this.#id, this.#state, this.#watchers, this.#time);
  element = el("li", {}, this.#anchor);

  constructor(task) {
    this.task = task;
    this.#anchor.dataset.task = task;
    this.#anchor.title = task;
    setText(this.#id, task);
  }

  draw({ state, updated_at: updatedAt, watchers }, current) {
    this.element.dataset.tone = stateTone(state);
    const address = pageOf(this.task);
    if (this.#anchor.getAttribute("href") !== address) this.#anchor.href = address;
    setText(this.#state, stateName(state));
    const at = Date.parse(updatedAt);
    setText(this.#time, ago(Math.max(0, brokerNow() - at)));
    this.#time.title = full(at);
    setText(this.#watchers, watchers ? `${watchers} watching` : "");
    if (current) this.#anchor.setAttribute("aria-current", "page");
    else this.#anchor.removeAttribute("aria-current");
  }
}
