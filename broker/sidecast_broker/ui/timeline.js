// Owns the list of entries: only the newest couple of hundred are in the page, with artifacts kept, and older ones
// on demand; it follows the end while the reader is there. Must not know what entries say.

import { EntryView } from "./entry.js";

const WINDOW = 200;
const WINDOW_READING = 2000;
const NEAR_END_PX = 120;
const WIDE = matchMedia("(min-width: 1180px)"); // as in layout.css: there the columns scroll, not the page
const TEXT_MS = 80;
const TEXT_MS_PER_CHAR = 1 / 2000;

export class Timeline {
  #list = document.getElementById("entries");
  #earlier = document.getElementById("earlier");
  #follow = document.getElementById("follow");
  #main = document.getElementById("main");
  #task;
  #views = new Map();
  #taken = 0;
  #hidden = 0;
  #window = WINDOW;
  #following = false;
  #reading = false;
  #textDueAt = 0;
  #textTimer = 0;
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
    // Of a burst, entries that would leave at once are never drawn.
    const surplus = Math.max(0, fresh.length - this.#window);
    fresh.forEach((entry, index) => {
      if (index >= surplus || entry.pinned) this.#append(entry);
      else this.#hidden += 1;
    });
    this.#trim();
    const textToo = performance.now() >= this.#textDueAt;
    let drewText = false;
    for (const entry of changed) {
      const view = this.#views.get(entry);
      if (!view) continue;
      view.draw(textToo);
      drewText ||= entry.kind === "artifact" && textToo;
      if (view.behind) this.#drawTextLater();
    }
    if (drewText) this.#textDueAt = performance.now() + this.#textPause();
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
    clearTimeout(this.#textTimer);
    for (const view of this.#views.values()) view.release();
    this.#earlier.hidden = this.#follow.hidden = true;
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

  /** Growing text is laid out a few times a second, and the less often the longer it is. */
  #textPause() {
    const growing = [...this.#task.artifacts.values()].filter((artifact) => !artifact.complete);
    const longest = Math.max(0, ...growing.map((artifact) => artifact.size));
    return TEXT_MS + longest * TEXT_MS_PER_CHAR;
  }

  #drawTextLater() {
    if (this.#textTimer) return;
    this.#textTimer = setTimeout(() => {
      this.#textTimer = 0;
      this.draw([...this.#views.keys()].filter((entry) => entry.kind === "artifact"));
    }, Math.max(0, this.#textDueAt - performance.now()) + 1);
  }

  #showEarlier() {
    const { entries } = this.#task;
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
