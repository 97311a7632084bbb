// Owns how one entry of the timeline is drawn, and drawn again when it has changed.
// Must not know which entries there are, nor where they stand.

import { ArtifactCard } from "./artifacts.js";
import { el, icon } from "./element.js";
import { jsonView } from "./json.js";
import { longText } from "./long-text.js";
import { textOf } from "./task.js";
import { duration, full, offset } from "./time.js";
import { count, entryName, gapReason, percent, stateName, stateTone } from "./words.js";

const STEP_TONES = { done: "good", failed: "bad", running: "active" };

/** One entry in the timeline. */
export class EntryView {
  #body = el("div", { class: "entry-body" });
  #time = el("time", { class: "entry-time" });
  #drawn = -1;
  #card = null;

  constructor(entry, startedAt) {
    this.entry = entry;
    this.element = el("li", { class: "entry", "data-kind": entry.kind });
    const name = entryName(entry.kind);
    const label = { role: "img", "aria-label": name, title: name };
    const mark = el("span", { class: "entry-mark", ...label }, icon(markOf(entry)));
    this.element.append(this.#time, mark, this.#body);
    if (entry.at !== null && entry.at !== undefined) {
      this.#time.dateTime = new Date(entry.at).toISOString();
      this.#time.title = full(entry.at);
      this.#time.textContent = offset(entry.at - (startedAt ?? entry.at));
    }
  }

  /** Draw what has changed; `artifactsToo` is false where it is too early for growing text. */
  draw(artifactsToo = true) {
    const { entry } = this;
    if (entry.kind === "artifact") {
      this.#card ??= new ArtifactCard(entry.artifact, this.#body);
      if (this.#drawn !== entry.version && artifactsToo) {
        this.#card.draw();
        this.#drawn = entry.version;
      }
      return;
    }
    if (this.#drawn === entry.version) return;
    this.#drawn = entry.version;
    this.element.dataset.tone = toneOf(entry);
    this.#body.replaceChildren(...DRAW[entry.kind](entry));
  }

  /** Whether growing text waits to be drawn. */
  get behind() {
    return this.#drawn !== this.entry.version;
  }

  /** Let go of what it holds. */
  release() {
    this.#card?.release();
    this.element.remove();
  }
}

function markOf({ kind }) {
  return kind === "loss" ? "error" : kind;
}

function toneOf(entry) {
  if (entry.kind === "status" || entry.kind === "end") return stateTone(entry.state);
  if (entry.kind === "step") return STEP_TONES[entry.step.state] ?? "calm";
  if (entry.kind === "error") return entry.recoverable ? "attention" : "bad";
  return { gap: "attention", loss: "attention", resumed: "good" }[entry.kind] ?? "calm";
}

const paragraph = (text, kind = "said") => el("p", { class: kind, text });

const line = (...children) => el("p", { class: "line" }, ...children);

/** Give text, and whatever else a message holds. */
function said({ text, message }) {
  const nodes = [];
  const words = text || textOf(message);
  if (words) nodes.push(...longText(words, "said"));
  for (const part of message?.parts ?? []) {
    if ("data" in part) nodes.push(jsonView(part.data));
    else if (typeof part.text !== "string") {
      const text = `${part.filename || "a file"} · ${part.mediaType || "unknown type"}`;
      nodes.push(paragraph(text, "note"));
    }
  }
  return nodes;
}

const DRAW = {
  status(entry) {
    const tone = stateTone(entry.state);
    const chip = el("span", { class: "chip state", "data-tone": tone, text: stateName(entry.state) });
    const remark = entry.snapshot ? "as it stands now" : entry.created ? "the task begins" : "";
    return [line(chip, remark ? el("span", { class: "remark", text: remark }) : null), ...said(entry)];
  },
  note: said,
  thought: said,
  debug: said,
  progress(entry) {
    const bar = el("span", { class: "mini-bar" }, el("span"));
    bar.firstChild.style.width = `${Math.max(0, Math.min(1, entry.progress ?? 0)) * 100}%`;
    const times = entry.count > 1 ? el("span", { class: "remark", text: count(entry.count, "update") }) : null;
    const share = el("span", { class: "figure", text: percent(entry.progress ?? 0) });
    return [line(bar, share, entry.text ? el("span", { text: entry.text }) : null, times)];
  },
  step(entry) {
    const { title, id, state, index, total, duration_ms: ms } = entry.step;
    const number = Number(index ?? 0) + 1;
    const place = total >= number ? `Step ${number} of ${total}` : `Step ${total > 0 ? number : ""}`.trim();
    const end = state === "running" ? state : [state, duration(ms)].filter(Boolean).join(" in ");
    return [
      line(
        el("span", { class: "remark", text: place }),
        el("strong", { class: "entry-title", text: title || id }),
        el("span", { class: "figure", text: end }),
      ),
    ];
  },
  error(entry) {
    const facts = [entry.code, entry.component, entry.recoverable === true ? "recoverable" : ""];
    const text = facts.filter(Boolean).join(" · ");
    return [...said(entry), ...(text ? [paragraph(text, "remark")] : [])];
  },
  message(entry) {
    const fromUser = entry.message?.role === "ROLE_USER";
    return [paragraph(fromUser ? "User" : "Agent", "remark"), ...said(entry)];
  },
  loss({ loss }) {
    const what = [
      loss.dropped_events ? count(loss.dropped_events, "event") : "",
      loss.dropped_bytes ? count(loss.dropped_bytes, "byte") : "",
    ].filter(Boolean);
    const because = loss.reason ? ` (${loss.reason})` : "";
    return [paragraph(`The publisher had to drop ${what.join(" and ") || "something"}${because}.`)];
  },
  gap(entry) {
    const skipped = entry.reason === "slow" ? "Skipped ahead to the task as it stands" : "Events are missing here";
    const title = entry.fromStart ? "The beginning is missing" : skipped;
    const then = entry.fromStart
      ? "What follows is everything the stream still holds."
      : entry.partial
        ? "The task continues with a snapshot of what the stream still holds; artifacts may lack their beginning."
        : "The task continues with a snapshot: it is whole, and only what happened in between is not shown.";
    return [line(el("strong", { text: title })), paragraph(`${gapReason(entry.reason)} ${then}`)];
  },
  resumed(entry) {
    const away = duration(entry.awayMs);
    if (entry.gap) return [paragraph(`Reconnected after ${away}.`)];
    const missed = entry.missed ? `${count(entry.missed, "event")} caught up, none lost` : "nothing was missed";
    return [paragraph(`Reconnected after ${away}: ${missed}.`)];
  },
  end(entry) {
    const events = entry.joined ? `${count(entry.events, "frame")} of joined events` : count(entry.events, "event");
    const all = `${duration(entry.tookMs)} and ${events}`;
    return [paragraph(`The task is over after ${all}. Nothing more will come.`)];
  },
};
