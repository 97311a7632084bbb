// Owns the markup inside a line of Markdown: code, emphasis, links. Makes nodes, never HTML.
// Must not know blocks.

import { el } from "./element.js";

// In the order of precedence: code, links, strong, emphasis, strike, bare addresses.
const MARK = new RegExp(
  [
    /(`+)([\s\S]*?[^`])\1(?!`)/,
    /!?\[([^\]\n]*)\]\(\s*<?((?:[^\s()<>]|\([^\s()<>]*\))+)>?(?:\s+"[^"]*")?\s*\)/,
    /\*\*(?=\S)([\s\S]*?\S)\*\*/,
    /__(?=\S)([\s\S]*?\S)__(?!\w)/,
    /\*(?=\S)([\s\S]*?\S)\*/,
    /(?<![\w_])_(?=\S)([\s\S]*?\S)_(?!\w)/,
    /~~(?=\S)([\s\S]*?\S)~~/,
    /\\([\\`*_{}[\]()#+\-.!|~>])/,
    /(https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]])/,
  ]
    .map((each) => each.source)
    .join("|"),
  "g",
);
const DEPTH_MAX = 6;
const LENGTH_MAX = 8_000; // an opening mark without its partner is looked for to the end of the text

/** Give an http(s) address as it is, anything else (javascript:, data:, relative) as null. */
export function safeAddress(text) {
  if (!/^https?:\/\//i.test(text)) return null;
  try {
    return new URL(text).href;
  } catch {
    return null;
  }
}

/** Make a link that leaves this page, or its text where the address isn't http(s). */
export function link(address, ...children) {
  const href = safeAddress(address);
  if (!href) return el("span", {}, ...children);
  return el("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/**
 * Append a text with its markup as nodes.
 * @param {Element} parent
 * @param {string} text
 */
export function appendInline(parent, text, depth = 0) {
  if (depth > DEPTH_MAX || text.length > LENGTH_MAX) {
    parent.append(text);
    return;
  }
  let end = 0;
  for (const match of text.matchAll(MARK)) {
    if (match.index > end) parent.append(text.slice(end, match.index));
    parent.append(nodeOf(match, depth));
    end = match.index + match[0].length;
  }
  if (end < text.length) parent.append(text.slice(end));
}

function nodeOf(match, depth) {
  const [whole, , code, label, address, strong, strongToo, emphasis, emphasisToo, strike, escaped, bare] = match;
  if (code !== undefined) return el("code", { text: code.replace(/^ (.*) $/, "$1") });
  // Images would be requests to elsewhere: their text is a link.
  if (address !== undefined) return link(address, nested("span", label || address, depth));
  if (strong ?? strongToo) return nested("strong", strong ?? strongToo, depth);
  if (emphasis ?? emphasisToo) return nested("em", emphasis ?? emphasisToo, depth);
  if (strike) return nested("del", strike, depth);
  if (escaped) return document.createTextNode(escaped);
  return bare ? link(bare, bare) : document.createTextNode(whole);
}

function nested(tag, text, depth) {
  const element = el(tag);
  appendInline(element, text, depth + 1);
  return element;
}
