"""A2A errors: their tables, and the bodies and frames that carry them on each of the four wires.

Must not know what went wrong, nor how an answer is sent.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Raw

from sidecast_broker.core.frame import frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecast_broker.core.a2a.wire import Wire

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

DOMAIN = "a2a-protocol.org"
"""Where the reasons of `ErrorInfo` are defined (A2A 1.0, section 9.5)."""

_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_SERVER_ERROR = -32000
"""JSON-RPC 2.0, section 5.1: for the implementation; A2A's own codes begin at -32001."""


class _Facts(NamedTuple):
    """What one kind of error is on every wire.

    Attributes:
        code: of JSON-RPC, and of a v0.3 REST body.
        status: of HTTP, on REST.
        grpc: the name of the gRPC status.
        message: said where nothing more exact is.
        code_v03: where v0.3 has no such code.
        message_v03: where v0.3 names the error otherwise.
        of_transport: the HTTP status stands on JSON-RPC too, and no reason of the protocol names it.
    """

    code: int
    status: int
    grpc: str
    message: str
    code_v03: int | None = None
    message_v03: str | None = None
    of_transport: bool = False


class ErrorKind(Enum):
    """All errors; the name of a member is the reason in `ErrorInfo`.

    Source: A2A 1.0, section 5.4; JSON-RPC 2.0, section 5.1; digest 1.5 and 2.2. The last ones are HTTP's
    own (A2A 1.0, section 3.3.2): who receives one may never have reached the protocol.
    """

    TASK_NOT_FOUND = _Facts(-32001, 404, "NOT_FOUND", "Task not found")
    TASK_NOT_CANCELABLE = _Facts(-32002, 400, "FAILED_PRECONDITION", "Task can't be canceled")
    PUSH_NOTIFICATION_NOT_SUPPORTED = _Facts(
        -32003, 400, "FAILED_PRECONDITION", "Push notifications are not supported"
    )
    UNSUPPORTED_OPERATION = _Facts(-32004, 400, "FAILED_PRECONDITION", "This operation is not supported")
    CONTENT_TYPE_NOT_SUPPORTED = _Facts(-32005, 400, "INVALID_ARGUMENT", "This content type is not supported")
    INVALID_AGENT_RESPONSE = _Facts(-32006, 500, "INTERNAL", "The agent's answer is invalid")
    EXTENDED_AGENT_CARD_NOT_CONFIGURED = _Facts(
        -32007,
        400,
        "FAILED_PRECONDITION",
        "Extended agent card is not configured",
        message_v03="Authenticated extended card is not configured",
    )
    EXTENSION_SUPPORT_REQUIRED = _Facts(
        -32008, 400, "FAILED_PRECONDITION", "A required extension is missing", code_v03=-32603
    )
    VERSION_NOT_SUPPORTED = _Facts(
        -32009, 400, "FAILED_PRECONDITION", "This A2A version is not supported", code_v03=-32603
    )
    PARSE_ERROR = _Facts(-32700, 400, "INVALID_ARGUMENT", "The body is not JSON")
    INVALID_REQUEST = _Facts(-32600, 400, "INVALID_ARGUMENT", "The request is invalid")
    METHOD_NOT_FOUND = _Facts(-32601, 404, "NOT_FOUND", "Method not found")
    INVALID_PARAMS = _Facts(-32602, 400, "INVALID_ARGUMENT", "Invalid parameters")
    INTERNAL_ERROR = _Facts(-32603, 500, "INTERNAL", "Internal error")
    UNAUTHENTICATED = _Facts(
        _SERVER_ERROR, 401, "UNAUTHENTICATED", "A credential is required", of_transport=True
    )
    PERMISSION_DENIED = _Facts(_SERVER_ERROR, 403, "PERMISSION_DENIED", "Not permitted", of_transport=True)
    REQUEST_TIMEOUT = _Facts(
        _SERVER_ERROR, 408, "DEADLINE_EXCEEDED", "The request took too long to arrive", of_transport=True
    )
    UNSUPPORTED_ENCODING = _Facts(
        _SERVER_ERROR,
        415,
        "INVALID_ARGUMENT",
        "This encoding of the body is not supported",
        of_transport=True,
    )
    BODY_TOO_LARGE = _Facts(
        _SERVER_ERROR, 413, "INVALID_ARGUMENT", "The body is too large", of_transport=True
    )
    RESOURCE_EXHAUSTED = _Facts(
        _SERVER_ERROR, 429, "RESOURCE_EXHAUSTED", "Too many requests or streams", of_transport=True
    )
    UNAVAILABLE = _Facts(_SERVER_ERROR, 503, "UNAVAILABLE", "Not available at the moment", of_transport=True)


class Violation(NamedTuple):
    """One field of the parameters that is wrong."""

    field: str
    description: str


class A2AError(Exception):
    """A request that is answered by an A2A error.

    Args:
        kind: which error.
        message: one sentence for a person; by default what the kind says. It reaches the client, so it holds
            nothing that tells an unknown task from a foreign one.
        metadata: of `ErrorInfo`; v1.0 only.
        violations: which parameters are wrong; v1.0 only.
        rpc_id: the request's raw JSON id, where it was read before the error.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str | None = None,
        *,
        metadata: dict[str, str] | None = None,
        violations: Iterable[Violation] = (),
        rpc_id: bytes | None = None,
    ) -> None:
        super().__init__(message or kind.value.message)
        self.kind = kind
        self.message = message
        self.metadata = metadata or {}
        self.violations = tuple(violations)
        self.rpc_id = rpc_id


class Answer(NamedTuple):
    """A whole HTTP answer: its status, its `Content-Type`, its body."""

    status: int
    content_type: str
    body: bytes


_encode = msgspec.json.Encoder().encode
_NULL = b"null"


def error_code(error: A2AError, wire: Wire) -> int:
    """Give the JSON-RPC code; v0.3 has no -32008 and -32009 (C48)."""
    facts = error.kind.value
    return facts.code if wire.version == "1.0" or facts.code_v03 is None else facts.code_v03


def http_status(error: A2AError, wire: Wire) -> int:
    """Give the HTTP status: the error's own on REST; 200 on JSON-RPC, where it isn't one of HTTP's own.

    Both generations have the statuses of A2A 1.0, section 5.4: v0.3 names none.
    """
    facts = error.kind.value
    return 200 if wire.binding == "jsonrpc" and not facts.of_transport else facts.status


def error_body(error: A2AError, wire: Wire, rpc_id: bytes | None = None) -> bytes:
    """Give the JSON an error is on a wire: one line, whatever its message and the id hold.

    Args:
        error: what to say.
        wire: the client's.
        rpc_id: the request's raw JSON id; None: the one the error knows, else null. REST has none.

    Source: A2A 1.0, sections 9.5 and 11.6 (C46, C47); digest 2.2 (C48).
    """
    facts = error.kind.value
    message = error.message
    if message is None:
        message = facts.message if wire.version == "1.0" else facts.message_v03 or facts.message
    said: dict[str, object] = {"code": error_code(error, wire), "message": message}
    if wire.version == "1.0":
        details = _details(error)
        if wire.binding == "rest":
            said = {"code": facts.status, "status": facts.grpc, "message": message, "details": details}
        elif details:
            said["data"] = details
    if wire.binding == "jsonrpc":
        said = {"jsonrpc": "2.0", "id": Raw(rpc_id or error.rpc_id or _NULL), "error": said}
    elif wire.version == "1.0":
        said = {"error": said}
    return escape_line_ends(_encode(said))


def error_frame(error: A2AError, wire: Wire, rpc_id: bytes | None = None) -> bytes:
    """Give the server-sent event that ends a stream which began well (C50).

    It is named `error` in v1.0 only: clients of v0.3 pass over an event that has a name, or fail on it.
    """
    return frame(error_body(error, wire, rpc_id), event="error" if wire.version == "1.0" else None)


def refusal(error: A2AError, wire: Wire, rpc_id: bytes | None = None, *, streams: bool) -> Answer:
    """Give the whole answer to a request that came to nothing.

    A streaming method of v0.3 JSON-RPC is answered by a stream of one event, for its clients read nothing
    else; v1.0 must not (C09, C10; digest 0.3).

    Args:
        error: what to say.
        wire: the client's.
        rpc_id: as in `error_body`.
        streams: the operation that was asked for would have been answered by a stream.
    """
    status = http_status(error, wire)
    body = error_body(error, wire, rpc_id)
    if streams and status == 200 and wire.version == "0.3":
        return Answer(status, EVENT_STREAM, frame(body))
    return Answer(status, JSON, body)


def escape_line_ends(text: bytes) -> bytes:
    """Escape what is no line end to JSON and to server-sent events, but is one to many a reader.

    U+0085, U+2028 and U+2029 can only stand inside of strings; Python's `splitlines` breaks at them.

    Args:
        text: valid JSON, UTF-8.
    """
    if text.isascii():
        return text
    return (
        text.replace(b"\xc2\x85", b"\\u0085")
        .replace(b"\xe2\x80\xa8", b"\\u2028")
        .replace(b"\xe2\x80\xa9", b"\\u2029")
    )


def _details(error: A2AError) -> list[dict[str, object]]:
    if error.kind.value.of_transport:
        return []
    details: list[dict[str, object]] = [
        {
            "@type": _ERROR_INFO,
            "reason": error.kind.name,
            "domain": DOMAIN,
            "metadata": error.metadata,
        }
    ]
    if error.violations:
        fields = [violation._asdict() for violation in error.violations]
        details.append({"@type": _BAD_REQUEST, "fieldViolations": fields})
    return details
