// Owns the page as a whole: which task it shows, and what works everywhere on it.
// Must not know how tasks are listed or watched.

import { eventOfPage, notePace, paceOfPage, pageOf, taskOfPage } from "./address.js";
import "./login.js";
import { Tasks } from "./tasks.js";
import { Watch } from "./watch.js";
import { Watchers } from "./watchers.js";

const shell = document.getElementById("shell");
const home = document.getElementById("home");
const article = document.getElementById("task");
const main = document.getElementById("main");

let watch = null;
const watchers = new Watchers();
const tasks = new Tasks((task) => go(task), (allowed) => watchers.allow(allowed));

function show(task) {
  watch?.release();
  watch = null;
  shell.dataset.view = task === null ? "home" : "task";
  home.hidden = task !== null;
  article.hidden = task === null;
  document.getElementById("rail").hidden = task === null;
  showPane(eventOfPage() ? "events" : "timeline");
  tasks.mark(task);
  watchers.watch(task);
  main.scrollTop = 0;
  scrollTo(0, 0);
  if (task !== null) watch = new Watch(task, paceOfPage(), (state) => tasks.learn(task, state), notePace);
  else document.title = "Sidecast";
}

function go(task) {
  history.pushState(null, "", pageOf(task));
  show(task);
  main.focus({ preventScroll: true });
}

function showPane(pane) {
  shell.dataset.pane = pane;
  for (const button of document.querySelectorAll(".panes button")) {
    button.setAttribute("aria-pressed", String(button.dataset.pane === pane));
  }
}

addEventListener("popstate", () => show(taskOfPage()));

document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[data-home]");
  if (anchor && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    go(null);
  }
  const button = event.target.closest(".panes button");
  if (button) showPane(button.dataset.pane);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (getComputedStyle(document.querySelector(".tasks")).display === "none") go(null);
    tasks.focusFilter();
  }
});

show(taskOfPage());
