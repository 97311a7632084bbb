// Owns how DOM nodes are made: of text and attributes, never of HTML.
// Must not know what they show.

/**
 * Make an element.
 * @param {string} tag
 * @param {Object<string, any>} [attributes] `class`, `text`, `on…` listeners; null and false leave one out.
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Set text only where it differs: unchanged nodes cost no layout, and no announcement. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const PATHS = {
  status: "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9",
  note: "M4 5h8M4 8h8M4 11h5",
  progress: "M3 12V9M6.5 12V6.5M10 12V8M13 12V3.5",
  step: "M6 4l4 4-4 4",
  thought: "M8 2.8a4 4 0 0 0-2.2 7.3V12h4.4v-1.9A4 4 0 0 0 8 2.8M6.4 14h3.2",
  debug: "M5 5.5L2.5 8 5 10.5M11 5.5L13.5 8 11 10.5",
  error: "M8 4v5M8 11.6v.2",
  message: "M3 4h10v7H7.5L5 13v-2H3z",
  artifact: "M4.5 2.5h5l2.5 2.5v8.5h-7.5zM9 2.5V5.5h3",
  gap: "M3 8h2M11 8h2M6.5 5l3 6",
  resumed: "M12.5 6A5 5 0 1 0 13 9M12.8 2.8V6H9.6",
  end: "M4 8.5l2.8 2.8L12.3 5",
};

/** Make a decorative icon. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name] ?? PATHS.status);
  svg.append(path);
  return svg;
}

/** Put text on the clipboard, and say so on the button for a moment. */
export async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed"; // pages without TLS have no clipboard, except on localhost
  }
  setTimeout(() => (button.textContent = label), 1200);
}

/** Save bytes as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
