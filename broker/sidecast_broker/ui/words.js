// Owns what things are called on this page: states, gaps, events.
// Must not know where they are shown.

import { duration } from "./time.js";

const STATES = {
  submitted: "Submitted",
  working: "Working",
  completed: "Completed",
  failed: "Failed",
  canceled: "Canceled",
  rejected: "Rejected",
  "input-required": "Input required",
  "auth-required": "Sign-in required",
};

/** Give a state as a person reads it. */
export function stateName(state) {
  if (!state) return "Unknown";
  return STATES[state] ?? state[0].toUpperCase() + state.slice(1).replaceAll("-", " ");
}

/** Give the class of a state: its colour. */
export function stateTone(state) {
  if (state === "completed") return "good";
  if (state === "failed" || state === "rejected") return "bad";
  if (state === "input-required" || state === "auth-required") return "attention";
  return state === "working" ? "active" : "calm";
}

const ENTRIES = {
  status: "State",
  note: "Said",
  progress: "Progress",
  step: "Step",
  thought: "Thought",
  debug: "Debug",
  error: "Error",
  message: "Message",
  artifact: "Artifact",
  loss: "Loss",
  gap: "Gap",
  resumed: "Reconnected",
  end: "End",
};

/** Give what an entry of the timeline is called where its icon isn't seen, or isn't understood. */
export const entryName = (kind) => ENTRIES[kind] ?? kind;

const GAPS = {
  expired: "The stream no longer holds what came next: it has passed its age or size limit, or was purged.",
  epoch: "The stream has begun anew, so the last position means nothing in it.",
  ahead: "The last position lies beyond the end of the stream: it has lost its newest events.",
  malformed: "The last position was not one of this stream's.",
  slow: "This page fell so far behind that the broker went on with the task as it stands.",
};

/** Say why events are missing. */
export const gapReason = (reason) => sentence(GAPS, reason) ?? `Reason: ${reason}.`;

const ENDS = {
  "task-ended": "The task is over, and this is all of it",
  "tasks-ended": "All of these tasks are over",
  "not-found": "There is no such task, or it is not yours",
  expired: "The credential has ended",
  revoked: "Access was revoked",
  displaced: "Another page has taken this subscription over, and gets its events",
  deleted: "The subscription was deleted",
};

/** Say why the broker has ended a stream. */
export const endReason = (reason) => sentence(ENDS, reason) ?? `The broker has ended the stream: ${reason}`;

const REFUSALS = {
  unavailable: "The broker can't reach NATS at the moment",
  draining: "The broker is going away; another may serve this",
  limit: "The broker holds as many streams as it may",
  opens: "Many streams are being opened at once: this one waits its turn",
  "address-opens": "This address has opened many streams at once: this one waits its turn",
  "address-streams": "This address has as many streams as it may: other pages and tabs count too",
  "principal-streams": "You have as many streams open as you may: other pages and tabs count too",
  "task-streams": "This task has as many streams as it may",
  waiters: "As many pages as may wait for a task's first event",
  "principal-waiters": "You wait for as many tasks at once as you may",
  subscriptions: "The broker holds as many named subscriptions as it may",
  "principal-subscriptions": "You have as many named subscriptions as you may",
};

/** Say why the broker gives no stream for the moment. */
export const busyReason = (reason) => sentence(REFUSALS, reason) ?? `The broker is busy: ${reason}`;

/** Say why the broker has this page come back: `stream.drain` doesn't tell the two apart. */
export const drainReason = () => "The broker has asked to connect anew: it is going away, or this stream was old";

const POLICIES = {
  disconnect: "It is sent as fast as it is taken. If nothing is, the connection is cut, and continues where it was.",
  snapshot: "If that lasts, the broker goes on with the task as it stands.",
};

/** Say what the broker does about a client that is behind. */
export const lagPolicy = (policy) => sentence(POLICIES, policy) ?? `Policy: ${policy}.`;

const SERVED = {
  waiting: ["calm", "waits for the task"],
  live: ["good", "live"],
  paced: ["good", "at its own pace"],
  behind: ["attention", "behind, catching up"],
  ending: ["calm", "ending"],
};

/** Say how a stream is served. */
export const servedName = (served) => sentence(SERVED, served)?.[1] ?? served;

/** Give the class of that: its colour. */
export const servedTone = (served) => sentence(SERVED, served)?.[0] ?? "calm";

/** Say which pace a stream has asked for. */
export function askedPace({ pace, coalesce }) {
  const batches = pace?.batch_ms ? `in batches of ${pace.batch_ms} ms` : "";
  const rate = pace?.max_rate ? `at most ${pace.max_rate} a second` : "";
  return [batches, rate, coalesce ? "joined" : ""].filter(Boolean).join(", ") || "as events come";
}

/** Say what was done about a stream that was slow, and what would be. */
export function doneAbout({ lags, skips, slow, served }) {
  const next = slow === "snapshot" ? "will be shown the task as it stands" : "will be cut if it takes nothing";
  return [
    lags ? `fell behind ${times(lags)}` : "",
    skips ? `skipped ahead ${times(skips)}` : "",
    served === "behind" ? next : "",
  ];
}

function sentence(sentences, key) {
  return Object.hasOwn(sentences, key) ? sentences[key] : null;
}

/** Give a share of 1 in percent. */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** Give a size in bytes or characters. */
export function size(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  return bytes < 999_500 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Give a count with its noun. */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Say how often. */
export const times = (number) => (number === 1 ? "once" : count(number, "time"));

/**
 * Say in one line what an event is about.
 * @param {object} frame
 */
export function gist(frame) {
  const text = frame.text ?? "";
  switch (frame.type) {
    case "task.snapshot":
      return `${frame.state ?? ""}${frame.partial ? ", partial" : ""}`;
    case "task.status":
      return [frame.state, text].filter(Boolean).join(" · ");
    case "task.progress":
      return [percent(frame.progress ?? 0), text].filter(Boolean).join(" · ");
    case "task.step": {
      const { title, id, state, duration_ms: ms } = frame.step ?? {};
      return [title || id, state, ms >= 0 ? duration(ms) : ""].filter(Boolean).join(" · ");
    }
    case "task.artifact":
      return text.trim() || [frame.name || frame.artifactId, count(frame.parts?.length ?? 0, "part")].join(" · ");
    case "stream.open":
      return frame.mode;
    case "stream.gap":
    case "stream.busy":
      return frame.reason;
    case "stream.end":
      return [frame.state, frame.reason].filter(Boolean).join(" · ");
    case "stream.lag":
      return [`${count(frame.behind_events, "event")} behind`, frame.policy].filter(Boolean).join(" · ");
    case "stream.drain":
      return `come again in ${duration(frame.reconnect_in_ms)}`;
    case "stream.expiring":
      return `the credential ends in ${duration(frame.expires_in_s * 1000)}`;
    default:
      return text;
  }
}
