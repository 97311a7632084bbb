// Owns the paces a reader can choose, and what each asks of the broker.
// Must not know how streams are opened, nor how a choice is shown.

/**
 * @typedef {object} Pace
 * @property {string} name in the page's address.
 * @property {string} label
 * @property {string} format how the events come.
 * @property {Object<string, string|number>} query parameters of the stream.
 */

/** @type {Pace[]} the usual one first. */
export const PACES = [
  { name: "live", label: "Live", format: "events, each as it comes", query: {} },
  {
    name: "batched",
    label: "10 a second",
    format: "events, in batches of 100 ms",
    query: { batch_ms: 100, batch: "array" },
  },
  {
    name: "slow",
    label: "Slow line",
    format: "events, joined, at most 5 a second",
    query: { max_rate: 5, coalesce: 1, slow: "snapshot" },
  },
];

/** Give the pace of a name; the usual one for any other text. */
export const paceOf = (name) => PACES.find((pace) => pace.name === name) ?? PACES[0];

/** Whether events may come joined, so that one stands for several. */
export const joins = (pace) => Boolean(pace.query.coalesce);
