// Owns the pane that shows one raw event whole: copied, linked to, named in the page's address, closed.
// Must not know the list it is chosen from.

import { linkTo, noteEvent } from "./address.js";
import { copy, el } from "./element.js";
import { jsonView } from "./json.js";
import { clock, duration } from "./time.js";
import { count } from "./words.js";

const SHOWN_CHARS_MAX = 200_000;
const NOTE_MS = 400; // browsers allow about three changes of the address a second

export class EventDetail {
  #pane = document.getElementById("event-detail");
  #close;
  #timer = 0;

  /**
   * @param {() => void} close is called when the reader is done with it.
   * @param {AbortSignal} signal ends the listening.
   */
  constructor(close, signal) {
    this.#close = close;
    this.#pane.addEventListener("keydown", (event) => event.key === "Escape" && close(), { signal });
    signal.addEventListener("abort", () => this.#leave());
    this.#pane.hidden = true;
  }

  /** Show an event. */
  show(row) {
    const delay = row.delay === null ? "" : ` · ${duration(row.delay)} after it was published`;
    const facts = `${row.id || "no id"} · arrived ${clock(row.arrivedAt)}${delay}`;
    const buttons = [this.#button("Copy JSON", (button) => copy(row.raw, button))];
    if (row.id) buttons.push(this.#button("Copy link", (button) => copy(linkTo(row.id), button)));
    const long = row.raw.length > SHOWN_CHARS_MAX;
    const remark = `Too long to show (${count(row.raw.length, "character")}): copy it.`;
    const body = long ? el("p", { class: "note", text: remark }) : jsonView(JSON.parse(row.raw));
    this.#note(row.id || null);
    this.#fill(row.type, buttons, el("p", { class: "note", text: facts }), body);
  }

  /** Say that the event an address names is not there. */
  miss(id) {
    const text = `${id} is not among the events the stream still holds, was joined with a later one, or has not come yet.`;
    this.#fill("No such event", [], el("p", { class: "note", text }));
  }

  hide() {
    this.#pane.hidden = true;
    this.#note(null);
  }

  #leave() {
    this.#pane.hidden = true;
    clearTimeout(this.#timer);
  }

  #note(id) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => noteEvent(id), NOTE_MS);
  }

  #fill(title, buttons, ...rest) {
    const closing = this.#button("Close", this.#close);
    this.#pane.replaceChildren(
      el("div", { class: "event-head" }, el("strong", { text: title }), ...buttons, closing),
      ...rest,
    );
    this.#pane.hidden = false;
  }

  #button(text, press) {
    const button = el("button", { class: "quiet", type: "button", text });
    button.addEventListener("click", () => press(button));
    return button;
  }
}
