from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.forwarding import (
    UnsafeTarget,
    check_target,
    lies_under,
    request_headers,
    response_headers,
)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a2a",
        "/message:stream",
        "/tasks/t%2F1:subscribe?A2A-Version=1.0",
        "/tasks/a%2F%2Fb",
        "/acme/tasks/%E2%82%AC",
        "/v1/tasks/..x",
        "/v1/tasks/...",
        "/tasks/a;b=c",
        "/tasks?pageToken=a//b/../c&x=%zz",
        "/tasks/{id}",
        "/tasks/",
        "/?",
    ],
)
def test_targets_that_mean_one_thing(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "tasks",
        "http://elsewhere.example/",
        "agent:80",
        "?a=b",
        "//",
        "//elsewhere.example/tasks",
        "/tasks//t",
        "/tasks/t//",
        "/.",
        "/..",
        "/../admin",
        "/tasks/../admin",
        "/tasks/./t",
        "/tasks/..",
        "/tasks/..?a=b",
        "/tasks/%2e%2e/admin",
        "/tasks/.%2E/admin",
        "/tasks/%2e",
        "/tasks/..%2fadmin",
        "/tasks/x%2f..%2fadmin",
        "/tasks/..%5cadmin",
        "/tasks/%252e%252e/admin",
        "/tasks/..%252fadmin",
        "/tasks/..;/admin",
        "/tasks/..;a=b/admin",
        "/tasks/%2e%2e;/admin",
        "/tasks/..\\admin",
        "/tasks\\t",
        "/tasks/%",
        "/tasks/%zz",
        "/tasks/a b",
        "/tasks/\x00",
        "/tasks/\r\nX: y",
        "/tasks/\u20ac",
        "/tasks/t#fragment",
        "/tasks?a=b#c",
        "/tasks?a=b c",
        "/tasks?a=\x7f",
    ],
)
def test_targets_that_could_mean_another(target: str) -> None:
    with pytest.raises(UnsafeTarget):
        check_target(target)


@given(st.text("/.%2eE5cCfF;\\a?#", max_size=12).map(lambda text: "/" + text))
def test_no_checked_path_has_dots_when_it_is_decoded(target: str) -> None:
    from urllib.parse import unquote

    try:
        check_target(target)
    except UnsafeTarget:
        return
    path = target.partition("?")[0]
    for decoded in (path, unquote(path), unquote(unquote(path))):
        segments = decoded.replace("\\", "/").split("/")
        assert not {".", ".."} & {segment.partition(";")[0] for segment in segments}
    assert "//" not in path


@pytest.mark.parametrize(
    ("target", "paths", "expected"),
    [
        ("/docs", ("/docs",), True),
        ("/docs/", ("/docs",), True),
        ("/docs/a/b?c", ("/docs",), True),
        ("/docs?a=/x", ("/docs",), True),
        ("/docsx", ("/docs",), False),
        ("/Docs", ("/docs",), False),
        ("/", ("/docs",), False),
        ("/x?/docs", ("/docs",), False),
        ("/b/c", ("/a", "/b"), True),
        ("/anything", ("",), True),
        ("/", ("",), True),
        ("/anything", (), False),
    ],
)
def test_lies_under(target: str, paths: tuple[str, ...], expected: bool) -> None:
    assert lies_under(target, paths) is expected


@pytest.mark.row("C72")
def test_what_the_agent_gets() -> None:
    sent = [
        ("Host", "broker"),
        ("A2A-Version", "1.0"),
        ("a2a-extensions", "urn:x"),
        ("X-A2A-Extensions", "urn:y"),
        ("Authorization", "Bearer t"),
        ("traceparent", "00-1-2-01"),
        ("Accept-Encoding", "gzip"),
        ("Last-Event-ID", "e-1"),
        ("Content-Type", "application/json"),
        ("Content-Length", "2"),
        ("Cookie", "a=b"),
        ("Cookie", "c=d"),
        ("Connection", "close, X-Hop"),
        ("connection", " x-Other "),
        ("X-Hop", "1"),
        ("X-OTHER", "1"),
        ("Keep-Alive", "5"),
        ("Proxy-Authorization", "x"),
        ("Proxy-Connection", "x"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("Expect", "100-continue"),
        ("Sidecast-Principal", "root"),
        ("sidecast-anything", "x"),
        ("Sidecast_Principal", "root"),
    ]
    assert request_headers(sent, None) == [*sent[1:12]]
    assert request_headers(sent, "alice")[11:] == [("Sidecast-Principal", "alice")]
    assert request_headers([("Sidecast-Tenant", "x"), ("SIDECAST_TENANT", "x")], "alice", "acme") == [
        ("Sidecast-Principal", "alice"),
        ("Sidecast-Tenant", "acme"),
    ]


@pytest.mark.row("C72")
def test_what_the_client_gets() -> None:
    answered = [
        ("Content-Type", "text/event-stream"),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("Content-Encoding", "gzip"),
        ("Content-Length", "7"),
        ("A2A-Extensions", "urn:x"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Sidecast-Card", "stale"),
    ]
    assert response_headers(answered) == answered[:6]


@pytest.mark.parametrize("option", ["a2a-version", "x-hop, A2A-Version ,close"])
def test_no_connection_takes_away_what_the_request_was_read_by(option):
    headers = [("Connection", option), ("A2A-Version", "1.0"), ("X-Hop", "1")]
    kept = request_headers(headers, None)
    assert ("A2A-Version", "1.0") in kept
    assert (("X-Hop", "1") in kept) == ("x-hop" not in option)
