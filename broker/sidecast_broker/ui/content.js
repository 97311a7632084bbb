// Owns how the parts of an artifact are shown, by media type. Content is never put in as HTML.
// Must not know tasks or timelines.

import { decodeBase64 } from "./artifact.js";
import { el } from "./element.js";
import { GrowingText } from "./growing-text.js";
import { link, safeAddress } from "./inline.js";
import { jsonView } from "./json.js";
import { GrowingMarkdown } from "./markdown.js";
import { size } from "./words.js";

const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const TEXTS = /^(text\/|application\/(json|xml|yaml|x-ndjson)$)/;
const SHOWN_CHARS_MAX = 2_000_000;
const JSON_CHARS_MAX = 400_000;

/** Shows one artifact's parts, and goes on where it was when they grow. */
export class Content {
  element = el("div", { class: "content" });
  #views = [];
  #edition = -1;
  #addresses = [];

  /** Show what is new in an artifact. */
  update(artifact) {
    if (artifact.edition !== this.#edition) {
      this.release();
      this.#edition = artifact.edition;
    }
    artifact.parts.forEach((part, index) => {
      const view = (this.#views[index] ??= this.#open(part));
      if (part.kind === "text") view.update(part, artifact.complete);
    });
  }

  /** Let go of what is shown, and of the memory behind images and links. */
  release() {
    this.element.replaceChildren();
    this.#views = [];
    for (const address of this.#addresses) URL.revokeObjectURL(address);
    this.#addresses = [];
  }

  #open(part) {
    if (part.kind === "text") return new TextView(this.element, part);
    if (part.kind === "data") this.element.append(jsonView(part.data));
    if (part.kind === "url") this.element.append(urlView(part));
    if (part.kind === "raw") this.element.append(this.#rawView(part));
    return {};
  }

  #rawView(part) {
    const name = part.filename || "file";
    const bytes = decodeBase64(part.raw);
    if (!bytes) return el("p", { class: "note", text: `${name}: what was sent is not valid base64` });
    if (IMAGES.has(part.mediaType)) {
      return imageView(this.#addressOf(bytes, part.mediaType), part);
    }
    if (TEXTS.test(part.mediaType)) {
      const text = new TextDecoder().decode(bytes);
      const holder = el("div");
      const whole = { kind: "text", mediaType: part.mediaType, pieces: [text], length: text.length };
      new TextView(holder, whole).update(whole, true);
      return holder;
    }
    // Anything else, SVG and HTML among it, is offered as bytes: nothing may open it in this page's origin.
    const address = this.#addressOf(bytes, "application/octet-stream");
    const label = `${name} · ${part.mediaType || "unknown type"} · ${size(bytes.length)}`;
    return el("p", { class: "file" }, el("a", { href: address, download: name, text: `Download ${label}` }));
  }

  #addressOf(bytes, mediaType) {
    const address = URL.createObjectURL(new Blob([bytes], { type: mediaType }));
    this.#addresses.push(address);
    return address;
  }
}

/** Shows one text part as it grows, and once complete in its best form. */
class TextView {
  #holder = el("div", { class: "text-part" });
  #view;
  #shown = 0;
  #chars = 0;
  #final = false;

  constructor(parent, part) {
    this.#view = part.mediaType === "text/markdown" ? new GrowingMarkdown() : new GrowingText();
    this.#holder.append(this.#view.element);
    parent.append(this.#holder);
  }

  update(part, complete) {
    if (this.#shown < part.pieces.length && this.#chars < SHOWN_CHARS_MAX) {
      const text = part.pieces.slice(this.#shown).join("");
      this.#view.add(text.slice(0, SHOWN_CHARS_MAX - this.#chars));
      this.#chars += text.length;
      if (this.#chars >= SHOWN_CHARS_MAX) {
        this.#holder.append(el("p", { class: "note", text: "The text goes on; download it to see all." }));
      }
    }
    this.#shown = part.pieces.length;
    if (complete && !this.#final && part.mediaType === "application/json") this.#indent(part);
    this.#final = complete;
  }

  #indent(part) {
    if (part.length > JSON_CHARS_MAX) return;
    try {
      this.#holder.replaceChildren(jsonView(JSON.parse(part.pieces.join(""))));
    } catch {
      // not JSON after all: it stays as it was sent
    }
  }
}

function imageView(address, { filename, mediaType }) {
  const image = el("img", { src: address, alt: filename || "image without a name" });
  const figure = el("figure", {}, image);
  const text = `${filename || "An image"} cannot be shown: its bytes are not ${mediaType}`;
  image.addEventListener("error", () => figure.replaceChildren(el("p", { class: "note", text })));
  return figure;
}

function urlView(part) {
  const name = part.filename || part.url;
  // Shown as a link and never loaded: this page asks nobody but its broker.
  const shown = safeAddress(part.url) ? link(part.url, name) : el("code", { text: part.url });
  return el("p", { class: "file" }, shown, part.mediaType ? ` · ${part.mediaType}` : "");
}
