"""What web pages of other origins can have a browser send to the public listener.

Must not know which headers decide.
"""

from __future__ import annotations

from access_rig import ALICES, OPEN
from attacks.table import (
    EVIL,
    JSON,
    NONE,
    VERSION,
    Group,
    Refusal,
    Row,
    Served,
    Shooter,
    alice,
    calls,
    sends,
)

LISTED = "https://app.example"
ALLOWS = "Access-Control-Allow-Origin"
NO_JSON = Refusal(415)

FOREIGN = (
    *(EVIL, "Origin: null", f"Origin: {LISTED}.evil.example", "Origin: http://app.example"),
    *(f"Origin: {LISTED}:444", "Origin: https://evil.example\r\nOrigin: https://app.example"),
)
REBOUND = ("Host: evil.example", "Origin: http://evil.example")
"""Of a page whose name has come to point here: to the browser it is the listener's own origin."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain")


def pages() -> Group:
    """Give such requests, by a browser that has a credential of alice's."""
    hers = alice()
    send = calls("CancelTask", hers, id=ALICES)
    ticket = b'{"tasks":["%b"]}' % ALICES.encode()

    def as_form(shot: Shooter, *lines: str) -> Shooter:
        return lambda it: (found := shot(it))._replace(lines=(*found.lines, *lines))

    made = sends("POST", "/tickets", hers, body=ticket)
    rows = [
        *(
            Row(
                f"{kind} to the A2A door from {origin}",
                as_form(send, f"Content-Type: {kind}", origin),
                NO_JSON,
            )
            for kind in FORMS
            for origin in (*FOREIGN, "Sec-Fetch-Site: cross-site")
        ),
        *(
            Row(f"{kind} for a ticket", as_form(made, f"Content-Type: {kind}", EVIL), NO_JSON, Served(made))
            for kind in FORMS
        ),
        *(
            Row(
                f"{origin} asks whether it may",
                sends("OPTIONS", f"/tasks/{OPEN}/events", origin, "Access-Control-Request-Method: GET"),
                Refusal(405),
                Served(
                    sends(
                        "OPTIONS",
                        f"/tasks/{OPEN}/events",
                        f"Origin: {LISTED}",
                        "Access-Control-Request-Method: GET",
                    ),
                    204,
                    ALLOWS,
                ),
                absent=(ALLOWS,),
            )
            for origin in FOREIGN
        ),
        *(
            _reads(f"{origin} reads", sends("GET", f"/tasks/{OPEN}/events", JSON, hers, origin))
            for origin in FOREIGN
        ),
        *(
            Row(f"under another name, by {name}", shot, NONE)
            for name, shot in {
                "POST": calls("CancelTask", *REBOUND, id=ALICES),
                "GET": sends("GET", f"/tasks/{ALICES}/events", JSON, *REBOUND),
            }.items()
        ),
        Row(
            "a cookie makes a ticket",
            lambda it: sends("POST", "/tickets", f"Cookie: sidecast_ticket={it.ticket}", EVIL, body=ticket)(
                it
            ),
            Refusal(403, "a ticket only opens streams"),
            Served(made),
        ),
        Row(
            "a cookie cancels",
            lambda it: sends(
                "POST", f"/tasks/{ALICES}:cancel", VERSION, f"Cookie: sidecast_ticket={it.ticket}", body=b"{}"
            )(it),
            Refusal(403),
        ),
    ]
    return Group(rows, Served(send, text='"result"'), {"server__cors_origins": LISTED})


def _reads(name: str, shot: Shooter) -> Row:
    """Give a row that is answered, but without what lets the page read the answer."""
    allowed = sends("GET", f"/tasks/{OPEN}/events", JSON, alice(), f"Origin: {LISTED}")
    return Row(name, shot, Refusal(200), Served(allowed, text=ALLOWS), twin=shot, absent=(ALLOWS,))
