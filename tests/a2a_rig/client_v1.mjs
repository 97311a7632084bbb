// The client of @a2a-js/sdk 1.x: JSON-RPC and REST. Must not know who serves.

let sdk, clients;

export async function load(get) {
  sdk = await get("@a2a-js/sdk");
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
  tenant: "",
  message: {
    messageId: command.message_id,
    contextId: command.context ?? "",
    taskId: command.task ?? "",
    role: sdk.Role.ROLE_USER,
    parts: [{ content: { $case: "text", value: command.text }, metadata: undefined, filename: "", mediaType: "" }],
    metadata: undefined,
    extensions: [],
    referenceTaskIds: [],
  },
  configuration: undefined,
  metadata: undefined,
});

export async function* events(command, options) {
  const client = await connect(command, options);
  const given = { signal: options.signal, serviceParameters: options.headers };
  const stream =
    command.do === "stream"
      ? client.sendMessageStream(message(command), given)
      : client.resubscribeTask({ tenant: "", id: command.task }, given);
  for await (const event of stream) yield sdk.StreamResponse.toJSON(event);
}

export async function answer(command, options) {
  if (command.do === "card") {
    const resolver = new clients.DefaultAgentCardResolver({ fetchImpl: options.fetch });
    return sdk.AgentCard.toJSON(await resolver.resolve(command.url));
  }
  const client = await connect(command, options);
  const given = { signal: options.signal, serviceParameters: options.headers };
  switch (command.do) {
    case "send": {
      const result = await client.sendMessage(message(command), given);
      return "messageId" in result ? { message: sdk.Message.toJSON(result) } : { task: sdk.Task.toJSON(result) };
    }
    case "get":
      return sdk.Task.toJSON(await client.getTask({ tenant: "", id: command.task }, given));
    case "cancel":
      return sdk.Task.toJSON(await client.cancelTask({ tenant: "", id: command.task, metadata: undefined }, given));
  }
  throw new Error(command.do);
}
