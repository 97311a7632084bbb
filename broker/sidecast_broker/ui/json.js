// Owns how JSON is shown: indented, with its parts told apart by colour.
// Must not know what it says.

import { el } from "./element.js";

const COLOURED_CHARS_MAX = 40_000;
const SHOWN_CHARS_MAX = 400_000;
const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/**
 * Make an element that shows a JSON value.
 * @param {any} value
 */
export function jsonView(value) {
  let text = JSON.stringify(value, null, 2) ?? "";
  const cut = text.length - SHOWN_CHARS_MAX;
  if (cut > 0) text = `${text.slice(0, SHOWN_CHARS_MAX)}\n… and ${cut.toLocaleString()} characters more`;
  const code = el("code");
  if (text.length > COLOURED_CHARS_MAX) code.textContent = text;
  else colour(code, text);
  return el("pre", { class: "code json", tabindex: "0" }, code);
}

function colour(parent, text) {
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    if (match.index > end) parent.append(text.slice(end, match.index));
    const [whole, string, colon] = match;
    const kind = string ? (colon ? "key" : "string") : "other";
    parent.append(el("span", { class: `json-${kind}`, text: string ?? whole }), colon ?? "");
    end = match.index + whole.length;
  }
  parent.append(text.slice(end));
}
