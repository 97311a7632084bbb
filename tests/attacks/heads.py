"""Heads of requests that two readers may read differently, or that claim to be somebody.

Must not know how they are parsed.
"""

from __future__ import annotations

from attacks.scene import API_KEY
from attacks.table import BAD, EVENTS, NONE, TWO, UNKNOWN, Group, Row, Served, alice, bob, foreign, watch


def heads() -> Group:
    """Give such heads."""
    hers, his = alice(), bob()
    two = {
        "two Authorizations": watch(his, hers),
        "the same twice": watch(hers, hers),
        "a key beside a token": watch(his, f"X-API-Key: {API_KEY}"),
        "two keys": watch(f"X-API-Key: {API_KEY}", "X-API-Key: x"),
        "a ticket beside a token": watch(his, target=EVENTS + "?ticket=x"),
        "two cookies": watch("Cookie: sidecast_ticket=x; sidecast_ticket=y"),
    }
    claimed = {
        name: f"{name}: alice"
        for name in ("Sidecast-Principal", "Sidecast_Principal", "X-Forwarded-User", "X-Remote-User", "From")
    } | {"Sidecast-Owner": "Sidecast-Owner: bob", "Sidecast-Tenant": "Sidecast-Tenant: acme"}
    broken = {
        "Authorization in a folded line": watch("X-A: b\r\n " + hers),
        "a space before the colon": watch(hers.replace(":", " :")),
        "NUL in the credential": watch(hers + "\0"),
        "a bare CR": watch("X-A: b\r" + hers),
        "a bare LF": watch("X-A: b\n" + hers + "\nContent-Length: 5"),
        "both lengths": watch(hers, "Content-Length: 5", "Transfer-Encoding: chunked"),
        "two lengths": watch(hers, "Content-Length: 0", "Content-Length: 5"),
        "a coding of nobody": watch(hers, "Transfer-Encoding: xchunked"),
        "chunked twice": watch(hers, "Transfer-Encoding: chunked, chunked"),
        "two Hosts": watch(hers, "Host: a", "Host: b"),
        "absolute form": watch(hers, target=f"http://evil.example{EVENTS}"),
    }
    rows = [
        *(Row(name, shot, TWO) for name, shot in two.items()),
        *(foreign(name, watch(his, line), UNKNOWN) for name, line in claimed.items()),
        *(Row(f"{name} alone", watch(line), NONE) for name, line in claimed.items()),
        *(Row(name, shot, BAD) for name, shot in broken.items()),
        Row("X-Forwarded-For", watch("X-Forwarded-For: 127.0.0.1"), NONE),
        Row("Forwarded", watch("Forwarded: for=127.0.0.1"), NONE),
        foreign("another method's name", watch(his, "X-HTTP-Method-Override: DELETE"), UNKNOWN),
        foreign("another path", watch(his, f"X-Original-URL: {EVENTS}"), UNKNOWN),
    ]
    return Group(rows, Served(watch(hers)))
