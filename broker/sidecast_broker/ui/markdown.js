// Owns Markdown that grows: finished blocks are made once, only the last one anew when it grows.
// A small dialect: headings, paragraphs, lists, quotes, code, tables, rules. Must not know artifacts.

import { el } from "./element.js";
import { appendInline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const QUOTE = /^ {0,3}> ?/;
const QUOTES_MAX = 8;

export class GrowingMarkdown {
  /** The element that shows it. */
  element = el("div", { class: "markdown", dir: "auto" });
  #open = "";
  #nodes = [];

  /** Add a piece at the end. */
  add(text) {
    this.#open += text;
    const end = finishedEnd(this.#open);
    for (const node of this.#nodes) node.remove();
    this.#nodes = [];
    if (end) {
      this.element.append(...blocks(this.#open.slice(0, end)));
      this.#open = this.#open.slice(end);
    }
    this.#nodes = blocks(this.#open);
    this.element.append(...this.#nodes);
  }

  /** Nothing is held back. */
  finish() {}
}

/** Find how much of a text nothing that follows can change: up to its last blank line outside of code. */
function finishedEnd(text) {
  let fence = null;
  let end = 0;
  let start = 0;
  for (let stop = text.indexOf("\n"); stop >= 0; stop = text.indexOf("\n", start)) {
    const line = text.slice(start, stop);
    start = stop + 1;
    const mark = FENCE.exec(line)?.[1];
    if (fence) {
      if (mark && mark[0] === fence[0] && mark.length >= fence.length) {
        fence = null;
        end = start;
      }
    } else if (mark) fence = mark;
    else if (!line.trim()) end = start;
  }
  return end;
}

/**
 * Make the block nodes of a Markdown text.
 * @param {string} text
 * @returns {Node[]}
 */
export function blocks(text, quotes = 0) {
  const lines = text.split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      let stop = at + 1;
      while (stop < lines.length && !close.test(lines[stop])) stop += 1;
      const code = el("code", { text: lines.slice(at + 1, stop).join("\n") });
      nodes.push(el("pre", { class: "code", tabindex: "0", "data-language": fence[2] || null }, code));
      at = stop + 1;
    } else if (heading) {
      // One level down: the page's own headings enclose them.
      nodes.push(inline(`h${Math.min(6, heading[1].length + 2)}`, heading[2]));
      at += 1;
    } else if (RULE.test(line)) {
      nodes.push(el("hr"));
      at += 1;
    } else if (QUOTE.test(line) && quotes < QUOTES_MAX) {
      let stop = at;
      while (stop < lines.length && lines[stop].trim()) stop += 1;
      const inner = lines.slice(at, stop).map((each) => each.replace(QUOTE, "")).join("\n");
      nodes.push(el("blockquote", {}, ...blocks(inner, quotes + 1)));
      at = stop;
    } else if (ITEM.test(line)) {
      let stop = at;
      while (stop < lines.length && lines[stop].trim() && !FENCE.test(lines[stop])) stop += 1;
      nodes.push(...lists(lines.slice(at, stop)));
      at = stop;
    } else if (line.includes("|") && at + 1 < lines.length && TABLE_RULE.test(lines[at + 1])) {
      let stop = at + 2;
      while (stop < lines.length && lines[stop].includes("|")) stop += 1;
      nodes.push(table(lines.slice(at, stop)));
      at = stop;
    } else {
      let stop = at + 1;
      while (stop < lines.length && !startsBlock(lines[stop])) stop += 1;
      nodes.push(inline("p", lines.slice(at, stop).map((each) => each.trim()).join("\n")));
      at = stop;
    }
  }
  return nodes;
}

function startsBlock(line) {
  return !line.trim() || [FENCE, HEADING, ITEM, QUOTE, RULE].some((start) => start.test(line));
}

function inline(tag, text) {
  const element = el(tag);
  appendInline(element, text);
  return element;
}

function lists(lines) {
  const nodes = [];
  const open = []; // the lists we are in: {indent, list, item}
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (!match) {
      // A line that continues the item before it.
      open.at(-1).item.append("\n");
      appendInline(open.at(-1).item, line.trim());
      continue;
    }
    const [, space, mark, content] = match;
    const indent = space.replace(/\t/g, "    ").length;
    while (open.length && indent < open.at(-1).indent) open.pop();
    if (!open.length || indent > open.at(-1).indent + 1) {
      const ordered = /\d/.test(mark);
      const list = el(ordered ? "ol" : "ul", { start: ordered ? String(parseInt(mark, 10)) : null });
      if (open.length) open.at(-1).item.append(list);
      else nodes.push(list);
      open.push({ indent, list, item: null });
    }
    const top = open.at(-1);
    top.item = el("li");
    const box = /^\[([ xX])\]\s+/.exec(content);
    if (box) top.item.append(box[1] === " " ? "☐ " : "☑ ");
    appendInline(top.item, box ? content.slice(box[0].length) : content);
    top.list.append(top.item);
  }
  return nodes;
}

function table([head, , ...rows]) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => el("tr", {}, ...cells(line).map((cell) => inline(tag, cell)));
  const body = el("tbody", {}, ...rows.map((line) => row(line, "td")));
  return el("div", { class: "scroll", tabindex: "0" }, el("table", {}, el("thead", {}, row(head, "th")), body));
}
