"""What attackers send, and how each is refused.

Must not know how it is sent, nor how the broker finds out.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from access_rig import ALICES, BOBS, HERS_ELSEWHERE, MISSING
from attacks.scene import API_KEY, Scene, Shot, bearer, token
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import claims, jwk, private_key, raw_token


class Row(NamedTuple):
    """One attack.

    Attributes:
        name: says what it tries.
        shot: gives what is sent.
        refused: the status, then a text that the answer's body holds.
    """

    name: str
    shot: Callable[[Scene], Shot]
    refused: tuple[int, str]


class Group(NamedTuple):
    """Attacks of a kind.

    Attributes:
        control: the same request with what it takes, which is served with the status beside it.
    """

    rows: list[Row]
    control: Callable[[Scene], Shot]
    served: int = 200


EVENTS = f"/tasks/{ALICES}/events"
JSON = "Accept: application/json"
UNKNOWN = (404, "there is no such task, or it is not yours")
INVALID = (401, "the credential is not valid")
EXPIRED = (401, "the credential has expired")
NONE = (401, "a credential is required")
TWO = (401, "more than one credential")
BAD = (400, "")
VERSION = "A2A-Version: 1.0"


def watch(*lines: str, target: str = EVENTS) -> Callable[[Scene], Shot]:
    return lambda _scene: Shot("GET", target, (JSON, *lines))


def _signed(header: dict[str, Any], secret: bytes) -> str:
    unsigned = raw_token(header, claims()).rpartition(".")[0]
    digest = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{jwt.utils.base64url_encode(digest).decode()}"


def _pem() -> bytes:
    content: bytes = (
        private_key("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return content


def tokens() -> Group:
    """Give forged, foreign and stale tokens."""
    now_s = int(time.time())
    invalid = {
        "wrong issuer": token(iss="https://evil.example"),
        "wrong audience": token(aud="other"),
        "wrong key": token("rsa-other", headers={"kid": "rsa"}),
        "none": raw_token({"alg": "none", "kid": "rsa"}, claims(), b""),
        "HS256 with the public key": _signed({"alg": "HS256", "kid": "rsa"}, _pem()),
        "HS256 with an empty key": _signed({"alg": "HS256"}, b""),
        "the kid of another key": token("p256", headers={"kid": "rsa"}),
        "an EdDSA key under the kid of a curve": token("ed", headers={"kid": "p256"}),
        "jku": token("rsa-other", headers={"kid": "rsa", "jku": "https://evil.example/jwks"}),
        "x5u": token("rsa-other", headers={"kid": "rsa", "x5u": "https://evil.example/x"}),
        "jwk": token("rsa-other", headers={"jwk": jwk("rsa-other")}),
        "not yet valid": token(nbf=now_s + 3600),
        "kid with dots": token(headers={"kid": "../../../../dev/null"}),
        "kid that is a URL": token(headers={"kid": "https://evil.example/key"}),
        "kid with NUL": token(headers={"kid": "rsa\0"}),
        "no signature": token().rpartition(".")[0] + ".",
        "a key's prefix": "sidecast_",
        "a key but its end": API_KEY[:-1],
        "a key and more": API_KEY + "a",
        "a key in capitals": API_KEY.upper(),
    }
    rows = [Row(name, watch(bearer(text)), INVALID) for name, text in invalid.items()]
    rows += [
        Row("no credential", watch(), NONE),
        Row("expired", watch(bearer(token(exp=now_s - 3600))), EXPIRED),
        Row("an expired key", watch("X-API-Key: old-key"), EXPIRED),
        Row("a key's prefix in its header", watch(f"X-API-Key: {API_KEY[:20]}"), INVALID),
        Row("a token as a key", watch(f"X-API-Key: {token()}"), INVALID),
        Row("basic", watch("Authorization: Basic YWxpY2U6eA=="), INVALID),
    ]
    return Group(rows, watch(bearer(token("ed"))))


def headers() -> Group:
    """Give heads that two readers may read differently."""
    alice, bob = bearer(token()), bearer(token(sub="bob"))
    rows = [
        Row("two Authorizations", watch(bob, alice), TWO),
        Row("the same twice", watch(alice, alice), TWO),
        Row("a key beside a token", watch(bob, f"X-API-Key: {API_KEY}"), TWO),
        Row("a ticket beside a token", watch(bob, target=EVENTS + "?ticket=x"), TWO),
        Row("Sidecast-Principal", watch(bob, "Sidecast-Principal: alice"), UNKNOWN),
        Row("Sidecast-Principal alone", watch("Sidecast-Principal: alice"), NONE),
        Row("Sidecast-Owner", watch(bob, "Sidecast-Owner: bob"), UNKNOWN),
        Row("Sidecast_Principal", watch(bob, "Sidecast_Principal: alice"), UNKNOWN),
        Row("X_API_Key", watch(f"X_API_Key: {API_KEY}"), NONE),
        Row("Authorization in a folded line", watch("X-A: b\r\n " + alice), BAD),
        Row("a space before the colon", watch(alice.replace(":", " :")), BAD),
        Row("both lengths", watch(alice, "Content-Length: 5", "Transfer-Encoding: chunked"), BAD),
        Row("a coding of nobody", watch(alice, "Transfer-Encoding: xchunked"), BAD),
        Row("X-Forwarded-For", watch("X-Forwarded-For: 127.0.0.1"), NONE),
        Row("Forwarded", watch("Forwarded: for=127.0.0.1"), NONE),
    ]
    return Group(rows, watch(alice))


def tickets() -> Group:
    """Give tickets that were tampered with, or are for something else."""

    def carried(change: Callable[[str], str], target: str = EVENTS) -> Callable[[Scene], Shot]:
        return lambda it: Shot("GET", f"{target}?ticket={change(it.ticket)}", (JSON,))

    def flipped(at: int) -> Callable[[str], str]:
        return lambda text: text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 or len(text) :]

    rows = [
        Row(f"byte {at} changed", carried(flipped(at)), INVALID)
        for at in (0, 2, 5, 12, 40, 60, 80, -44, -20, -2, -1)
    ]
    rows += [
        Row("cut off", carried(lambda text: text[:-1]), INVALID),
        Row("padded", carried(lambda text: text + "="), INVALID),
        Row("percent-encoded", carried(lambda text: "%" + f"{ord(text[0]):02x}" + text[1:]), INVALID),
        Row("twice", carried(lambda text: f"{text}&ticket={text}"), TWO),
        Row("for another task", carried(str, f"/tasks/{BOBS}/events"), UNKNOWN),
        Row("of another of one's own", carried(str, "/tasks/task-open----/events"), UNKNOWN),
        Row("as a bearer", lambda it: Shot("GET", EVENTS, (JSON, bearer(it.ticket))), INVALID),
        Row(
            "to make another",
            lambda it: Shot(
                "POST", f"/tickets?ticket={it.ticket}", (), b'{"tasks":["%b"]}' % ALICES.encode()
            ),
            (403, "a ticket only opens streams"),
        ),
    ]
    return Group(rows, carried(str))


def tasks() -> Group:
    """Give ways to another's task in the browser format."""
    bob = bearer(token(sub="bob"))
    tenant = bearer(token(tenant="acme"))

    def hers(target: str, *lines: str) -> Callable[[Scene], Shot]:
        return watch(bob, *lines, target=target)

    rows = [
        Row("by id", hers(EVENTS), UNKNOWN),
        Row("missing", hers(f"/tasks/{MISSING}/events"), UNKNOWN),
        Row("alias", hers(f"/a2a/stream?taskId={ALICES}"), UNKNOWN),
        Row("alias of the api", hers(f"/api/stream/{ALICES}"), UNKNOWN),
        Row("in another tenant", watch(tenant, target=EVENTS), UNKNOWN),
        Row("out of the tenant", watch(bearer(token()), target=f"/tasks/{HERS_ELSEWHERE}/events"), UNKNOWN),
        Row("several tasks", hers(f"/events?task={ALICES}&task={BOBS}"), (404, "")),
        Row("a context", hers("/events?context=context-1"), (404, "")),
        Row("the agent's", hers("/events?agent=1"), (404, "")),
        Row("a foreign cursor", hers(EVENTS, "Last-Event-ID: epoch1-1"), UNKNOWN),
        Row("a foreign cursor in the query", hers(EVENTS + "?last_event_id=epoch1-1"), UNKNOWN),
        Row("star", hers("/tasks/*/events"), UNKNOWN),
        Row("greater", hers("/tasks/%3E/events"), UNKNOWN),
        Row("dots of NATS", hers("/tasks/a.b/events"), UNKNOWN),
        Row("another's, encoded as a subject", hers("/tasks/=dGFzay1vZi1hbGljZQ/events"), UNKNOWN),
        Row("a slash", hers(f"/tasks/x%2F..%2F{ALICES}/events"), UNKNOWN),
        Row("NUL", hers(f"/tasks/{ALICES}%00/events"), UNKNOWN),
        Row("no UTF-8", hers("/tasks/%ff/events"), BAD),
    ]
    return Group(rows, watch(bob, target=f"/tasks/{BOBS}/events"))


def operations() -> Group:
    """Give A2A operations that name another's task."""
    bob = bearer(token(sub="bob"))

    def rpc(method: str, who: str = bob, **params: Any) -> Callable[[Scene], Shot]:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        return lambda _it: Shot("POST", "/", (who, VERSION), body)

    def rest(target: str, method: str = "GET", body: bytes | None = None) -> Callable[[Scene], Shot]:
        return lambda _it: Shot(method, target, (bob, VERSION), body)

    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    hidden, gone = (200, '"code":-32001'), (404, '"code":404')
    rows = [
        *(Row(name, rpc(name, id=ALICES), hidden) for name in ("GetTask", "CancelTask", "SubscribeToTask")),
        *(
            Row(name, rpc(name, message=message | {"taskId": ALICES}), hidden)
            for name in ("SendMessage", "SendStreamingMessage")
        ),
        Row("reference", rpc("SendMessage", message=message | {"referenceTaskIds": [ALICES]}), hidden),
        *(
            Row(
                f"{verb} push",
                rpc(f"{verb}TaskPushNotificationConfig", taskId=ALICES, id="c", url="http://h/"),
                hidden,
            )
            for verb in ("Create", "Get", "Delete")
        ),
        Row("list push", rpc("ListTaskPushNotificationConfigs", taskId=ALICES), hidden),
        Row("tenant", rpc("GetTask", bearer(token(sub="bob", tenant="")), id=BOBS, tenant="acme"), hidden),
        Row("list of a tenant", rpc("ListTasks", bearer(token(tenant="")), tenant="acme"), hidden),
        Row("REST", rest(f"/tasks/{ALICES}"), gone),
        Row("REST cancel", rest(f"/tasks/{ALICES}:cancel", "POST", b"{}"), gone),
        Row("REST tenant", rest(f"/acme/tasks/{HERS_ELSEWHERE}"), gone),
        Row("REST hidden in the query", rest(f"/tasks/{BOBS}?id={ALICES}"), BAD),
        Row("REST push", rest(f"/tasks/{ALICES}/pushNotificationConfigs"), gone),
        Row("no credential", lambda _it: Shot("POST", "/", (VERSION,), b"{}"), NONE),
        Row(
            "a form of another site",
            lambda _it: Shot(
                "POST", "/", (bob, VERSION, "Origin: https://evil.example", "Content-Type: text/plain"), b"{}"
            ),
            (415, ""),
        ),
    ]
    return Group(rows, rpc("GetTask", id=BOBS))


def operators() -> Group:
    """Give ways to what only operators may, on the internal listener."""
    alice, admin = bearer(token()), bearer(token(sub="root", sidecast_rights=["admin"]))
    bound = bearer(token(sub="root", tenant="acme", sidecast_rights=["admin"]))
    event = b'{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}'
    revoked = b'{"principal":"alice"}'
    changing = (("/publish/t", event), ("/revoke", revoked), ("/drain", b"{}"))

    def post(target: str, body: bytes, *lines: str) -> Callable[[Scene], Shot]:
        return lambda _it: Shot("POST", target, lines, body, internal=True)

    rows = [
        row
        for target, body in changing
        for row in (
            Row(f"{target}, nobody", post(target, body), NONE),
            Row(f"{target}, without the right", post(target, body, alice), (403, "needs the right")),
            Row(f"{target}, a key", post(target, body, f"X-API-Key: {API_KEY}"), (403, "needs the right")),
            Row(f"{target}, rebound", post(target, body, admin, "Host: evil.example"), (421, "bad-host")),
            *(
                Row(f"{target}, {kind}", post(target, body, admin, f"Content-Type: {kind}"), (415, ""))
                for kind in (
                    "application/x-www-form-urlencoded",
                    "multipart/form-data; boundary=x",
                    "text/plain",
                )
            ),
            Row(
                f"{target}, no credential from another site",
                post(target, body, "Origin: https://evil.example"),
                NONE,
            ),
        )
    ]
    rows += [
        Row("publish into another tenant", post("/publish/t?tenant=other", event, bound), UNKNOWN),
        Row("drain within a tenant", post("/drain", b"{}", bound), (403, "")),
        Row(
            "revoke beyond a tenant",
            post("/revoke", b'{"principal":"alice","tenant":"other"}', bound),
            (403, ""),
        ),
        Row("streams", lambda _it: Shot("GET", "/streams", (alice,), internal=True), (403, "")),
        Row("streams on the public listener", watch(alice, target="/streams"), (404, "")),
        Row(
            "revoke on the public listener", lambda _it: Shot("POST", "/revoke", (admin,), revoked), (404, "")
        ),
    ]
    return Group(rows, post("/publish/t", event, admin))


GROUPS: dict[str, Callable[[], Group]] = {
    group.__name__: group for group in (tokens, headers, tickets, tasks, operations, operators)
}
