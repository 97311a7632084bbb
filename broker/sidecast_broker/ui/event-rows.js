// Owns the events as they came, within a bound, and which of them are asked for: by kind, by text.
// Must not know how they are shown.

const KEPT_CHARS_MAX = 48_000_000;
const ROWS_MAX = 400_000;

/**
 * @typedef {{id: string, type: string, raw: string, arrivedAt: number, delay: number|null, gist?: string}} Row
 */

export class EventRows {
  /** @type {Row[]} */ #all = [];
  /** @type {Row[]} those asked for, oldest first. */ shown = this.#all;
  /** How many of those asked for are not kept any more: what comes first in `shown` has this number. */ first = 0;
  /** How many of all are not kept any more. */ forgotten = 0;
  #chars = 0;
  #matches = null;

  /** How many have come. */
  get total() {
    return this.#all.length + this.forgotten;
  }

  /** Whether only some are asked for. */
  get narrowed() {
    return this.#matches !== null;
  }

  /**
   * Add one; the oldest are forgotten where there are too many.
   * @param {Row} row
   * @returns {number} how many of those shown were forgotten.
   */
  add(row) {
    this.#all.push(row);
    this.#chars += row.raw.length;
    if (this.#matches?.(row)) this.shown.push(row);
    return this.#chars > KEPT_CHARS_MAX || this.#all.length > ROWS_MAX ? this.#forget() : 0;
  }

  /**
   * Ask for some only.
   * @param {string} kind the type without `task.`, `stream` for those about the connection, empty for all.
   * @param {string} words text they hold, whatever its case; empty for any.
   */
  narrow(kind, words) {
    const type = kind === "stream" ? "stream." : `task.${kind}`;
    const wanted = words.trim().toLowerCase();
    const matches = (row) =>
      (!kind || (kind === "stream" ? row.type.startsWith(type) : row.type === type)) &&
      (!wanted || row.id.endsWith(wanted) || row.raw.toLowerCase().includes(wanted));
    this.#matches = kind || wanted ? matches : null;
    this.shown = this.#matches ? this.#all.filter(matches) : this.#all;
    this.first = this.#matches ? 0 : this.forgotten;
  }

  #forget() {
    const gone = this.#all.splice(0, Math.ceil(this.#all.length / 10));
    for (const row of gone) this.#chars -= row.raw.length;
    this.forgotten += gone.length;
    const count = this.#matches ? gone.filter(this.#matches).length : gone.length;
    if (this.#matches) this.shown.splice(0, count);
    this.first += count;
    return count;
  }
}
