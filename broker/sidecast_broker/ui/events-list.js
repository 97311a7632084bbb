// Owns the list of raw events: only the rows in sight are in the page, whatever their number.
// Must not know what events mean, beyond their one-line gist.

import { eventOfPage } from "./address.js";
import { el } from "./element.js";
import { EventDetail } from "./event-detail.js";
import { EventRows } from "./event-rows.js";
import { EventsBar } from "./events-bar.js";
import { clock, duration } from "./time.js";
import { gist } from "./words.js";

const ROW_PX = 26;
const AROUND = 6;

export class EventsList {
  #list = document.getElementById("events-list");
  #space = document.getElementById("events-space");
  #newest = document.getElementById("newest");
  #rows = new EventRows();
  #detail;
  #bar;
  #drawn = new Map();
  #chosen = null;
  #wanted = eventOfPage();
  #atEnd = true;
  #stale = true;
  #height = 0;
  #digits = 0;
  #abort = new AbortController();
  #resized = new ResizeObserver(([entry]) => {
    this.#height = entry.contentRect.height;
    this.#redraw();
  });

  /** @param {string} task names what is downloaded. */
  constructor(task) {
    const { signal } = this.#abort;
    this.#detail = new EventDetail(() => this.#close(), signal);
    this.#bar = new EventsBar(this.#rows, task, () => this.#narrowed(), signal);
    this.#list.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    this.#list.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.#list.addEventListener("click", (event) => this.#clicked(event), { signal });
    this.#newest.addEventListener("click", () => this.#toEnd(), { signal });
    this.#resized.observe(this.#list);
    this.#redraw();
  }

  /** @param {import("./event-rows.js").Row} row */
  add(row) {
    const gone = this.#rows.add(row);
    this.#stale = true;
    if (gone && !this.#atEnd) this.#list.scrollTop -= gone * ROW_PX;
    if (gone && !this.#rows.shown.includes(this.#chosen)) this.#chosen = null;
  }

  /** What was stored before has been taken in: show the event the page's address names, or say that it isn't there. */
  settle() {
    if (!this.#wanted) return;
    const row = this.#rows.shown.find(({ id }) => id === this.#wanted);
    if (row) this.#choose(row);
    else this.#detail.miss(this.#wanted);
  }

  /** Draw the rows in sight, if anything has changed. */
  draw() {
    if (!this.#stale) return;
    this.#stale = false;
    const total = this.#rows.shown.length;
    this.#bar.draw();
    this.#space.dataset.none = this.#rows.narrowed && !total ? "No event is like this" : "";
    this.#space.style.height = `${total * ROW_PX}px`;
    this.#newest.hidden = this.#atEnd;
    const inSight = Math.ceil(this.#height / ROW_PX);
    const top = this.#atEnd ? total - inSight : Math.floor(this.#list.scrollTop / ROW_PX);
    const first = Math.max(0, top - AROUND);
    const last = Math.min(total, top + inSight + AROUND);
    for (const [row, element] of this.#drawn) {
      const index = Number(element.dataset.index) - this.#rows.first;
      if (index < first || index >= last) {
        element.remove();
        this.#drawn.delete(row);
      }
    }
    for (let index = first; index < last; index += 1) this.#place(this.#rows.shown[index], index);
    this.#mark();
    if (this.#atEnd) this.#list.scrollTop = total * ROW_PX;
  }

  release() {
    this.#abort.abort();
    this.#resized.disconnect();
    for (const element of this.#drawn.values()) element.remove();
    this.#newest.hidden = true;
  }

  #place(row, index) {
    let element = this.#drawn.get(row);
    if (!element) {
      element = this.#make(row, index + this.#rows.first);
      this.#drawn.set(row, element);
      this.#space.append(element);
    }
    element.style.top = `${index * ROW_PX}px`;
    element.setAttribute("aria-setsize", String(this.#rows.shown.length + this.#rows.first));
  }

  #make(row, number) {
    row.gist ??= gist(JSON.parse(row.raw)).replace(/\s+/g, " ").slice(0, 160);
    const sequence = row.id.slice(row.id.lastIndexOf("-") + 1);
    if (sequence.length > this.#digits) {
      this.#digits = sequence.length;
      this.#list.parentElement.style.setProperty("--digits", `${Math.max(5, this.#digits)}ch`);
    }
    const delay = row.delay === null ? "" : duration(row.delay);
    const arrived = delay ? `arrived ${clock(row.arrivedAt)}` : "from the stream's history";
    return el(
      "div",
      { class: "event", role: "option", id: `event-${number}`, "data-index": number, "aria-posinset": number + 1 },
      el("span", { class: "event-id", text: sequence || "·", title: row.id || "not a position to resume from" }),
      el("span", { class: "event-type", "data-type": row.type, text: row.type.replace("task.", "") }),
      el("span", { class: "event-gist", text: row.gist }),
      el("span", { class: "event-delay", text: delay, title: arrived }),
    );
  }

  #mark() {
    for (const [row, each] of this.#drawn) each.setAttribute("aria-selected", String(row === this.#chosen));
    const element = this.#drawn.get(this.#chosen);
    if (element) this.#list.setAttribute("aria-activedescendant", element.id);
    else this.#list.removeAttribute("aria-activedescendant");
  }

  #redraw() {
    this.#stale = true;
    this.draw();
  }

  #narrowed() {
    for (const element of this.#drawn.values()) element.remove();
    this.#drawn.clear();
    this.#atEnd = true;
    const at = this.#rows.shown.indexOf(this.#chosen);
    if (at < 0) this.#choose(null);
    this.#reveal(at);
    this.#redraw();
  }

  #scrolled() {
    this.#atEnd = this.#rows.shown.length * ROW_PX - this.#list.scrollTop - this.#height < ROW_PX;
    this.#redraw();
  }

  #toEnd() {
    this.#atEnd = true;
    this.#redraw();
    this.#list.focus();
  }

  #close() {
    this.#choose(null);
    this.#list.focus();
  }

  #clicked(event) {
    const element = event.target.closest(".event");
    if (element) this.#choose(this.#rows.shown[Number(element.dataset.index) - this.#rows.first]);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#list.clientHeight / ROW_PX) - 1);
    const last = this.#rows.shown.length - 1;
    const inSight = this.#atEnd ? last + 1 : Math.floor(this.#list.scrollTop / ROW_PX) - 1;
    const at = this.#chosen ? this.#rows.shown.indexOf(this.#chosen) : inSight;
    const arrows = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page };
    const to = { ...arrows, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#choose(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#choose(this.#rows.shown[Math.min(last, Math.max(0, to))]);
  }

  /** Show one event whole, or none; the page's address names it. */
  #choose(row) {
    this.#chosen = row;
    this.#wanted = null;
    if (row) this.#detail.show(row);
    else this.#detail.hide();
    if (row) this.#reveal(this.#rows.shown.indexOf(row));
    this.#redraw();
  }

  #reveal(index) {
    if (index < 0) return;
    const top = index * ROW_PX;
    const { scrollTop, clientHeight } = this.#list;
    this.#atEnd &&= index > this.#rows.shown.length - clientHeight / ROW_PX;
    this.#space.style.height = `${this.#rows.shown.length * ROW_PX}px`;
    if (top < scrollTop) this.#list.scrollTop = top;
    else if (top + ROW_PX > scrollTop + clientHeight) this.#list.scrollTop = top + ROW_PX - clientHeight;
  }
}
