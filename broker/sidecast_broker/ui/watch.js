// Owns one task while it is watched: its connection, what the events add up to, and the views of that.
// Must not know the list of tasks, nor addresses.

import { Connection } from "./connection.js";
import { ConnectionCard } from "./connection-card.js";
import { Delays } from "./delays.js";
import { el } from "./element.js";
import { EventsList } from "./events-list.js";
import { Header } from "./header.js";
import { HoldButton } from "./hold-button.js";
import { Inbox } from "./inbox.js";
import { joins } from "./pace.js";
import { Steps } from "./steps.js";
import { Task } from "./task.js";
import { brokerNow } from "./time.js";
import { Timeline } from "./timeline.js";

const TICK_MS = 250;
const SETTLED_MS = 400;
const BACKLOG = 200;
const BACKLOG_MS = 1000;

export class Watch {
  #task;
  #connection;
  #card;
  #header;
  #steps = new Steps();
  #timeline;
  #hold;
  #events;
  #delays = new Delays();
  #inbox = new Inbox(
    (item) => this.#take(item),
    () => this.#draw(),
  );
  #ticker = 0;
  #openedAt = Infinity;
  #resumedEntry = null;
  #settled = false;
  #drawnAt = 0;
  #heardAt = Date.now();
  #waiting = document.getElementById("waiting");

  #state = null;
  #onState;

  /**
   * @param {string} id the task to watch.
   * @param {import("./pace.js").Pace} pace at which to begin.
   * @param {(state: string|null) => void} onState is called when the task's state has changed.
   * @param {(pace: import("./pace.js").Pace) => void} onPace is called when another pace was chosen.
   */
  constructor(id, pace, onState, onPace) {
    this.#onState = onState;
    this.#task = new Task(id);
    this.#task.joined = joins(pace);
    this.#header = new Header(id);
    this.#timeline = new Timeline(this.#task);
    this.#events = new EventsList(id);
    this.#hold = new HoldButton(this.#inbox);
    this.#connection = new Connection(
      id,
      pace,
      (frame, raw, eventId, arrivedAt) => this.#inbox.put({ frame, raw, eventId, arrivedAt, now: brokerNow() }),
      (connection, what) => this.#changed(connection, what),
    );
    this.#card = new ConnectionCard(
      () => this.#connection.reconnect(),
      (chosen) => {
        onPace(chosen);
        this.#task.joined ||= joins(chosen) && !this.#task.terminal;
        this.#connection.setPace(chosen);
      },
    );
    this.#waiting.replaceChildren(...firstEvent(id));
    this.#connection.open();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#draw();
  }

  /** Stop watching, and let go of everything. */
  release() {
    clearInterval(this.#ticker);
    this.#connection.close();
    this.#inbox.clear();
    this.#timeline.release();
    this.#events.release();
    this.#steps.release();
    this.#header.release();
    this.#hold.release();
  }

  #take({ frame, raw, eventId, arrivedAt, now, awayMs }) {
    this.#heardAt = Date.now();
    if (awayMs !== undefined) {
      this.#resumedEntry = this.#task.resumed(awayMs);
      return;
    }
    const isEvent = frame.type.startsWith("task.");
    if (frame.type === "stream.open") this.#openedAt = now;
    // Only what was published since the stream opened has a delay; the rest is history that was caught up.
    const at = isEvent ? Date.parse(frame.at) : NaN;
    const live = isEvent && at >= this.#openedAt - 50;
    const delay = live ? Math.max(0, now - at) : null;
    if (live) this.#delays.take(delay);
    const resumed = this.#resumedEntry;
    if (resumed && ((isEvent && !live) || frame.type === "stream.gap")) {
      if (isEvent) resumed.missed += 1;
      else [resumed.gap, this.#resumedEntry] = [true, null];
      this.#task.touch(resumed);
    }
    this.#events.add({ id: isEvent ? eventId : "", type: frame.type, raw, arrivedAt, delay });
    this.#task.take(frame);
  }

  #changed(connection, what) {
    this.#card.note(connection, what);
    this.#card.draw(connection, this.#delays, this.#inbox.held ? 0 : this.#inbox.size);
    if (what === "resumed") this.#onState(this.#task.state); // the list has missed as much
    if (what === "resumed") this.#inbox.put({ awayMs: Date.now() - connection.lostAt });
  }

  #tick() {
    const { phase } = this.#connection;
    this.#card.draw(this.#connection, this.#delays, this.#inbox.held ? 0 : this.#inbox.size);
    this.#hold.draw(this.#task.terminal);
    if (!this.#task.terminal && !this.#inbox.held) {
      this.#steps.draw(this.#task);
      this.#header.draw(this.#task, this.#delays);
    }
    this.#waiting.hidden = this.#task.events > 0 || (phase !== "waiting" && phase !== "missing");
    // Once history is over: what is under way is followed, what is done is read from its beginning.
    const caughtUp = this.#delays.count > 0 || Date.now() - this.#heardAt > SETTLED_MS;
    if (!this.#settled && this.#task.events && caughtUp && !this.#inbox.size) {
      this.#settled = true;
      this.#events.settle();
      if (!this.#task.terminal) this.#timeline.follow();
    }
  }

  #draw() {
    // With much still to take in, most of what would be drawn is gone before it is seen.
    const now = performance.now();
    if (this.#inbox.size < BACKLOG || now - this.#drawnAt > BACKLOG_MS) {
      this.#drawnAt = now;
      const changed = this.#task.drainChanged();
      this.#timeline.draw(changed);
      if ([...changed].some(({ kind }) => kind === "step" || kind === "status")) this.#steps.draw(this.#task);
      this.#events.draw();
    }
    this.#hold.draw(this.#task.terminal);
    this.#header.draw(this.#task, this.#delays);
    if (this.#state !== this.#task.state) this.#onState(this.#task.state);
    this.#state = this.#task.state;
  }
}

function firstEvent(id) {
  const quoted = JSON.stringify(id).replaceAll("'", "'\\''");
  const path = encodeURIComponent(id).replaceAll("'", "%27");
  const command = [
    "curl -H 'Content-Type: application/json' \\",
    `  'http://127.0.0.1:8481/publish/${path}' -d '`,
    `  {"task": {"id": ${quoted}, "contextId": "context-1",`,
    `   "status": {"state": "TASK_STATE_SUBMITTED"}}}'`,
  ].join("\n");
  return [
    el("h3", { text: "This task has no event yet" }),
    el("p", { text: "The page waits for it. On the broker's machine, this publishes a first event:" }),
    el("pre", { class: "code", tabindex: "0" }, el("code", { text: command })),
  ];
}
