"""Ways to what only operators and publishers may, on the internal listener.

Must not know how rights are checked.
"""

from __future__ import annotations

from access_rig import ALICES
from attacks.scene import API_KEY, bearer, token
from attacks.table import (
    EVIL,
    NONE,
    NOWHERE,
    UNKNOWN,
    Group,
    Refusal,
    Row,
    Served,
    alice,
    operates,
    sends,
)

EVENT = b'{"statusUpdate":{"taskId":"%b","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}'
WITHOUT = Refusal(403, "this needs the right")
REBOUND = Refusal(421, "bad-host")
ELSEWHERE = Refusal(403, "pages of other origins")
NO_JSON = Refusal(415)

HOSTS = (
    *("evil.example", "evil.example:8481", "localhost.evil.example", "127.0.0.1.evil.example:8481"),
    *("10.0.0.1", "0.0.0.0:8481", "[2001:db8::1]:8481", "localhost@evil.example", ""),
)
PAGES = (
    *(EVIL, "Origin: null", "Origin: http://localhost:8480", "Origin: http://localhost.evil.example"),
    *("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"),
)
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain")


def _who(name: str, *rights: str, **claims: str) -> str:
    return bearer(token(sub=name, sidecast_rights=list(rights), **claims))


def _operation(target: str, body: bytes, served: int = 200) -> list[Row]:
    """Give all that can be wrong with one operation; the control comes from who has the right."""
    root = _who("root", "admin")
    control = Served(operates("POST", target, root, body=body), served)

    def row(name: str, refused: Refusal, *lines: str) -> Row:
        return Row(f"{target}, {name}", operates("POST", target, *lines, body=body), refused, control)

    return [
        row("nobody", NONE),
        row("without the right", WITHOUT, alice()),
        row("an API key", WITHOUT, f"X-API-Key: {API_KEY}"),
        row("a right of another name", WITHOUT, _who("mallory", "Admin", "admin ", "*")),
        row("said by a header", WITHOUT, alice(), "Sidecast-Principal: root", "Sidecast-Rights: admin"),
        *(row(f"rebound to {host!r}", REBOUND, root, f"Host: {host}") for host in HOSTS),
        *(row(f"from {page}", ELSEWHERE, root, page) for page in PAGES),
        row("from a page, without a credential", ELSEWHERE, EVIL),
        *(row(kind, NO_JSON, root, f"Content-Type: {kind}") for kind in FORMS),
    ]


def operators() -> Group:
    """Give such ways; what makes the broker go away comes last, for it does so at the control."""
    root, bound = _who("root", "admin"), _who("root", "admin", tenant="acme")
    teller = _who("teller", "publish")
    event = EVENT % b"t"
    revoked = b'{"principal":"mallory"}'
    beyond = b'{"principal":"mallory","tenant":"other"}'
    listed = Served(operates("GET", "/streams", root), text='"streams"')
    rows = [
        *_operation("/publish/t", event),
        Row(
            "publish into another tenant",
            operates("POST", "/publish/t?tenant=other", bound, body=event),
            UNKNOWN,
            Served(operates("POST", "/publish/t?tenant=other", root, body=event)),
            twin=operates("POST", "/publish/u?tenant=another", bound, body=EVENT % b"u"),
        ),
        *(
            Row(
                f"publish as {name}",
                operates("POST", f"/publish/{ALICES}{query}", alice(), *lines, body=EVENT % ALICES.encode()),
                WITHOUT,
            )
            for name, query, lines in (
                ("an owner of one's choice", "?owner=alice", ()),
                ("an owner named in a header", "", ("Sidecast-Owner: alice",)),
            )
        ),
        Row(
            "an event of another task",
            operates("POST", "/publish/t", teller, body=EVENT % ALICES.encode()),
            Refusal(422, "names task"),
            Served(operates("POST", "/publish/t", teller, body=event)),
            # The answer repeats what was sent.
            twin=operates("POST", "/publish/t", teller, body=EVENT % ALICES.encode()),
        ),
        Row(
            "publish below all tasks",
            operates("POST", "/publish/%3E?agent=*", teller, body=b"x"),
            Refusal(422),
            Served(operates("POST", "/publish/t", teller, body=event)),
        ),
        *_operation("/revoke", revoked),
        Row(
            "revoke beyond a tenant",
            operates("POST", "/revoke", bound, body=beyond),
            Refusal(403, "within that tenant only"),
            Served(operates("POST", "/revoke", root, body=beyond)),
        ),
        Row("revoke with the right to publish", operates("POST", "/revoke", teller, body=revoked), WITHOUT),
        Row("streams", operates("GET", "/streams", alice()), WITHOUT, listed),
        Row("streams, nobody", operates("GET", "/streams"), NONE, listed),
        Row("streams with the right to publish", operates("GET", "/streams", teller), WITHOUT, listed),
        *(
            Row(
                f"streams, rebound to {host!r}",
                operates("GET", "/streams", root, f"Host: {host}"),
                REBOUND,
                listed,
            )
            for host in HOSTS
        ),
        *(
            Row(f"streams, from {page}", operates("GET", "/streams", root, page), ELSEWHERE, listed)
            for page in PAGES
        ),
        *(
            Row(f"{method} {target} on the public listener", sends(method, target, root, body=body), NOWHERE)
            for method, target, body in (
                ("GET", "/streams", None),
                ("POST", "/revoke", revoked),
                ("POST", "/drain", b"{}"),
                ("POST", "/publish/t", event),
                ("GET", "/metrics", None),
            )
        ),
        Row(
            "streams of other tenants",
            operates("GET", "/streams", bound),
            Refusal(200, '"streams": []'),
            listed,
            absent=("task-open",),
        ),
        *_operation("/drain", b"{}", 202),
        Row(
            "drain within a tenant",
            operates("POST", "/drain", bound, body=b"{}"),
            Refusal(403, "bound to a tenant"),
            Served(operates("POST", "/drain", root, body=b"{}"), 202),
        ),
    ]
    return Group(rows, listed)
