// Owns how a text too long for a line of the timeline is cut, until all of it is asked for.
// Must not know whose text it is.

import { el } from "./element.js";

const CHARS_MAX = 900;
const LINES_MAX = 14;

/**
 * Give the paragraph of a text, and a button for the rest where there is much of it.
 * @param {string} text
 * @param {string} kind the paragraph's class.
 * @returns {HTMLElement[]}
 */
export function longText(text, kind) {
  const cut = cutOf(text);
  const paragraph = el("p", { class: kind, text: cut < text.length ? `${text.slice(0, cut)} …` : text });
  if (cut === text.length) return [paragraph];
  const more = el("button", {
    class: "quiet",
    type: "button",
    text: `Show all ${text.length.toLocaleString("en")} characters`,
  });
  more.addEventListener("click", () => {
    paragraph.textContent = text;
    paragraph.tabIndex = -1;
    paragraph.focus({ preventScroll: true }); // the button goes, and with it the focus
    more.remove();
  });
  return [paragraph, more];
}

/** Give where a text is cut: its length where a button would save nothing. */
function cutOf(text) {
  let end = Math.min(text.length, CHARS_MAX);
  for (let line = 0, at = -1; line < LINES_MAX; line += 1) {
    at = text.indexOf("\n", at + 1);
    if (at < 0) break;
    if (line === LINES_MAX - 1) end = Math.min(end, at);
  }
  if (text.length - end < CHARS_MAX / 3 && text.slice(end).split("\n").length < LINES_MAX / 3) return text.length;
  // Never between the halves of one character.
  return /[\uD800-\uDBFF]/.test(text[end - 1]) ? end - 1 : end;
}
