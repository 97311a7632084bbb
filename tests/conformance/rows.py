"""The A2A checklist: what each row demands, and which command runs the tests that prove it.

Must not know the tests: they name their rows themselves, by `@pytest.mark.row("C01")`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Command = Literal["test", "clients", "accept"]

COMMANDS: tuple[Command, ...] = ("test", "clients", "accept")
"""The `make` targets that run tests."""

Generations = Literal["1.0", "0.3", "both"]


class Row(NamedTuple):
    """One demand.

    Attributes:
        name: its name, `C01`.
        generations: of A2A it is about.
        demand: what must hold.
        proven_in: the commands whose runs prove it; none: it is open.
        awaits: what an open row waits for.
    """

    name: str
    generations: Generations
    demand: str
    proven_in: frozenset[Command]
    awaits: str = ""


_CLIENTS: frozenset[Command] = frozenset({"clients"})
_TEST: frozenset[Command] = frozenset({"test"})
_BOTH = _CLIENTS | _TEST
_ACCEPT: frozenset[Command] = frozenset({"accept"})

ROWS = (
    # subscribing
    Row("C01", "1.0", "A subscription begins with the Task as it stands.", _CLIENTS),
    Row(
        "C02",
        "1.0",
        "That Task is folded at the very position the live events continue from: nothing is missing, "
        "nothing comes twice.",
        _CLIENTS,
    ),
    Row(
        "C03",
        "1.0",
        "A subscription ends right behind the event that ends the task, whichever of the four states it is.",
        _CLIENTS,
    ),
    Row(
        "C04", "1.0", "A subscription stays open while the task waits for input or for credentials.", _CLIENTS
    ),
    Row(
        "C05",
        "1.0",
        "Subscribing to a task that has ended is `UnsupportedOperationError`; with a cursor before "
        "its end it gives the Task at the cursor, the rest, and the end.",
        _CLIENTS,
    ),
    Row("C06", "1.0", "Subscribing to an unknown task is `TaskNotFoundError`.", _CLIENTS),
    Row("C07", "1.0", "A task of somebody else is answered to the byte like an unknown one.", _BOTH),
    Row(
        "C08",
        "1.0",
        "An agent that does not stream is given streaming by the broker, and the card says so.",
        _CLIENTS,
    ),
    Row(
        "C09",
        "1.0",
        "An error before a JSON-RPC stream begins is plain JSON with status 200, not an event stream.",
        _CLIENTS,
    ),
    Row(
        "C10",
        "0.3",
        "An error before a JSON-RPC stream begins is an event stream with status 200, of one event "
        "without a name.",
        _CLIENTS,
    ),
    # sending
    Row(
        "C11",
        "1.0",
        "The stream of a message begins with the Task, also where the agent's own answer does not.",
        _CLIENTS,
    ),
    Row("C12", "1.0", "An answer that is a message alone is one frame and the end.", _CLIENTS),
    Row(
        "C13",
        "1.0",
        "The stream of a message ends with the agent's turn, and not at credentials that come by "
        "another way.",
        _CLIENTS,
    ),
    # order and independence
    Row("C14", "both", "Each subscriber gets the events in the order they were published.", _CLIENTS),
    Row("C15", "both", "All subscribers of a task get the same events.", _CLIENTS),
    Row("C16", "both", "A subscriber that leaves, dies or stalls changes nothing for the others.", _CLIENTS),
    Row("C17", "both", "A client that leaves neither cancels nor holds up the agent's work.", _CLIENTS),
    Row(
        "C18",
        "both",
        "A client that is too slow is cut so that it can resume: it gets no hole, and no end that "
        "looks like completion.",
        _CLIENTS,
    ),
    Row(
        "C19",
        "both",
        "One frame for each event published after a client's position: none is merged.",
        _CLIENTS,
    ),
    # frames
    Row(
        "C20",
        "1.0",
        "A JSON-RPC frame is a response with the request's own id, of the same type, around the event.",
        _CLIENTS,
    ),
    Row("C21", "1.0", "A REST frame is the bare event.", _CLIENTS),
    Row("C22", "both", "A stream has status 200 and `Content-Type: text/event-stream`.", _CLIENTS),
    Row(
        "C23",
        "both",
        "An event is one `data:` line of compact JSON below 4 MiB, or an explicit error.",
        _BOTH,
    ),
    Row("C24", "both", "A stream is neither cached, nor buffered by proxies, nor compressed.", _CLIENTS),
    Row(
        "C25",
        "both",
        "A heartbeat is a bare comment line without a blank one; its period can be set, and is at "
        "most 4 s by default.",
        _CLIENTS,
    ),
    Row("C26", "both", "Ten seconds of silence break no SDK's client with its own settings.", _ACCEPT),
    Row(
        "C27",
        "both",
        "Only frames that can be resumed from have an `id:`; a Task has that of the position it was "
        "folded at.",
        _CLIENTS,
    ),
    Row("C28", "both", "No `retry:` stands in a block without data.", _CLIENTS),
    # resuming
    Row(
        "C29",
        "both",
        "A cursor, in the header or the query, gives every event behind it exactly once, then live ones.",
        _CLIENTS,
    ),
    Row(
        "C30",
        "both",
        "A cursor that can't be continued gives a fresh Task that says so; never another task's events.",
        _BOTH,
    ),
    Row(
        "C31",
        "1.0",
        "A resumed stream begins with a Task too, folded at the cursor: no appended piece is applied twice.",
        _CLIENTS,
    ),
    Row(
        "C32",
        "0.3",
        "`tasks/resubscribe` takes a cursor in its metadata or the header; without one it gives the "
        "Task and live events.",
        _CLIENTS,
    ),
    Row("C33", "0.3", "A stream has at most one Task.", _CLIENTS),
    # v0.3
    Row(
        "C34",
        "0.3",
        "A JSON-RPC result is the object itself with its `kind`; a status update has `final`.",
        _CLIENTS,
    ),
    Row(
        "C35",
        "0.3",
        "`final` is true on the status that ends the task, and on the one that ends the stream of a message.",
        _CLIENTS,
    ),
    Row(
        "C36",
        "0.3",
        "On JSON-RPC states are in kebab case, roles are `user` and `agent`, and messages and parts "
        "have a `kind`.",
        _BOTH,
    ),
    Row("C37", "0.3", "REST is the ProtoJSON of v0.3's proto.", _BOTH),
    Row("C38", "both", "Every event survives the way to the other generation and back.", _BOTH),
    Row("C39", "both", "Unknown fields pass unchanged, and numbers keep their spelling.", _BOTH),
    # versions
    Row("C40", "1.0", "No `A2A-Version`, or an empty one, means 0.3.", _BOTH),
    Row("C41", "1.0", "A version that is not spoken here is `VersionNotSupportedError`.", _BOTH),
    Row(
        "C42",
        "1.0",
        "The patch number does not count, nor the case of the header's name; the query can say the "
        "version as well.",
        _BOTH,
    ),
    Row("C43", "1.0", "Clients of both generations watch one task at once, each in its own form.", _CLIENTS),
    Row(
        "C44",
        "1.0",
        "`:subscribe` answers GET and POST, with and without a tenant, and under `/v1`; ids are "
        "decoded once.",
        _BOTH,
    ),
    Row(
        "C45",
        "1.0",
        "A tenant, on the path or in the parameters, sees its own tasks only; others are unknown.",
        _CLIENTS,
    ),
    # errors
    Row(
        "C46",
        "1.0",
        "The `data` of a JSON-RPC error is a list of typed objects; an A2A error names its reason and "
        "domain there.",
        _CLIENTS,
    ),
    Row(
        "C47",
        "1.0",
        "A REST error is an `error` object with code, status, message and details, under the HTTP "
        "status that belongs to it.",
        _CLIENTS,
    ),
    Row(
        "C48",
        "0.3",
        "Errors have the same codes without those v0.3 lacks; on REST the body has a numeric code and "
        "a message.",
        _BOTH,
    ),
    Row(
        "C49",
        "both",
        "No JSON, no envelope, an unknown method and wrong parameters have JSON-RPC's own codes; v1.0 "
        "names the parameter.",
        _BOTH,
    ),
    Row(
        "C50",
        "1.0",
        "What ends a stream before its time is said in an `error` event (without a name in v0.3), "
        "then it ends.",
        _CLIENTS,
    ),
    Row(
        "C51",
        "both",
        "No credential, or a wrong one, is 401 with a challenge, and tells nothing of the task.",
        _BOTH,
    ),
    Row("C52", "both", "Who asks is decided before anything of a task is looked up.", _TEST),
    Row("C53", "both", "A stream does not outlive its credential.", _TEST),
    Row("C54", "both", "Each credential the card declares works on all bindings.", _BOTH),
    Row(
        "C55",
        "1.0",
        "A client that doesn't name an extension the agent requires gets `ExtensionSupportRequiredError`.",
        _CLIENTS,
    ),
    # the card
    Row("C56", "both", "The card, at both of its paths, names only endpoints that work.", _CLIENTS),
    Row(
        "C57",
        "1.0",
        "The card says how long it may be kept, has an `ETag`, and honours `If-None-Match`.",
        _CLIENTS,
    ),
    Row("C58", "1.0", "A signature the broker has broken is not served.", _CLIENTS),
    Row("C59", "both", "One card serves clients of both generations.", _CLIENTS),
    # contents
    Row(
        "C60",
        "both",
        "Times are UTC with `Z` in v1.0; those of v0.3, whatever their offset, are converted.",
        _BOTH,
    ),
    Row("C61", "both", "What follows the end of a task is delivered to nobody, and counted.", _CLIENTS),
    Row("C62", "both", "After an exception of the agent its watchers see FAILED before the end.", _BOTH),
    Row(
        "C63",
        "both",
        "However a task is canceled (in words, silently, or while nothing runs), its watchers see "
        "CANCELED before the end.",
        _CLIENTS,
    ),
    # publishing
    Row(
        "C64",
        "both",
        "With NATS away the agent works on within a bound; its events follow in order, or the log "
        "says what is lost.",
        _TEST,
    ),
    Row(
        "C65",
        "both",
        "What is published twice is delivered once; of two who publish one task, one is found out.",
        _BOTH,
    ),
    Row("C66", "both", "The adapter is one line, on a2a-sdk 0.3.x as on 1.x.", _BOTH | _ACCEPT),
    Row("C67", "both", "An answer that is a message alone makes no task; its id is unknown.", _CLIENTS),
    Row(
        "C68",
        "both",
        "A task can be subscribed to however it began: also by a message sent without a stream, "
        "blocking or not.",
        _CLIENTS,
    ),
    Row("C69", "both", "Beyond a limit the answer is 429 or 503 with `Retry-After`, and no stream.", _TEST),
    Row(
        "C70",
        "both",
        "When a broker stops, no client takes that for the end of its task, and each resumes elsewhere.",
        _BOTH,
    ),
    # passing through
    Row(
        "C71",
        "both",
        "What is not the broker's is the agent's own answer, to the byte, in the agent's own form.",
        _CLIENTS,
    ),
    Row(
        "C72",
        "both",
        "Headers between two hops stay there, the others pass; the agent's event stream is read "
        "however it is spelled.",
        _BOTH,
    ),
    Row(
        "C73",
        "both",
        "The broker works behind a proxy that ends TLS, and its documentation says how.",
        _CLIENTS,
    ),
    Row(
        "C74",
        "1.0",
        "Ready for A2A 1.1: one event for each change of a task, and `generation` passes unchanged.",
        _BOTH,
    ),
)

ROW_OF = {row.name: row for row in ROWS}
