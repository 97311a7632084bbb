// Owns the credential a person has logged in with: in this page's memory only, never in storage or an address.
// Must not know what is asked for with it, nor how it is asked of the person.

import { ticketsAddress } from "./address.js";

const RENEW_AT = 2 / 3;
const RETRY_MS = 5000;

let token = "";
let serial = 0;
const waiting = new Set();

/** Whether somebody has logged in. */
export const hasToken = () => token !== "";

/**
 * Be called when the broker wants a credential: none was sent, or the one there was is not taken any more.
 * @param {(expired: boolean) => void} listener `expired`: there was one.
 */
export function onWanted(listener) {
  addEventListener("credential-wanted", (event) => listener(event.detail.expired));
}

/** Be called when somebody has logged in; gives the function that ends this. */
export function onLogin(listener) {
  waiting.add(listener);
  return () => waiting.delete(listener);
}

/** Take a credential; empty forgets the one there is. */
export function login(text) {
  token = text;
  serial += 1;
  if (token) for (const listener of [...waiting]) listener();
}

/** Ask the broker for something, with the credential there is. */
export async function ask(address, options = {}) {
  const asked = serial;
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(address, { ...options, headers });
  // What was refused to an earlier credential says nothing of the one there is now.
  if (response.status === 401 && asked === serial) {
    const expired = token !== "";
    login("");
    dispatchEvent(new CustomEvent("credential-wanted", { detail: { expired } }));
  }
  return response;
}

/** A refusal to make a ticket. */
export class NoTicket extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The ticket that opens one task's stream, which an EventSource can't do with a header; renewed in time. */
export class Ticket {
  #task;
  #text = "";
  #serial = -1;
  #endsAt = 0;
  #timer = 0;
  #released = false;

  constructor(task) {
    this.#task = task;
  }

  /**
   * Give a ticket that is valid; empty where nobody has logged in.
   * @returns {Promise<string>}
   * @throws {NoTicket} the broker makes none; anything else: it is away.
   */
  async text() {
    if (!token) return "";
    if (this.#serial !== serial || Date.now() >= this.#endsAt) await this.#renew();
    return this.#text;
  }

  /** Make a new one next time, whatever it says of itself. */
  forget() {
    this.#endsAt = 0;
  }

  /** Renew it no longer. */
  release() {
    this.#released = true;
    clearTimeout(this.#timer);
  }

  async #renew() {
    clearTimeout(this.#timer);
    const asked = serial;
    const response = await ask(ticketsAddress(), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ tasks: [this.#task] }),
    });
    const answer = await response.json();
    if (!response.ok) throw new NoTicket(response.status, answer.error?.message ?? "");
    if (asked !== serial || this.#released) return;
    this.#text = answer.ticket;
    this.#serial = serial;
    this.#endsAt = Date.now() + answer.expires_in_s * 1000;
    // Before it ends, so that whenever the stream breaks, coming back costs no request more.
    this.#later(answer.expires_in_s * 1000 * RENEW_AT);
  }

  #later(delayMs) {
    this.#timer = setTimeout(() => this.#renewSoon(), delayMs);
  }

  async #renewSoon() {
    if (!token) return;
    try {
      await this.#renew();
    } catch {
      if (!this.#released) this.#later(RETRY_MS);
    }
  }
}
