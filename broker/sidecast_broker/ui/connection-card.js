// Owns the card that shows the connection: its state, what it last did, delays, and what happened to it.
// Must not know how it is made.

import { announce } from "./announcer.js";
import { copy, el, setText } from "./element.js";
import { PACES } from "./pace.js";
import { clock, duration } from "./time.js";
import { count, gapReason, lagPolicy, times } from "./words.js";

const INCIDENTS_MAX = 6;
const SPARKS = 80;
const SLOW_MS = 8000;
const LATE_MS = 1000;

const QUIET = new Set(["opened", "ended", "caught-up", "paced"]);

const PHASES = {
  connecting: ["calm", "Connecting"],
  waiting: ["attention", "Waiting for the first event"],
  live: ["good", "Live"],
  ended: ["calm", "Ended"],
  missing: ["bad", "No such task"],
  refused: ["bad", "Refused"],
  closed: ["attention", "Closed by the broker"],
};

export class ConnectionCard {
  #card = document.getElementById("connection");
  #state = el("p", { class: "connection-state" });
  #text = el("strong");
  #detail = el("p", { class: "note" });
  #now = el("button", { class: "quiet", type: "button", text: "Reconnect now", hidden: true });
  #spark = document.createElementNS("http://www.w3.org/2000/svg", "path");
  #sparkBox = el(
    "div",
    { class: "delays", hidden: true },
    el("span", { class: "remark", text: "Publish to arrival" }),
  );
  #delays = el("p", { class: "note figure" });
  #id = el("code", { class: "figure" });
  #copyId = el("button", { class: "quiet", type: "button", text: "Copy" });
  #lastId = el(
    "p",
    { class: "last-id", hidden: true },
    el("span", { class: "remark", text: "Last event id" }),
    this.#id,
    this.#copyId,
  );
  #pace = el("select", { id: "pace" }, ...PACES.map(({ name, label }) => el("option", { value: name, text: label })));
  #format = el("dd");
  #behind = el("span");
  #policy = el("span", { class: "remark" });
  #delivery = el(
    "dl",
    { class: "delivery" },
    el("div", {}, el("dt", {}, el("label", { for: "pace", text: "Asked pace" })), el("dd", {}, this.#pace)),
    el("div", {}, el("dt", { text: "Format" }), this.#format),
    el("div", {}, el("dt", { text: "Behind" }), el("dd", {}, this.#behind, this.#policy)),
  );
  #incidents = el("ol", { class: "incidents", "aria-label": "What happened to the connection" });
  #link = document.getElementById("link");
  #since = Date.now();
  #sparkAt = 0;

  /**
   * @param {() => void} reconnect tries at once.
   * @param {(pace: import("./pace.js").Pace) => void} choose is called with another pace.
   */
  constructor(reconnect, choose) {
    this.#now.addEventListener("click", reconnect);
    this.#pace.addEventListener("change", () => choose(PACES[this.#pace.selectedIndex]));
    this.#copyId.addEventListener("click", () => copy(this.#id.textContent, this.#copyId));
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${SPARKS} 24`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(this.#spark);
    this.#sparkBox.append(this.#delays, el("div", { class: "spark" }, svg));
    this.#state.append(el("span", { class: "dot", "aria-hidden": "true" }), this.#text, this.#now);
    const parts = [this.#state, this.#detail, this.#delivery, this.#sparkBox, this.#lastId, this.#incidents];
    this.#card.replaceChildren(...parts);
  }

  /** Note what happened; `what` is what the connection told. */
  note(connection, what) {
    this.#since = Date.now();
    const say = {
      opened: "Connected",
      resumed: `Resumed after ${connection.lastId || "the start"}`,
      lost: connection.reason || "Connection lost",
      silent: "No sign of life: given up",
      gap: connection.gap === "slow" ? "Skipped ahead: the task as it stands" : "Gap: events are missing",
      lag: `Fell behind by ${count(connection.lag?.events ?? 0, "event")}`,
      "caught-up": "Caught up",
      paced: `Asked for another pace: ${connection.pace.label}`,
      expiring: `The credential ends in ${duration(connection.endsAt - Date.now())}`,
      ended: "Closed: nothing follows",
      closed: connection.reason,
    }[what];
    if (!say) return;
    const last = this.#incidents.firstChild;
    if (last?.lastChild.textContent === say) return setText(last.firstChild, clock(Date.now()));
    this.#incidents.prepend(el("li", {}, el("time", { text: clock(Date.now()) }), el("span", { text: say })));
    while (this.#incidents.childElementCount > INCIDENTS_MAX) this.#incidents.lastChild.remove();
    if (!QUIET.has(what)) announce(say);
  }

  /** Draw it; called often, so that the countdown moves. */
  draw(connection, delays, backlog) {
    const { phase } = connection;
    let [tone, text] = PHASES[phase] ?? ["attention", "Reconnecting"];
    if (phase === "reconnecting") {
      const left = connection.retryAt - Date.now();
      text = left > 0 ? `Reconnecting in ${(left / 1000).toFixed(1)} s` : "Reconnecting …";
    }
    if (phase === "live" && connection.lag) [tone, text] = ["attention", "Live, behind"];
    else if (phase === "live" && connection.gap === "slow") [tone, text] = ["attention", "Live, skipped ahead"];
    else if (phase === "live" && connection.gap) [tone, text] = ["attention", "Live, after a gap"];
    else if (phase === "live" && connection.reconnects) text = "Live, resumed";
    this.#card.dataset.tone = tone;
    this.#card.dataset.phase = phase;
    setText(this.#text, text);
    // Where this card is out of sight, the head of the task says what is not as usual.
    this.#link.dataset.tone = tone;
    this.#link.hidden = (phase === "live" && tone === "good") || phase === "ended" || phase === "connecting";
    setText(this.#link, text);
    setText(this.#detail, this.#explain(connection, backlog));
    const waits = phase === "reconnecting" && connection.retryAt > 0;
    this.#now.hidden = !(waits || ["missing", "refused", "closed"].includes(phase));
    this.#lastId.hidden = !connection.lastId;
    setText(this.#id, connection.lastId);
    this.#drawDelivery(connection, delays);
    this.#drawDelays(delays);
  }

  #drawDelivery({ pace, phase, lag, lags, skips }, delays) {
    if (this.#pace.value !== pace.name) this.#pace.value = pace.name;
    setText(this.#format, pace.format);
    // Of what waits for this page's own rate the broker tells nothing: there the last event's delay says it.
    const [lateMs = 0] = delays.recent(1);
    const late = lateMs >= LATE_MS ? `${duration(lateMs)}, by the last event` : "nothing";
    const now = lag ? `up to ${count(lag.events, "event")}` : phase === "live" ? late : "";
    const before = [lags ? `fell behind ${times(lags)}` : "", skips ? `skipped ahead ${times(skips)}` : ""];
    setText(this.#behind, [now, ...before].filter(Boolean).join(" · "));
    setText(this.#policy, lag ? lagPolicy(lag.policy) : "");
    this.#behind.closest("div").hidden = !this.#behind.textContent;
  }

  #explain(connection, backlog) {
    if (backlog > 200) return `Taking in ${count(backlog, "event")} …`;
    switch (connection.phase) {
      case "connecting":
        return Date.now() - this.#since > SLOW_MS
          ? "No answer yet. Without HTTP/2, browsers keep six connections per host: other tabs may hold them."
          : "";
      case "waiting":
        return "The page shows the task as soon as it begins.";
      case "live":
        if (connection.endsAt) return `The credential ends in ${duration(Math.max(0, connection.endsAt - Date.now()))}.`;
        if (connection.gap) return gapReason(connection.gap);
        return `${this.#history(connection)} · heartbeat every ${connection.heartbeatS} s`;
      case "reconnecting":
        return [connection.reason, "What is missed meanwhile is caught up."].filter(Boolean).join(". ");
      case "ended":
        return "The task is over, and this is all of it.";
      case "closed":
        return `${connection.reason}.`;
      default:
        return connection.reason;
    }
  }

  #history({ reconnects }) {
    return reconnects ? `came back ${times(reconnects)}` : "from the first event";
  }

  #drawDelays(delays) {
    const quantiles = delays.quantiles(0.5, 0.95, 1);
    if (!quantiles || Date.now() - this.#sparkAt < 400) return;
    this.#sparkAt = Date.now();
    const [p50, p95, most] = quantiles.map(duration);
    setText(this.#delays, `p50 ${p50} · p95 ${p95} · max ${most}`);
    const recent = delays.recent(SPARKS);
    const top = Math.max(10, ...recent);
    const left = SPARKS - recent.length + 0.5;
    const bars = recent.map((ms, index) => `M${left + index} 24v${-(1.5 + (22 * ms) / top)}`);
    this.#spark.setAttribute("d", bars.join(""));
    this.#sparkBox.hidden = false;
  }
}
