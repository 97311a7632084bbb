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

  /** Its whole text, of text parts only. */
  get text() {
    return this.parts.map((part) => (part.kind === "text" ? part.pieces.join("") : "")).join("");
  }
}
