// Owns the form that asks for a credential.
// Must not know what it is used for: it goes into the session, and nowhere else.

import { setText } from "./element.js";
import { login, onWanted } from "./session.js";

const dialog = document.getElementById("login");
const field = document.getElementById("login-token");
const note = document.getElementById("login-note");

const opener = document.getElementById("login-open");
let dismissed = false;

onWanted((expired) => {
  if (dialog.open) return;
  opener.hidden = false;
  // The list asks every few seconds: who wants to read on what is shown is asked once.
  if (dismissed && !expired) return;
  show(expired ? "The broker does not take this credential: it has ended, or is another's." : "");
});

function show(text) {
  setText(note, text);
  note.hidden = !text;
  dialog.showModal();
  field.focus();
}

opener.addEventListener("click", () => show(""));

document.getElementById("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value.trim();
  field.value = "";
  // What can't stand in a header would fail as if the broker were away.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    setText(note, "A credential has no spaces, and only plain letters, digits and signs.");
    note.hidden = false;
    return;
  }
  dialog.close();
  opener.hidden = true;
  dismissed = false;
  login(text);
});

dialog.addEventListener("cancel", () => (dismissed = true));
dialog.addEventListener("close", () => (field.value = ""));
