from __future__ import annotations

import pytest

from sidecast_broker.core.origins import is_origin, origins_of

LISTED = origins_of(("https://app.example.com", "http://localhost:3000"), "https://broker.example.com/base")


@pytest.mark.parametrize(
    "text",
    ["https://app.example.com", "http://localhost:3000", "http://127.0.0.1:8480", "http://[::1]:5173", "https://a",
     "https://xn--bcher-kva.example", "https://a:80", "http://a:443", "https://[::1]", "http://a:65535"],
)  # fmt: skip
def test_origins(text: str) -> None:
    assert is_origin(text)


@pytest.mark.parametrize(
    "text",
    ["", "null", "*", "app.example.com", "https://", "https://App.example.com", "HTTPS://a", "https://a/", "https://a/b",
     "https://a?b", "https://a#b", "https://u@a", "https://a:443", "http://a:80", "https://a:", "https://a:0",
     "https://a:65536", "https://a:08", "https://a:x", "https://*.example.com", "https://a b", "file://a", "https://a,b",
     "https://bücher.example", "https://a\n", "https://[::1", "https://::1", "https://a.", "https://[g]", "ws://a"],
)  # fmt: skip
def test_what_no_browser_sends_as_an_origin(text: str) -> None:
    assert not is_origin(text)


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        ("https://app.example.com", "broker.example.com", False),
        ("http://localhost:3000", "localhost:8480", False),
        ("http://localhost:8480", "localhost:8480", False),
        ("http://LOCALHOST:8480", "localhost:8480", False),
        ("https://localhost", "localhost", False),
        ("https://broker.example.com", "inner:8480", False),
        ("https://app.example.com.evil.example", "broker.example.com", True),
        ("https://evil.example", "broker.example.com", True),
        ("http://app.example.com", "broker.example.com", True),
        ("https://app.example.com:8443", "broker.example.com", True),
        ("http://localhost:8481", "localhost:8480", True),
        ("http://127.0.0.1:8480", "localhost:8480", True),
        ("null", "localhost:8480", True),
        ("null", "", True),
        ("", "", True),
        ("://", "", True),
        ("https://", "", True),
        ("*", "x", True),
    ],
)
def test_which_origins_are_foreign(origin: str, host: str, foreign: bool) -> None:
    assert LISTED.is_foreign(origin, host) is foreign


def test_every_origin() -> None:
    every = origins_of(("*",), "")
    assert every.every
    assert not every.listed
    assert every.allows("null")
    assert not every.is_foreign("https://evil.example", "x")


def test_no_origin_is_listed_by_default() -> None:
    none = origins_of((), "")
    assert not none.allows("")
    assert none.is_foreign("https://a", "b")


@pytest.mark.parametrize(
    ("url", "own"),
    [("", ""), ("https://B.example:443/x", "https://b.example"), ("http://b:8080", "http://b:8080"),
     ("http://b:80", "http://b"), ("https://b:80", "https://b:80")],
)  # fmt: skip
def test_the_public_url_gives_the_own_origin(url: str, own: str) -> None:
    assert origins_of((), url).own == own
