// Owns the connection to one task's stream: opening it, noticing silence, coming back behind the last event.
// Must not know what events mean to a task, nor how anything is shown.

import { streamOf } from "./address.js";
import { Frames } from "./frames.js";
import { joins } from "./pace.js";
import { ask, NoTicket, onLogin, Ticket } from "./session.js";
import { brokerNow } from "./time.js";
import { busyReason, drainReason, endReason } from "./words.js";

const RETRY_MS = 1000;
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 10_000;
const HEARTBEAT_S = 15;
const HEARTBEATS_MISSED = 3;
const WAIT_S = 60;
const WATCHDOG_MS = 1000;
const FRESH_MS = 2000; // who is sent an event so young is behind no more

/**
 * @typedef {"connecting"|"waiting"|"live"|"reconnecting"|"ended"|"missing"|"refused"|"closed"} Phase
 * `waiting`: open, and the task has no event yet. `missing`: there is no such task. `closed`: the broker has ended the
 * stream in a way that coming back by itself would only undo.
 */

/**
 * A fresh EventSource per attempt, which continues by `?last_event_id=`: a browser's own reconnect never says
 * when it comes, gives up on any status but 200, and can't be hurried.
 */
export class Connection {
  #task;
  #ticket;
  #frames = new Frames();
  #forgetLogin = () => {};
  #onFrame;
  #onChange;
  #source = null;
  #timer = 0;
  #watchdog = 0;
  #heardAt = 0;
  #silenceMs = HEARTBEAT_S * HEARTBEATS_MISSED * 1000;
  #retryMs = RETRY_MS;
  #afterMs = null;
  #waits = true;
  #attempt = 0;
  #tries = 0;

  /** @type {Phase} */ phase = "connecting";
  /** Id of the last event: where a reconnect continues. */ lastId = "";
  /** How the broker opened the last stream: `replay`, `snapshot`, `live`. */ mode = "";
  /** Why events are missing, since the last time the stream could be continued. */ gap = null;
  /** When the next attempt is due, ms. */ retryAt = 0;
  /** When the connection was lost, ms; null while it stands. */ lostAt = null;
  /** When the stream was opened, ms. */ openedAt = 0;
  /** How often it came back. */ reconnects = 0;
  /** What the broker says about a refusal or an early end. */ reason = "";
  heartbeatS = HEARTBEAT_S;
  /** @type {{events: number, policy: string}|null} How far behind it is, and what the broker does about it. */ lag = null;
  /** How often it was told to be behind. */ lags = 0;
  /** How often it was shown the task as it stands instead of what it had missed. */ skips = 0;
  /** When the credential of this stream ends, ms; null while that isn't soon. */ endsAt = null;

  /**
   * @param {string} task
   * @param {import("./pace.js").Pace} pace
   * @param {(frame: object, raw: string, id: string, arrivedAt: number) => void} onFrame for every event.
   * @param {(connection: Connection, what: string) => void} onChange `what`: opened, resumed, lost, gap, …
   */
  constructor(task, pace, onFrame, onChange) {
    this.#task = task;
    this.pace = pace;
    this.#ticket = new Ticket(task);
    this.#onFrame = onFrame;
    this.#onChange = onChange;
  }

  /** Open the stream, or begin to wait for the next attempt. */
  open() {
    this.#watchdog = setInterval(() => this.#watch(), WATCHDOG_MS);
    addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
    this.#forgetLogin = onLogin(() => this.reconnect());
    this.#connect();
  }

  /** Close it for good. */
  close() {
    this.#drop();
    this.#ticket.release();
    this.#forgetLogin();
    clearInterval(this.#watchdog);
    removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
  }

  /** Try now instead of later. */
  reconnect() {
    this.#drop();
    this.#attempt = 0;
    this.#connect();
  }

  /** Go on at another pace, behind the last event. */
  setPace(pace) {
    this.pace = pace;
    if (this.phase === "ended") return; // there is nothing more to be sent at it
    this.#change(this.phase, "paced");
    this.reconnect();
  }

  #hurry = () => {
    if (this.phase === "reconnecting" && !document.hidden) this.reconnect();
  };

  async #connect() {
    const query = { from: "start", debug: 1, named: 0, heartbeat: "event", ...this.pace.query };
    if (this.#waits && !this.lastId) query.wait_s = WAIT_S;
    if (this.lastId) query.last_event_id = this.lastId;
    if (this.phase !== "waiting") this.#change(this.lostAt ? "reconnecting" : "connecting", "connecting");
    this.retryAt = 0;
    this.reason = "";
    const tries = this.#tries;
    let ticket = "";
    try {
      ticket = await this.#ticket.text();
    } catch (error) {
      if (tries === this.#tries) this.#withoutTicket(error);
      return;
    }
    if (tries !== this.#tries) return; // dropped meanwhile
    if (ticket) query.ticket = ticket;
    const source = (this.#source = new EventSource(streamOf(this.#task, query)));
    this.#heardAt = Date.now();
    this.#frames.begin(joins(this.pace));
    source.onopen = () => {
      this.#heardAt = Date.now();
      if (!this.lastId && this.phase === "connecting") this.#change("waiting", "waiting");
    };
    source.onmessage = (event) => this.#take(event);
    source.onerror = () => {
      const refused = source.readyState === EventSource.CLOSED;
      this.#drop();
      if (refused) this.#ticket.forget(); // a broker that was started again may take none of the old ones
      if (refused) this.#ask();
      else this.#lost("lost");
    };
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#tries += 1;
    if (this.#source) {
      this.#source.onopen = this.#source.onmessage = this.#source.onerror = null;
      this.#source.close();
      this.#source = null;
    }
    this.lag = this.endsAt = null;
  }

  #take(event) {
    const arrivedAt = Date.now();
    this.#heardAt = arrivedAt;
    let arrived;
    try {
      arrived = this.#frames.take(event.data, event.lastEventId);
    } catch {
      return;
    }
    if (event.lastEventId) this.lastId = event.lastEventId;
    for (const { frame, raw, id } of arrived) {
      // Heartbeats are for who has been sent everything.
      if (frame.type === "stream.heartbeat") this.#keepUp(Infinity);
      else this.#onFrame(frame, raw, id, arrivedAt);
      if (frame.type.startsWith("stream.")) this.#obey(frame);
      else if (this.lag) this.#keepUp(brokerNow() - Date.parse(frame.at) < FRESH_MS ? Infinity : 1);
    }
  }

  #keepUp(events) {
    if (!this.lag) return;
    this.lag.events -= events;
    if (this.lag.events > 0) return;
    this.lag = null;
    this.#change(this.phase, "caught-up");
  }

  #obey(frame) {
    switch (frame.type) {
      case "stream.open": {
        const resumed = this.lostAt !== null;
        this.mode = frame.mode;
        this.heartbeatS = frame.heartbeat_s || HEARTBEAT_S;
        this.#silenceMs = Math.max(2000, this.heartbeatS * HEARTBEATS_MISSED * 1000);
        this.#retryMs = Math.max(RETRY_MS_MIN, frame.retry_ms ?? RETRY_MS);
        this.#attempt = 0;
        this.gap = null;
        this.reconnects += resumed ? 1 : 0;
        this.openedAt = Date.now();
        this.#change("live", resumed ? "resumed" : "opened");
        this.lostAt = null;
        break;
      }
      case "stream.gap":
        this.gap = frame.reason;
        this.skips += frame.reason === "slow" ? 1 : 0;
        this.lag = null;
        this.#change("live", "gap");
        break;
      case "stream.lag":
        this.lag = { events: frame.behind_events, policy: frame.policy };
        this.lags += 1;
        this.#change("live", "lag");
        break;
      case "stream.expiring":
        this.endsAt = Date.now() + frame.expires_in_s * 1000;
        this.#change(this.phase, "expiring");
        break;
      case "stream.busy":
      case "stream.drain":
        // The broker ends the response itself; this is when it wants to see us again.
        this.#afterMs = frame.reconnect_in_ms ?? null;
        this.reason = frame.type === "stream.busy" ? busyReason(frame.reason) : drainReason();
        break;
      case "stream.end":
        this.#drop();
        this.reason = endReason(frame.reason);
        if (frame.reason === "not-found") this.#retry("waiting");
        else if (frame.reason === "task-ended" || frame.reason === "tasks-ended") this.#change("ended", "ended");
        // Whoever took it over, or deleted it, would be undone by a page that comes back by itself.
        else if (frame.reason === "displaced" || frame.reason === "deleted") this.#change("closed", "closed");
        // Whether we may go on with another credential, the answer to the next request says.
        else this.#lost("lost");
    }
  }

  #watch() {
    if (this.#source && Date.now() - this.#heardAt > this.#silenceMs) {
      this.reason = "No sign of life";
      this.#drop();
      this.#lost("silent");
    }
  }

  #lost(what) {
    this.lostAt ??= Date.now();
    this.#retry("reconnecting", what);
  }

  #retry(phase, what = phase) {
    const backoff = Math.min(RETRY_MS_MAX, this.#retryMs * 2 ** Math.min(this.#attempt, 6));
    const delay = this.#afterMs ?? Math.max(this.#retryMs, backoff * (0.8 + 0.4 * Math.random()));
    this.#afterMs = null;
    this.#attempt += 1;
    this.retryAt = Date.now() + delay;
    this.#change(phase, what);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #withoutTicket(error) {
    this.reason = error instanceof NoTicket ? error.message : "";
    if (error.status === 404) this.#retry("waiting"); // it may be about to begin
    else if (error.status >= 400 && error.status < 500 && error.status !== 429) this.#change("refused", "refused");
    else this.#lost("lost");
  }

  /** Find out why there was no stream: an EventSource doesn't tell. */
  async #ask() {
    const query = { ...this.pace.query, ...(this.#waits && !this.lastId ? { wait_s: WAIT_S } : {}) };
    const tries = this.#tries;
    let status = 0;
    let answer = {};
    try {
      const response = await ask(streamOf(this.#task, query));
      status = response.status;
      answer = await response.json();
    } catch {
      // away, or no JSON: tried again below
    }
    if (tries !== this.#tries || this.retryAt) return; // somebody has reconnected meanwhile
    this.reason = answer.error?.message ?? "";
    if (status === 400 && this.#waits && !this.lastId) {
      this.#waits = false; // this broker lets nobody wait as long
      this.#connect();
    } else if (status === 200 && this.lastId && /^(completed|failed|canceled|rejected)$/.test(answer.state)) {
      this.#change("ended", "ended"); // 204: nothing follows what we have
    } else if (status === 404) {
      this.#change("missing", "missing");
    } else if (status === 401 || status === 403 || status === 400) {
      this.#change("refused", "refused");
    } else {
      this.#lost("lost");
    }
  }

  #change(phase, what) {
    this.phase = phase;
    this.#onChange(this, what);
  }
}
