// The command protocol of driver.py for JavaScript clients. Must not know any SDK.
//
// node driver.mjs MODULE PACKAGES: MODULE exports `events(command, options)`, `answer(command, options)` and
// `load(require)`; PACKAGES is the folder that holds node_modules.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [module, packages] = process.argv.slice(2);
const require = createRequire(join(resolve(packages), "here.js"));
const { load, events, answer } = await import(pathToFileURL(resolve(module)).href);
await load((name) => import(pathToFileURL(require.resolve(name)).href));

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// Which id the stream has come to, read off its bytes: the SDKs drop ids.
function listening(ids) {
  return async (url, init) => {
    const response = await fetch(url, init);
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return response;
    const reader = response.body.getReader();
    const body = new ReadableStream(
      {
        async pull(controller) {
          const { done, value } = await reader.read();
          if (done) return controller.close();
          ids.feed(value);
          controller.enqueue(value);
        },
        cancel: (reason) => reader.cancel(reason),
      },
      // Nothing is read ahead: what waits here when the connection breaks would be counted and never given.
      { highWaterMark: 0 },
    );
    return new Response(body, { status: response.status, statusText: response.statusText, headers: response.headers });
  };
}

class Ids {
  last = "";
  #pending = "";
  #line = "";
  #decoder = new TextDecoder();

  feed(data) {
    const lines = (this.#line + this.#decoder.decode(data, { stream: true })).split("\n");
    this.#line = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line === "") this.last = this.#pending;
      else if (line.startsWith("id:")) this.#pending = line.slice(3).trim();
    }
  }
}

// The SDKs put the code of an error in different places, some of them only in its text.
function describe(error) {
  const cause = error.cause ?? {};
  const code = error.code ?? error.errorResponse?.error?.code ?? cause.code ?? error.statusCode;
  return { kind: error.name, code: code ?? null, message: `${error.message} ${cause.message ?? ""}`.trim() };
}

const running = new Map();

async function run(command) {
  const ids = new Ids();
  const abort = new AbortController();
  running.set(command.call, abort);
  const options = { fetch: listening(ids), signal: abort.signal, headers: command.headers ?? {} };
  const call = command.call;
  try {
    if (command.do === "stream" || command.do === "subscribe") {
      for await (const event of events(command, options)) say({ call, event });
      say({ call, end: true, cursor: ids.last });
    } else {
      say({ call, result: await answer(command, options), cursor: ids.last });
    }
  } catch (error) {
    if (abort.signal.aborted) say({ call, end: true, cursor: ids.last });
    else say({ call, error: describe(error), cursor: ids.last });
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if ("leave" in command) running.get(command.leave).abort();
  else void run(command);
}
process.exit(0);
