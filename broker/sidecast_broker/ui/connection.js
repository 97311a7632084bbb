// Owns the connection to one task's stream: opening it, noticing silence, coming back behind the last event.
// Must not know what events mean to a task, nor how anything is shown.

import { streamOf } from "./address.js";
import { ask, NoTicket, onLogin, Ticket } from "./session.js";

const RETRY_MS = 1000;
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 10_000;
const HEARTBEAT_S = 15;
const HEARTBEATS_MISSED = 3;
const WAIT_S = 60;
const WATCHDOG_MS = 1000;

/**
 * @typedef {"connecting"|"waiting"|"live"|"reconnecting"|"ended"|"missing"|"refused"} Phase
 * `waiting`: open, and the task has no event yet. `missing`: there is no such task.
 */

/**
 * A fresh EventSource per attempt, which continues by `?last_event_id=`: a browser's own reconnect never says
 * when it comes, gives up on any status but 200, and can't be hurried.
 */
export class Connection {
  #task;
  #ticket;
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

  /**
   * @param {string} task
   * @param {(frame: object, raw: string, id: string, arrivedAt: number) => void} onFrame for every event.
   * @param {(connection: Connection, what: string) => void} onChange `what`: opened, resumed, lost, gap, …
   */
  constructor(task, onFrame, onChange) {
    this.#task = task;
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

  #hurry = () => {
    if (this.phase === "reconnecting" && !document.hidden) this.reconnect();
  };

  async #connect() {
    const query = { from: "start", debug: 1, named: 0, heartbeat: "event" };
    if (this.#waits && !this.lastId) query.wait_s = WAIT_S;
    if (this.lastId) query.last_event_id = this.lastId;
    if (this.phase !== "waiting") this.#change(this.lostAt ? "reconnecting" : "connecting", "connecting");
    this.retryAt = 0;
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
  }

  #take(event) {
    const arrivedAt = Date.now();
    this.#heardAt = arrivedAt;
    let frame;
    try {
      frame = JSON.parse(event.data);
    } catch {
      return;
    }
    if (frame.type === "stream.heartbeat") return;
    if (event.lastEventId) this.lastId = event.lastEventId;
    this.#onFrame(frame, event.data, event.lastEventId, arrivedAt);
    if (frame.type.startsWith("stream.")) this.#obey(frame);
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
        this.#change("live", "gap");
        break;
      case "stream.busy":
      case "stream.drain":
        // The broker ends the response itself; this is when it wants to see us again.
        this.#afterMs = frame.reconnect_in_ms ?? null;
        this.reason = frame.reason ? `The broker is busy: ${frame.reason}` : "The broker restarts";
        break;
      case "stream.end":
        this.#drop();
        this.reason = frame.reason;
        if (frame.reason === "not-found") this.#retry("waiting");
        else if (frame.reason === "task-ended") this.#change("ended", "ended");
        else {
          // Whether we may go on with another credential, the answer to the next request says.
          this.reason = frame.reason === "revoked" ? "Access was revoked" : "The credential has expired";
          this.#lost();
        }
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
    this.reason = "";
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
    const query = this.#waits && !this.lastId ? { wait_s: WAIT_S } : {};
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
