// Owns a plain text that grows: each piece costs what it adds, however long the text is.
// Must not know where the pieces come from.

import { el } from "./element.js";

const BLOCK_CHARS = 8192;

export class GrowingText {
  /** The element that shows it. */
  element = el("pre", { class: "plain", tabindex: "0" });
  #block = null;
  #blockChars = 0;

  /** Add a piece at the end. */
  add(text) {
    // The browser lays a block out anew whenever it grows, so the text is cut into blocks, at line ends.
    let rest = text;
    while (rest) {
      if (!this.#block) {
        this.#block = el("span", { class: "plain-block" });
        this.element.append(this.#block);
        this.#blockChars = 0;
      }
      const room = BLOCK_CHARS - this.#blockChars;
      const cut = rest.length > room ? rest.indexOf("\n", Math.max(0, room - 1)) + 1 : 0;
      const piece = cut > 0 ? rest.slice(0, cut) : rest;
      this.#block.append(document.createTextNode(piece));
      this.#blockChars += piece.length;
      rest = rest.slice(piece.length);
      if (this.#blockChars >= BLOCK_CHARS && piece.endsWith("\n")) {
        this.#block.normalize();
        this.#block = null;
      }
    }
  }

  /** Nothing is held back. */
  finish() {}
}
