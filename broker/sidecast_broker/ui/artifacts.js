// Owns the card of one artifact in the timeline: its head, its content, and how much of that is open.
// Must not know how parts are shown, nor tasks.

import { Content } from "./content.js";
import { copy, el, save, setText } from "./element.js";
import { count, size } from "./words.js";

const OPEN_CHARS = 2400;
const NEAR_END_PX = 40;

export class ArtifactCard {
  #artifact;
  #content = new Content();
  #name = el("h3");
  #facts = el("span", { class: "remark" });
  #copy = el("button", { class: "quiet", type: "button", text: "Copy" });
  #save = el("button", { class: "quiet", type: "button", text: "Download" });
  #more = el("button", { class: "more", type: "button", hidden: true });
  #window = el("div", { class: "artifact-window" });
  #open = false;
  #following = true;

  constructor(artifact, parent) {
    this.#artifact = artifact;
    this.#copy.addEventListener("click", () => copy(artifact.text, this.#copy));
    this.#save.addEventListener("click", () => save(...artifact.file()));
    this.#more.addEventListener("click", () => this.#toggle());
    this.#window.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#window.append(this.#content.element);
    const head = el("div", { class: "artifact-head" }, this.#name, this.#facts, this.#copy, this.#save);
    parent.append(el("section", { class: "artifact" }, head, this.#window, this.#more));
  }

  draw() {
    const artifact = this.#artifact;
    const frame = this.#window;
    this.#content.update(artifact);
    setText(this.#name, artifact.name || artifact.id);
    const facts = [
      artifact.size ? size(artifact.size) : "",
      artifact.complete ? "" : "growing",
      artifact.updates > 1 ? count(artifact.updates, "piece") : "",
    ];
    setText(this.#facts, facts.filter(Boolean).join(" · "));
    this.#copy.hidden = !artifact.text;
    this.#save.hidden = !artifact.parts.some(({ kind }) => kind !== "url");
    const long = artifact.parts.some((part) => part.kind === "text" && part.length > OPEN_CHARS);
    this.#more.hidden = !long;
    frame.classList.toggle("folded", long && !this.#open);
    frame.classList.toggle("growing", !artifact.complete);
    setText(this.#more, this.#open ? "Show less" : "Show all of it");
    this.#more.setAttribute("aria-expanded", String(this.#open));
    // A growing text shows its end, unless the reader has scrolled away from it.
    if (long && !this.#open && !artifact.complete && this.#following) frame.scrollTop = frame.scrollHeight;
  }

  release() {
    this.#content.release();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#window;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  #toggle() {
    this.#open = !this.#open;
    this.draw();
    if (!this.#open) this.#more.scrollIntoView({ block: "nearest" });
  }
}
