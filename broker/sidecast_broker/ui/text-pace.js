// Owns how often growing text is laid out: a few times a second, and the less often the longer it is.
// Must not know what the text is, nor how it is shown.

const PAUSE_MS = 80;
const PAUSE_MS_PER_CHAR = 1 / 2000;

export class TextPace {
  #dueAt = 0;
  #timer = 0;

  /** Whether growing text may be drawn again. */
  get due() {
    return performance.now() >= this.#dueAt;
  }

  /**
   * Note that the text of artifacts was drawn.
   * @param {Iterable<import("./artifact.js").Artifact>} artifacts
   */
  drew(artifacts) {
    const sizes = [...artifacts].map((artifact) => (artifact.complete ? 0 : artifact.size));
    const longest = Math.max(0, ...sizes);
    this.#dueAt = performance.now() + PAUSE_MS + longest * PAUSE_MS_PER_CHAR;
  }

  /** Call `draw` when it is due, once for however many wait. */
  later(draw) {
    if (this.#timer) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = 0;
        draw();
      },
      Math.max(0, this.#dueAt - performance.now()) + 1,
    );
  }

  release() {
    clearTimeout(this.#timer);
  }
}
