// Owns what screen readers say aloud: each announcement is a line of its own, so that none hides another.
// Must not know what is worth saying.

import { el } from "./element.js";

const KEPT_MS = 10_000;

const region = document.getElementById("announcer");

/** Say a text when the reader is free to. */
export function announce(text) {
  const line = el("p", { text });
  region.append(line);
  setTimeout(() => line.remove(), KEPT_MS);
}
