// The client of @a2a-js/sdk 0.3.x: JSON-RPC and REST. Must not know who serves.

let clients;

export async function load(get) {
  clients = await get("@a2a-js/sdk/client");
}

function authenticated(fetch, credentials) {
  const headers = {};
  if (credentials?.bearer) headers.Authorization = `Bearer ${credentials.bearer}`;
  if (credentials?.apiKey) headers["X-API-Key"] = credentials.apiKey;
  const handler = { headers: async () => headers, shouldRetryWithHeaders: async () => undefined };
  return clients.createAuthenticatingFetchWithRetry(fetch, handler);
}

async function connect(command, { fetch }) {
  const own = { fetchImpl: command.credentials ? authenticated(fetch, command.credentials) : fetch };
  const transport =
    command.binding === "rest" ? new clients.RestTransportFactory(own) : new clients.JsonRpcTransportFactory(own);
  const factory = new clients.ClientFactory({
    transports: [transport],
    cardResolver: new clients.DefaultAgentCardResolver(own),
  });
  return factory.createFromUrl(command.url);
}

const message = (command) => ({
  message: {
    kind: "message",
    messageId: command.message_id,
    role: "user",
    parts: [{ kind: "text", text: command.text }],
    ...(command.task && { taskId: command.task }),
    ...(command.context && { contextId: command.context }),
  },
});

const task = (command) => ({ id: command.task, ...(command.metadata && { metadata: command.metadata }) });

export async function* events(command, options) {
  const client = await connect(command, options);
  const given = { signal: options.signal, serviceParameters: options.headers };
  yield* command.do === "stream"
    ? client.sendMessageStream(message(command), given)
    : client.resubscribeTask(task(command), given);
}

export async function answer(command, options) {
  if (command.do === "card") {
    return new clients.DefaultAgentCardResolver({ fetchImpl: options.fetch }).resolve(command.url);
  }
  const client = await connect(command, options);
  const given = { signal: options.signal, serviceParameters: options.headers };
  switch (command.do) {
    case "send":
      return client.sendMessage(message(command), given);
    case "get":
      return client.getTask({ id: command.task }, given);
    case "cancel":
      return client.cancelTask({ id: command.task }, given);
  }
  throw new Error(command.do);
}
