"""Texts that stand where others should: in targets, headers and framing.

Must not know which of them are refused, nor by whom.
"""

from __future__ import annotations

from attacks.asks import ORIGIN

LONG = "x" * 9000
WORDS = (
    *(
        "",
        " ",
        "\t",
        "0",
        "-1",
        "1e9",
        "9" * 30,
        "null",
        "true",
        "NaN",
        "*",
        ">",
        ".",
        "..",
        "%",
        "%00",
        "%ff",
    ),
    *(
        "\x00",
        "\x7f",
        "\u00e9",
        "\u2028",
        "\udcff",
        "\U0001f600",
        "a,b",
        "a;b",
        '"',
        "'",
        "\\",
        "<script>",
        "${x}",
    ),
    *("x" * 300, LONG),
)
NAMES = (
    *(
        "from",
        "types",
        "debug",
        "named",
        "heartbeat",
        "refusal",
        "batch_ms",
        "batch_max",
        "batch",
        "max_rate",
    ),
    *("burst", "coalesce", "wait_s", "last_event_id", "taskId", "tenant", "agent", "owner", "A2A-Version"),
    *("pageSize", "pageToken", "id", "task", "context", "cookie", "historyLength"),
    *("subscription", "ack", "client", "slow"),
)
"""Of the query."""
METHODS = (
    "GET",
    "POST",
    "HEAD",
    "OPTIONS",
    "DELETE",
    "PUT",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "X",
    "G\x00T",
)
HOSTS = ("", "evil.example", "evil.example:8481", "localhost:0", "[::1]", "127.0.0.1", "a b", "\u00e9", LONG)
LINES = (
    *(f"Accept: {each}" for each in ("text/event-stream", "application/json", "*/*;q=x", "", LONG)),
    *(f"Host: {each}" for each in ("", "evil.example", "localhost:0", "[::1]", "127.0.0.1", "a b", "\u00e9")),
    *(f"Origin: {each}" for each in (ORIGIN, "null", "https://evil.example", "\x00", "http://[", "file://")),
    *(
        f"Content-Type: {each}"
        for each in ("text/plain", "application/x-ndjson", "application/json; a", "/", "")
    ),
    *(f"Content-Encoding: {each}" for each in ("gzip", "deflate", "br", "gzip, gzip", "identity", "")),
    *(f"Content-Length: {each}" for each in ("0", "5", "-1", "+3", "1e3", "99999", "9" * 40, "3, 3", "")),
    *(
        f"Transfer-Encoding: {each}"
        for each in ("chunked", "Chunked", "xchunked", "gzip, chunked", "identity", "")
    ),
    *(f"Expect: {each}" for each in ("100-continue", "100-Continue", "200-ok", "")),
    *(f"Connection: {each}" for each in ("close", "keep-alive", "upgrade", "Host, Authorization", "")),
    *(f"Upgrade: {each}" for each in ("websocket", "h2c", "")),
    *(f"If-None-Match: {each}" for each in ("*", '"x"', "W/", '"', "\x80")),
    *(f"A2A-Version: {each}" for each in ("1.0", "0.3", "1", "2.0", "1.0.0", "1.0, 0.3", "9" * 20, "")),
    *(f"A2A-Extensions: {each}" for each in ("urn:x", ",,", LONG, "\u00e9")),
    *(f"Idempotency-Offset: {each}" for each in ("0", "-1", "9" * 18, "\u0661", "1.0")),
    *(f"Idempotency-Key: {each}" for each in ("k", "k" * 129, "\u00e9", "")),
    *(f"X-Forwarded-For: {each}" for each in ("127.0.0.1", "::1, x", "[", "1.2.3.4:x")),
    *(f"Forwarded: {each}" for each in ("for=127.0.0.1", 'for="[::1]:80";proto', ";;", 'for="', LONG)),
    *(
        "Sidecast-Principal: alice",
        "sidecast_tenant: acme",
        "traceparent: 00-0-0-0",
        "Cookie: =;;a",
        "Range: bytes=0-",
    ),
    *(
        "If-Modified-Since: never",
        "Access-Control-Request-Headers: x,\u00e9",
        "Access-Control-Request-Method: G T",
    ),
    *(
        "no colon",
        ": no name",
        "X A: b",
        "X-A : b",
        " folded",
        "X-A: b\r\n c",
        "X-\x00: b",
        "\u00e9: b",
        "X-A: a\nX-B: b",
    ),
)
SNIPPETS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"%",
        b"%0d%0a",
        b"\xff",
        b"\xc3",
        b"\x80" * 9,
    ),
    *(
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"HTTP/9.9",
        b"0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"-1\r\n",
        b"5;x\r\n",
    ),
    *(
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
    ),
)
