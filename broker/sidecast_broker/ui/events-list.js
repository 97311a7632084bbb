// Owns the list of raw events: only the rows in sight are in the page, whatever their number.
// Must not know what events mean, beyond their one-line gist.

import { copy, el, setText } from "./element.js";
import { jsonView } from "./json.js";
import { clock, duration } from "./time.js";
import { count, gist } from "./words.js";

const ROW_PX = 26;
const AROUND = 6;
const KEPT_CHARS_MAX = 48_000_000;
const ROWS_MAX = 400_000;
const DETAIL_CHARS_MAX = 200_000;

/**
 * @typedef {{id: string, type: string, raw: string, arrivedAt: number, delay: number|null, gist?: string}} Row
 */

export class EventsList {
  #list = document.getElementById("events-list");
  #space = document.getElementById("events-space");
  #count = document.getElementById("events-count");
  #newest = document.getElementById("newest");
  #detail = document.getElementById("event-detail");
  /** @type {Row[]} */ #rows = [];
  #drawn = new Map();
  #chars = 0;
  #dropped = 0;
  #chosen = null;
  #atEnd = true;
  #stale = true;
  #height = 0;
  #abort = new AbortController();
  #resized = new ResizeObserver(([entry]) => {
    this.#height = entry.contentRect.height;
    this.#redraw();
  });

  constructor() {
    const { signal } = this.#abort;
    this.#list.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    this.#list.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.#list.addEventListener("click", (event) => this.#clicked(event), { signal });
    this.#newest.addEventListener("click", () => this.#toEnd(), { signal });
    const onEscape = (event) => event.key === "Escape" && this.#choose(null);
    this.#detail.addEventListener("keydown", onEscape, { signal });
    this.#resized.observe(this.#list);
    this.#choose(null);
  }

  /** @param {Row} row */
  add(row) {
    this.#rows.push(row);
    this.#chars += row.raw.length;
    this.#stale = true;
    if (this.#chars > KEPT_CHARS_MAX || this.#rows.length > ROWS_MAX) this.#forget();
  }

  /** Draw the rows in sight, if anything has changed. */
  draw() {
    if (!this.#stale) return;
    this.#stale = false;
    const total = this.#rows.length;
    setText(this.#count, total + this.#dropped ? (total + this.#dropped).toLocaleString("en") : "");
    this.#count.title = this.#dropped ? `the oldest ${this.#dropped.toLocaleString("en")} are not kept` : "";
    this.#space.style.height = `${total * ROW_PX}px`;
    this.#newest.hidden = this.#atEnd;
    const inSight = Math.ceil(this.#height / ROW_PX);
    const top = this.#atEnd ? total - inSight : Math.floor(this.#list.scrollTop / ROW_PX);
    const first = Math.max(0, top - AROUND);
    const last = Math.min(total, top + inSight + AROUND);
    for (const [row, element] of this.#drawn) {
      const index = Number(element.dataset.index) - this.#dropped;
      if (index < first || index >= last) {
        element.remove();
        this.#drawn.delete(row);
      }
    }
    for (let index = first; index < last; index += 1) this.#place(this.#rows[index], index);
    this.#mark();
    if (this.#atEnd) this.#list.scrollTop = total * ROW_PX;
  }

  release() {
    this.#abort.abort();
    this.#resized.disconnect();
    for (const element of this.#drawn.values()) element.remove();
    this.#newest.hidden = true;
    this.#detail.hidden = true;
    setText(this.#count, "");
  }

  #place(row, index) {
    let element = this.#drawn.get(row);
    if (!element) {
      element = this.#make(row, index + this.#dropped);
      this.#drawn.set(row, element);
      this.#space.append(element);
    }
    element.style.top = `${index * ROW_PX}px`;
    element.setAttribute("aria-setsize", String(this.#rows.length + this.#dropped));
  }

  #make(row, number) {
    row.gist ??= gist(JSON.parse(row.raw)).replace(/\s+/g, " ").slice(0, 160);
    const sequence = row.id.slice(row.id.lastIndexOf("-") + 1);
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

  #scrolled() {
    this.#atEnd = this.#rows.length * ROW_PX - this.#list.scrollTop - this.#height < ROW_PX;
    this.#redraw();
  }

  #toEnd() {
    this.#atEnd = true;
    this.#redraw();
    this.#list.focus();
  }

  #clicked(event) {
    const element = event.target.closest(".event");
    if (element) this.#choose(this.#rows[Number(element.dataset.index) - this.#dropped]);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#list.clientHeight / ROW_PX) - 1);
    const last = this.#rows.length - 1;
    const inSight = this.#atEnd ? last + 1 : Math.floor(this.#list.scrollTop / ROW_PX) - 1;
    const at = this.#chosen ? this.#rows.indexOf(this.#chosen) : inSight;
    const arrows = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page };
    const to = { ...arrows, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#choose(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#choose(this.#rows[Math.min(last, Math.max(0, to))]);
  }

  /** Show one event whole, or none. */
  #choose(row) {
    this.#chosen = row;
    this.#detail.hidden = row === null;
    if (row) {
      this.#detail.replaceChildren(...this.#describe(row));
      const top = this.#rows.indexOf(row) * ROW_PX;
      const { scrollTop, clientHeight } = this.#list;
      if (top < scrollTop) this.#list.scrollTop = top;
      else if (top + ROW_PX > scrollTop + clientHeight) this.#list.scrollTop = top + ROW_PX - clientHeight;
    }
    this.#redraw();
  }

  #describe(row) {
    const copying = el("button", { class: "quiet", type: "button", text: "Copy" });
    copying.addEventListener("click", () => copy(row.raw, copying));
    const closing = el("button", { class: "quiet", type: "button", text: "Close" });
    closing.addEventListener("click", () => {
      this.#choose(null);
      this.#list.focus();
    });
    const delay = row.delay === null ? "" : ` · ${duration(row.delay)} after it was published`;
    const facts = `${row.id || "no id"} · arrived ${clock(row.arrivedAt)}${delay}`;
    const head = el("div", { class: "event-head" }, el("strong", { text: row.type }), copying, closing);
    const long = row.raw.length > DETAIL_CHARS_MAX;
    const remark = `Too long to show (${count(row.raw.length, "character")}): copy it.`;
    const body = long ? el("p", { class: "note", text: remark }) : jsonView(JSON.parse(row.raw));
    return [head, el("p", { class: "note", text: facts }), body];
  }

  #forget() {
    const surplus = Math.ceil(this.#rows.length / 10);
    for (const row of this.#rows.splice(0, surplus)) this.#chars -= row.raw.length;
    this.#dropped += surplus;
    if (!this.#atEnd) this.#list.scrollTop -= surplus * ROW_PX;
    if (!this.#rows.includes(this.#chosen)) this.#chosen = null;
  }
}
