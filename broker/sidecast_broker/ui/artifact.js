// Owns one artifact as data: its parts, with pieces of one text joined to one part.
// Must not know how it is shown.

/**
 * @typedef {{kind: "text", mediaType: string, pieces: string[], length: number}
 *   | {kind: "raw", mediaType: string, raw: string, filename: string}
 *   | {kind: "url", mediaType: string, url: string, filename: string}
 *   | {kind: "data", mediaType: string, data: any}} Part
 */

const BY_ENDING = {
  md: "text/markdown",
  markdown: "text/markdown",
  json: "application/json",
  csv: "text/csv",
};

/** Give the bytes of base64, of either alphabet; null where it is none. */
export function decodeBase64(text) {
  try {
    const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(binary, (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

export class Artifact {
  /** @type {Part[]} */ parts = [];
  /** Counts replacements: what was drawn of an earlier one is void. */ edition = 0;
  /** Whether the last piece has come. */ complete = false;
  /** Updates it came in. */ updates = 0;

  constructor(id) {
    this.id = id;
    this.name = "";
  }

  /** Take one `task.artifact` event, or an artifact of a snapshot. */
  take({ name, parts, text, mediaType, append, lastChunk }) {
    if (name) this.name = name;
    if (!append) {
      this.parts = [];
      this.edition += 1;
    }
    for (const part of parts ?? [{ text: text ?? "", mediaType }]) this.#add(part);
    this.complete = Boolean(lastChunk);
    this.updates += 1;
  }

  #add(part) {
    const mediaType = (part.mediaType || "").split(";")[0].trim().toLowerCase();
    const filename = String(part.filename ?? "");
    if (typeof part.text === "string") {
      const last = this.parts.at(-1);
      if (last?.kind === "text" && (!mediaType || mediaType === last.mediaType)) {
        last.pieces.push(part.text);
        last.length += part.text.length;
        return;
      }
      const known = mediaType || BY_ENDING[this.name.split(".").at(-1).toLowerCase()] || "text/plain";
      this.parts.push({ kind: "text", mediaType: known, pieces: [part.text], length: part.text.length });
    } else if (typeof part.raw === "string") {
      this.parts.push({ kind: "raw", mediaType, raw: part.raw, filename });
    } else if (typeof part.url === "string") {
      this.parts.push({ kind: "url", mediaType, url: part.url, filename });
    } else if ("data" in part) {
      this.parts.push({ kind: "data", mediaType, data: part.data });
    }
  }

  /** Its size in characters, roughly bytes. */
  get size() {
    return this.parts.reduce((sum, part) => sum + (part.length ?? (part.raw ? part.raw.length * 0.75 : 0)), 0);
  }

  /** What of it can be copied as text: text, and data as JSON. */
  get text() {
    const texts = this.parts.map((part) => {
      if (part.kind === "text") return part.pieces.join("");
      return part.kind === "data" ? `${JSON.stringify(part.data, null, 2)}\n` : "";
    });
    return texts.join("");
  }

  /**
   * Give it as a file: its first bytes where it has any, else its text.
   * @returns {[Blob, string]} what to save, and under which name.
   */
  file() {
    const bytes = this.parts.map((part) => (part.kind === "raw" ? decodeBase64(part.raw) : null));
    const index = bytes.findIndex((each) => each !== null);
    const content = index < 0 ? this.text : bytes[index];
    const ending = index >= 0 ? "bin" : this.parts.every(({ kind }) => kind === "data") ? "json" : "txt";
    const name = this.parts[index]?.filename || this.name || `${this.id}.${ending}`;
    // As bytes of no type: nothing an agent sends may be opened in this page's origin.
    return [new Blob([content], { type: "application/octet-stream" }), name];
  }
}
