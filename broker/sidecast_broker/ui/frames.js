// Owns how what a stream sends becomes frames: batches are taken apart, and what is no place to go on from waits
// for the frame that is. Must not know connections, nor what frames mean.

/** @typedef {{frame: object, raw: string, id: string}} Arrival `id` is empty where nothing can go on from it. */

export class Frames {
  #lastEventId = "";
  #unsure = [];
  #joined = false;

  /**
   * Take what an EventSource was sent.
   * @param {string} raw its data.
   * @param {string} lastEventId as the EventSource tells it: where a frame has no id, that of an earlier one.
   * @returns {Arrival[]} what can be shown by now, oldest first.
   * @throws {SyntaxError} it is no JSON.
   */
  take(raw, lastEventId) {
    const frame = JSON.parse(raw);
    const known = lastEventId === this.#lastEventId;
    this.#lastEventId = lastEventId;
    if (frame.type === "task.batch") return [...this.#settled(), ...this.#batch(frame, raw, lastEventId)];
    if (!frame.type.startsWith("task.")) return [{ frame, raw, id: "" }];
    // What has been joined out of its order comes in several frames, of which the last alone has an id: whoever is
    // cut between them goes on behind the id before, and is sent all of them once more.
    if (known && !lastEventId.endsWith(`-${frame.seq}`)) {
      this.#unsure.push({ frame, raw, id: "" });
      return [];
    }
    return [...this.#settled(), { frame, raw, id: lastEventId }];
  }

  /** Begin with another response, where what waits is sent again; `joined`: a frame may stand for several events. */
  begin(joined) {
    this.#joined = joined;
    this.#lastEventId = "";
    this.#unsure = [];
  }

  #settled() {
    const settled = this.#unsure;
    this.#unsure = [];
    return settled;
  }

  #batch({ events }, raw, id) {
    const texts = elements(raw);
    const found = texts.length === events.length;
    const epoch = id.slice(0, id.lastIndexOf("-"));
    return events.map((frame, index) => {
      const last = index === events.length - 1;
      // In a batch that holds every event, a page can go on from each.
      const own = this.#joined ? "" : `${epoch}-${frame.seq}`;
      return { frame, raw: found ? texts[index] : JSON.stringify(frame), id: last ? id : own };
    });
  }
}

const OPENS = '"events":[';
const [QUOTE, BACKSLASH] = ['"', "\\"];

/** Give the texts of a batch's events as they were sent: numbers that JavaScript would round stay whole. */
function elements(raw) {
  const texts = [];
  const opened = raw.indexOf(OPENS); // within a string its quotes would be escaped
  if (opened < 0) return texts;
  let depth = 0;
  let began = 0;
  for (let at = opened + OPENS.length; at < raw.length; at += 1) {
    const letter = raw[at];
    if (letter === QUOTE) at = endOfString(raw, at);
    else if (letter === "{") {
      if (depth === 0) began = at;
      depth += 1;
    } else if (letter === "}") {
      depth -= 1;
      if (depth === 0) texts.push(raw.slice(began, at + 1));
      else if (depth < 0) break;
    }
  }
  return texts;
}

function endOfString(raw, began) {
  let at = began;
  for (;;) {
    at = raw.indexOf(QUOTE, at + 1);
    let escapes = 0;
    while (raw[at - 1 - escapes] === BACKSLASH) escapes += 1;
    if (escapes % 2 === 0) return at;
  }
}
