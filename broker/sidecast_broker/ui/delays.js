// Owns the delays from publish to arrival: the last few hundred, and what is usual among them.
// Must not know events.

const KEPT = 500;

export class Delays {
  #ring = [];
  #next = 0;
  /** How many were ever taken. */
  count = 0;

  /** Take one, in ms. */
  take(ms) {
    this.#ring[this.#next] = ms;
    this.#next = (this.#next + 1) % KEPT;
    this.count += 1;
  }

  /** Give the delays below which those shares of the last ones lie, or null while there are none. */
  quantiles(...shares) {
    if (!this.#ring.length) return null;
    const sorted = [...this.#ring].sort((a, b) => a - b);
    return shares.map((share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
  }

  /** Give the last ones, oldest first. */
  recent(count) {
    const full = this.#ring.length === KEPT;
    const ordered = full ? [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)] : this.#ring;
    return ordered.slice(-count);
  }
}
