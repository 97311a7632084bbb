// Owns the events that have arrived and are not yet taken in: handed on in slices that fit into a frame.
// Must not know what they are.

const SLICE_MS = 8;
const HIDDEN_MS = 250;

export class Inbox {
  #items = [];
  #next = 0;
  #take;
  #done;
  #scheduled = false;
  #held = false;

  /**
   * @param {(item: any) => void} take is given each item, in order.
   * @param {() => void} done is called after each slice: the time to draw.
   */
  constructor(take, done) {
    this.#take = take;
    this.#done = done;
  }

  /** How many are not taken in yet. */
  get size() {
    return this.#items.length - this.#next;
  }

  put(item) {
    this.#items.push(item);
    this.#schedule();
  }

  /** Whether nothing is handed on for now. */
  get held() {
    return this.#held;
  }

  /** Hold everything back, or hand it on again. */
  hold(held) {
    this.#held = held;
    if (this.size) this.#schedule();
  }

  clear() {
    this.#items = [];
    this.#next = 0;
  }

  #schedule() {
    if (this.#scheduled || this.#held) return;
    this.#scheduled = true;
    // A hidden page gets no animation frames, and its title and state should still move.
    if (document.hidden) setTimeout(() => this.#slice(), HIDDEN_MS);
    else requestAnimationFrame(() => this.#slice());
  }

  #slice() {
    this.#scheduled = false;
    if (this.#held) return;
    const until = performance.now() + SLICE_MS;
    do {
      for (let count = 0; count < 50 && this.#next < this.#items.length; count += 1) {
        this.#take(this.#items[this.#next++]);
      }
    } while (this.#next < this.#items.length && performance.now() < until);
    if (this.#next === this.#items.length) this.clear();
    this.#done();
    if (this.size) this.#schedule();
  }
}
