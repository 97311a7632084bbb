// Owns the addresses: of a task's page, and of what the broker serves. Everything is relative to this page,
// because a proxy may serve the broker under a path of its own. Must not know what is behind them.

import { PACES, paceOf } from "./pace.js";

const base = new URL("../", location.href);

/** Give the address of a task's page, or of the list for null; the pace that was chosen stays. */
export const pageOf = (task) => addressOf(task, paceOfPage());

/** Give the pace this page's address names. */
export function paceOfPage() {
  return paceOf(new URLSearchParams(location.search).get("pace"));
}

/** Have this page's address name a pace; no step in the browser's history. */
export function notePace(pace) {
  history.replaceState(null, "", addressOf(taskOfPage(), pace, eventOfPage()));
}

function addressOf(task, pace, event = null) {
  const named = { task, pace: pace === PACES[0] ? null : pace.name, event };
  const query = Object.entries(named).filter(([, value]) => value !== null);
  if (!query.length) return "./";
  return `?${query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&")}`;
}

/** Give the task this page's address names, or null. */
export function taskOfPage() {
  return new URLSearchParams(location.search).get("task") || null;
}

/** Give the id of the event this page's address names, or null. */
export function eventOfPage() {
  return new URLSearchParams(location.search).get("event") || null;
}

/** Give the whole address of an event of the task that is shown; at which pace, who follows it decides. */
export function linkTo(event) {
  return new URL(addressOf(taskOfPage(), PACES[0], event), location.href).href;
}

/** Have this page's address name an event, or none; no step in the browser's history. */
export function noteEvent(event) {
  if (event !== eventOfPage()) history.replaceState(null, "", addressOf(taskOfPage(), paceOfPage(), event));
}

/**
 * Give the address of a task's stream.
 * @param {string} task any text.
 * @param {Object<string, string|number>} query
 */
export function streamOf(task, query) {
  const rest = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  // URLs resolve `.` and `..` as steps in the path, even percent-encoded: those two ids go into the query.
  const dots = task === "." || task === "..";
  const path = dots ? "a2a/stream" : `tasks/${encodeURIComponent(task)}/events`;
  if (dots) rest.unshift(`taskId=${encodeURIComponent(task)}`);
  return new URL(`${path}?${rest.join("&")}`, base).href;
}

/** Give the address of the list of tasks. */
export const tasksAddress = () => new URL("ui/api/tasks", base).href;

/** Give the address of the list of who watches a task. */
export const watchersAddress = (task) => new URL(`ui/api/streams?task=${encodeURIComponent(task)}`, base).href;

/** Give the address where tickets are made. */
export const ticketsAddress = () => new URL("tickets", base).href;
