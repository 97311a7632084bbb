// Owns one task as its events add up to it: state, progress, steps, artifacts, and the timeline's entries.
// Must not know how events arrive, nor how anything is shown.

import { Artifact } from "./artifact.js";

export const TERMINAL = new Set(["completed", "failed", "canceled", "rejected"]);
export const INTERRUPTED = new Set(["input-required", "auth-required"]);
const ACTIVITIES = new Set(["task.progress", "task.step", "task.thought", "task.debug", "task.error"]);
const LOSS = "urn:sidecast:loss:v1";
const ENTRIES_MAX = 50_000;

/** @typedef {{kind: string, at: number, seq: number, version: number, [more: string]: any}} Entry */

/** Give the text of an A2A message, empty for none. */
export function textOf(message) {
  return (message?.parts ?? []).map((part) => part.text).filter((text) => typeof text === "string").join("\n");
}

export class Task {
  state = null;
  contextId = "";
  progress = null;
  /** What the agent said last. */ text = "";
  /** @type {Map<string, object>} by id, in the order of the plan. */ steps = new Map();
  /** @type {Map<string, Artifact>} */ artifacts = new Map();
  /** @type {Entry[]} what is worth a line in the timeline, oldest first. */ entries = [];
  /** Entries that are not kept any more. */ forgotten = 0;
  startedAt = null;
  lastAt = null;
  endedAt = null;
  lastSeq = 0;
  events = 0;
  /** Whether the beginning is missing. */ partial = false;
  /** Whether one frame may have stood for several events. */ joined = false;
  #changed = new Set();
  #artifactEntries = new Map();
  #openProgress = null;
  #gapEntry = null;

  constructor(id) {
    this.id = id;
  }

  get terminal() {
    return TERMINAL.has(this.state);
  }

  /** Give the entries that have changed since the last time this was asked. */
  drainChanged() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  /** Take the next frame; those about the connection only where they belong into the task's story. */
  take(frame) {
    if (frame.type === "stream.gap") return this.#gap(frame);
    if (frame.type === "stream.end" && frame.reason === "task-ended") return this.#end();
    if (!frame.type.startsWith("task.")) return;
    const at = Date.parse(frame.at);
    this.events += 1;
    this.startedAt ??= at;
    this.lastAt = at;
    this.lastSeq = frame.seq;
    this.contextId ||= frame.contextId ?? "";
    // An activity is only ever reported of a task that works.
    if (ACTIVITIES.has(frame.type) && this.state !== "working") {
      this.#setState("working", at, { seq: frame.seq, text: "" });
    }
    switch (frame.type) {
      case "task.snapshot":
        return this.#snapshot(frame, at);
      case "task.status":
        return this.#status(frame, at);
      case "task.progress":
        this.text = frame.text ?? this.text;
        return this.#setProgress(frame, at);
      case "task.step":
        if (typeof frame.progress === "number") this.progress = frame.progress;
        return this.#step(frame, at);
      case "task.artifact":
        return this.#artifact(frame, at);
      case "task.thought":
      case "task.debug":
      case "task.error":
      case "task.message":
        if (typeof frame.progress === "number") this.progress = frame.progress;
        return this.#said(frame, at);
    }
  }

  #said({ type, seq, text = "", message, code, component, recoverable }, at) {
    this.#add({ kind: type.slice("task.".length), at, seq, text, message, code, component, recoverable });
  }

  /** Note that the connection came back; its entry counts what is caught up. */
  resumed(awayMs) {
    return this.#add({ kind: "resumed", at: null, seq: this.lastSeq, awayMs, missed: 0 });
  }

  /** Have an entry drawn again. */
  touch(entry) {
    entry.version += 1;
    this.#changed.add(entry);
  }

  #add(entry) {
    entry.version = 0;
    this.entries.push(entry);
    this.#changed.add(entry);
    if (entry.kind !== "artifact" && entry.kind !== "progress") this.#openProgress = null;
    if (this.entries.length > ENTRIES_MAX) {
      const oldest = this.entries.splice(0, ENTRIES_MAX / 10);
      const pinned = oldest.filter((each) => each.pinned);
      this.entries.unshift(...pinned);
      this.forgotten += oldest.length - pinned.length;
    }
    return entry;
  }

  #snapshot(frame, at) {
    const first = this.events === 1;
    const task = frame.task ?? {};
    const gap = this.#gapEntry;
    // What a partial snapshot doesn't name may stand as before, unless the stream is another one.
    const anew = gap !== null && (!frame.partial || gap.reason === "epoch");
    this.progress = frame.progress ?? (anew ? null : this.progress);
    this.partial = Boolean(frame.partial);
    if (gap && frame.partial) {
      gap.partial = true;
      this.touch(gap);
    }
    if (anew) {
      this.steps.clear();
      const kept = new Set((task.artifacts ?? []).map((artifact) => artifact.artifactId));
      for (const [id, artifact] of this.artifacts) {
        if (!kept.has(id)) {
          artifact.take({ parts: [], lastChunk: true });
          this.touch(this.#artifactEntries.get(id));
        }
      }
    }
    for (const step of frame.steps ?? []) this.steps.set(step.id, { ...step });
    if (first) {
      for (const message of task.history ?? []) this.#add({ kind: "message", at, seq: frame.seq, message });
    }
    const message = task.status?.message;
    this.text = textOf(message) || this.text;
    // Where no retained record says the state, a snapshot says `submitted`: a task never goes back there.
    const unknown = frame.partial && !anew && frame.state === "submitted" && this.state !== null;
    const more = { seq: frame.seq, message, text: "", created: first, snapshot: gap !== null };
    this.#setState(unknown ? this.state : frame.state, at, more);
    for (const artifact of task.artifacts ?? []) {
      this.#artifact({ ...artifact, seq: frame.seq, lastChunk: true }, at);
    }
    this.#gapEntry = null;
  }

  #status(frame, at) {
    const loss = frame.metadata?.[LOSS];
    if (loss) this.#add({ kind: "loss", at, seq: frame.seq, loss });
    if (frame.text) this.text = frame.text;
    if (frame.state !== this.state) {
      this.#setState(frame.state, at, { seq: frame.seq, text: frame.text ?? "", message: frame.message });
    } else if (frame.text || frame.message) {
      this.#add({ kind: "note", at, seq: frame.seq, text: frame.text ?? "", message: frame.message });
    }
  }

  #setState(state, at, more) {
    this.state = state;
    if (TERMINAL.has(state)) {
      this.endedAt = at;
      for (const artifact of this.artifacts.values()) {
        if (!artifact.complete) {
          artifact.complete = true;
          this.touch(this.#artifactEntries.get(artifact.id));
        }
      }
    }
    this.#add({ kind: "status", at, state, ...more });
  }

  #setProgress(frame, at) {
    if (typeof frame.progress === "number") this.progress = frame.progress;
    if (this.#openProgress) {
      Object.assign(this.#openProgress, { progress: this.progress, text: frame.text ?? "" });
      this.#openProgress.count += 1;
      this.touch(this.#openProgress);
    } else {
      const { progress } = this;
      const { seq, text = "" } = frame;
      this.#openProgress = this.#add({ kind: "progress", at, seq, progress, text, count: 1 });
    }
  }

  #step(frame, at) {
    const told = frame.step ?? {};
    const known = this.steps.get(told.id);
    const again = known && known.state !== "running" && told.state === "running";
    const step = { ...known, state: "running", ...told };
    if (step.state === "running") {
      if (!known?.startedAt || again) step.startedAt = at;
      step.endedAt = null;
      if (again) step.duration_ms = undefined;
    } else {
      step.endedAt = at;
      if (!(step.duration_ms >= 0) && step.startedAt) step.duration_ms = at - step.startedAt;
      step.startedAt ??= step.duration_ms >= 0 ? at - step.duration_ms : at;
    }
    step.text = frame.text ?? step.text;
    step.entry = again ? null : (known?.entry ?? null);
    this.steps.set(told.id, step);
    if (step.entry) {
      step.entry.step = step;
      this.touch(step.entry);
    } else {
      step.entry = this.#add({ kind: "step", at, seq: frame.seq, step });
    }
  }

  #artifact(frame, at) {
    const id = frame.artifactId;
    let artifact = this.artifacts.get(id);
    if (!artifact) {
      artifact = new Artifact(id);
      this.artifacts.set(id, artifact);
      artifact.take(frame);
      const entry = this.#add({ kind: "artifact", at, seq: frame.seq, artifact, pinned: true });
      this.#artifactEntries.set(id, entry);
    } else {
      artifact.take(frame);
      this.touch(this.#artifactEntries.get(id));
    }
  }

  #gap(frame) {
    const fromStart = this.events === 0;
    if (fromStart && this.entries.at(-1)?.kind === "gap") return; // told again after a lost connection
    this.partial ||= fromStart;
    this.#gapEntry = null;
    const entry = this.#add({ kind: "gap", at: null, seq: this.lastSeq, reason: frame.reason, fromStart });
    if (!fromStart) this.#gapEntry = entry;
  }

  #end() {
    const at = this.endedAt ?? this.lastAt;
    const { state, events, joined, lastSeq: seq } = this;
    this.#add({ kind: "end", at, seq, state, events, joined, tookMs: at - this.startedAt });
  }
}
