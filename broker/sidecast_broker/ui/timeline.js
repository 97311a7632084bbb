// Owns the list of entries: only the newest couple of hundred are in the page, with artifacts kept, and older ones
// on demand; it follows the end while the reader is there. Must not know what entries say.

import { EntryView } from "./entry.js";
import { TextPace } from "./text-pace.js";

const WINDOW = 200;
const WINDOW_READING = 2000;
const NEAR_END_PX = 120;
const WIDE = matchMedia("(min-width: 1180px)"); // as in layout.css: there the columns scroll, not the page

export class Timeline {
  #list = document.getElementById("entries");
  #earlier = document.getElementById("earlier");
  #follow = document.getElementById("follow");
  #kind = document.getElementById("timeline-kind");
  #none = document.getElementById("timeline-none");
  #main = document.getElementById("main");
  #task;
  #views = new Map();
  #taken = 0;
  #hidden = 0;
  #window = WINDOW;
  #following = false;
  #reading = false;
  #kinds = null;
  #pace = new TextPace();
  #scrolledTo = 0;
  #abort = new AbortController();
  // Told by the browser after its own layout: asking for positions would force one more per frame.
  #atEnd = true;
  #seen = new IntersectionObserver(([entry]) => {
    this.#atEnd = entry.isIntersecting;
    this.#label();
  }, { rootMargin: `0px 0px ${NEAR_END_PX}px 0px` });
  #resized = new ResizeObserver(() => this.#following && this.#scrollToEnd());

  constructor(task) {
    this.#task = task;
    const { signal } = this.#abort;
    this.#list.replaceChildren();
    this.#earlier.addEventListener("click", () => this.#showEarlier(), { signal });
    this.#follow.addEventListener("click", () => this.#goToEnd(), { signal });
    this.#kind.value = "";
    this.#kind.addEventListener("change", () => this.#narrow(), { signal });
    for (const source of [this.#main, window]) {
      source.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    }
    this.#seen.observe(document.getElementById("entries-end"));
    this.#resized.observe(this.#list); // images get their size late
  }

  /** Draw what has come or changed. */
  draw(changed) {
    const task = this.#task;
    const isNew = task.entries.length + task.forgotten - this.#taken;
    const fresh = isNew > 0 ? task.entries.slice(-isNew) : [];
    this.#taken += isNew;
    this.#appendAll(fresh.filter((entry) => this.#isAskedFor(entry)));
    this.#trim();
    const textToo = this.#pace.due;
    let drewText = false;
    for (const entry of changed) {
      const view = this.#views.get(entry);
      if (!view) continue;
      view.draw(textToo);
      drewText ||= entry.kind === "artifact" && textToo;
      if (view.behind) this.#pace.later(() => this.draw(this.#artifacts()));
    }
    if (drewText) this.#pace.drew(task.artifacts.values());
    this.#label();
    if (this.#following) this.#scrollToEnd();
  }

  /** Follow the end from now on, as a task that is under way opens. */
  follow() {
    this.#following = true;
    this.#scrollToEnd();
  }

  release() {
    this.#abort.abort();
    this.#resized.disconnect();
    this.#seen.disconnect();
    this.#pace.release();
    this.#clear();
    this.#earlier.hidden = this.#follow.hidden = true;
  }

  #appendAll(entries) {
    // Of a burst, entries that would leave at once are never drawn.
    const surplus = Math.max(0, entries.length - this.#window);
    entries.forEach((entry, index) => {
      if (index >= surplus || entry.pinned) this.#append(entry);
      else this.#hidden += 1;
    });
  }

  #append(entry) {
    const view = new EntryView(entry, this.#task.startedAt);
    this.#views.set(entry, view);
    this.#list.append(view.element);
  }

  #trim() {
    const limit = this.#reading ? Math.max(this.#window, WINDOW_READING) : this.#window;
    let surplus = this.#views.size - limit;
    if (surplus <= 0) return;
    for (const [entry, view] of this.#views) {
      if (surplus <= 0) return;
      if (entry.pinned) continue;
      view.release();
      this.#views.delete(entry);
      this.#hidden += 1;
      surplus -= 1;
    }
  }

  #clear() {
    for (const view of this.#views.values()) view.release();
    this.#views.clear();
  }

  #artifacts() {
    return [...this.#views.keys()].filter((entry) => entry.kind === "artifact");
  }

  #isAskedFor(entry) {
    return this.#kinds === null || this.#kinds.has(entry.kind);
  }

  /** Show the entries of some kinds only, the newest of them first drawn. */
  #narrow() {
    this.#kinds = this.#kind.value ? new Set(this.#kind.value.split(" ")) : null;
    this.#clear();
    this.#hidden = 0;
    this.#window = WINDOW;
    this.#taken = this.#task.entries.length + this.#task.forgotten;
    this.#appendAll(this.#task.entries.filter((entry) => this.#isAskedFor(entry)));
    for (const view of this.#views.values()) view.draw();
    this.draw([]);
  }

  #showEarlier() {
    const entries = this.#task.entries.filter((entry) => this.#isAskedFor(entry));
    const oldest = [...this.#views.keys()].find((entry) => !entry.pinned);
    const stop = oldest ? entries.indexOf(oldest) : entries.length;
    const start = Math.max(0, stop - WINDOW);
    const scroller = this.#scroller();
    const before = scroller.scrollHeight - scroller.scrollTop;
    const views = new Map();
    let shown = 0;
    for (const entry of entries.slice(start, stop)) {
      const known = this.#views.get(entry);
      const view = known ?? new EntryView(entry, this.#task.startedAt);
      if (!known) {
        view.draw();
        shown += 1;
      }
      views.set(entry, view);
    }
    // Artifacts above the new beginning stay first.
    const above = [...this.#views].filter(([entry]) => entry.pinned && entries.indexOf(entry) < start);
    this.#views = new Map([...above, ...views, ...this.#views]);
    this.#list.replaceChildren(...[...this.#views.values()].map((view) => view.element));
    this.#hidden -= shown;
    this.#window = Math.max(this.#window, this.#views.size);
    this.#following = false;
    this.#label();
    scroller.scrollTop = scroller.scrollHeight - before;
  }

  #label() {
    const older = this.#hidden;
    this.#none.hidden = this.#kinds === null || this.#views.size > 0;
    this.#earlier.hidden = older <= 0;
    const text = `Show ${Math.min(WINDOW, older)} of ${older.toLocaleString("en")} earlier entries`;
    if (this.#earlier.textContent !== text) this.#earlier.textContent = text;
    this.#follow.hidden = this.#following || this.#task.terminal || this.#atEnd;
  }

  #scroller() {
    return WIDE.matches ? this.#main : document.scrollingElement;
  }

  #scrolled() {
    // Growth alone never moves the reader up: only the reader does.
    const { scrollTop } = this.#scroller();
    if (scrollTop < this.#scrolledTo - 2) this.#following = false;
    else if (this.#atEnd) this.#following = !this.#task.terminal;
    this.#reading = !this.#following && !this.#atEnd;
    this.#scrolledTo = scrollTop;
    this.#label();
  }

  #scrollToEnd() {
    const scroller = this.#scroller();
    scroller.scrollTop = scroller.scrollHeight;
  }

  #goToEnd() {
    this.#following = true;
    this.#scrollToEnd();
    this.#label();
  }
}
