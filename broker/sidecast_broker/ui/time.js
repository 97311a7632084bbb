// Owns how times are said, and what the broker's clock shows.
// Must not know what happened at them.

/** Give a length of time as a person says it: `340 ms`, `6.4 s`, `2 min 05 s`, `1 h 12 min`. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "";
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.round(minutes / 1440)} days`;
}

/** The same in whole seconds, for clocks that tick. */
export function ticking(ms) {
  return ms < 59950 ? `${Math.max(0, Math.floor(ms / 1000))} s` : duration(Math.floor(ms / 1000) * 1000);
}

/** Give how long ago something was: `now`, `12 s ago`, `5 min ago`, `3 h ago`. */
export function ago(ms) {
  if (ms < 2000) return "now";
  if (ms < 60_000) return `${Math.floor(ms / 1000)} s ago`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ago`;
  if (ms < 172_800_000) return `${Math.floor(ms / 3_600_000)} h ago`;
  return `${Math.floor(ms / 86_400_000)} days ago`;
}

/** Give the offset from a beginning, short enough for a column: `0.0 s`, `12.3 s`, `2:05`, `1:12:00`. */
export function offset(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** Give the time of day. */
export const clock = (ms) => CLOCK.format(ms);

/** Give date and time. */
export const full = (ms) => FULL.format(ms);

/** Give the time of day of what is of today, and the date with it of what is older. */
export function moment(ms) {
  return new Date(ms).toDateString() === new Date().toDateString() ? clock(ms) : full(ms);
}

let skewMs = 0;
let skewError = Infinity;

/**
 * Learn how far the broker's clock is from ours, from one answer of it; the quickest answer counts.
 * @param {number} theirs what it says the time is, ms.
 * @param {number} sentAt when we asked, ms.
 * @param {number} receivedAt when the answer came, ms.
 */
export function learnClock(theirs, sentAt, receivedAt) {
  const error = (receivedAt - sentAt) / 2;
  if (Number.isFinite(theirs) && error <= skewError) {
    // What lies within the error may as well be none: on one machine, there is none.
    const skew = theirs - (sentAt + receivedAt) / 2;
    skewMs = Math.sign(skew) * Math.max(0, Math.abs(skew) - error);
    skewError = error;
  } else {
    skewError *= 1.05; // clocks drift: an old measurement loses its weight
  }
}

/** Give the present time by the broker's clock, ms. */
export const brokerNow = () => Date.now() + skewMs;
