from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.wire import (
    VERSIONS,
    WIRES,
    Wire,
    negotiate,
    read_extensions,
    require_extensions,
)


@pytest.mark.row("C40", "C42")
@pytest.mark.parametrize(
    ("header", "query", "version"),
    [
        (None, None, "0.3"),
        ("", None, "0.3"),
        ("", "", "0.3"),
        (" \t", None, "0.3"),
        ("0.3", None, "0.3"),
        ("0.3.0", None, "0.3"),
        ("0.3.26", None, "0.3"),
        ("1.0", None, "1.0"),
        ("1.0.0", None, "1.0"),
        ("1.0.1", None, "1.0"),
        (" 1.0 ", None, "1.0"),
        (None, "1.0", "1.0"),
        (None, "1.0.1", "1.0"),
        ("", "1.0", "1.0"),
        ("1.0", "0.3", "1.0"),
        ("0.3", "1.0", "0.3"),
        ("1.0", "99.0", "1.0"),
    ],
)
def test_negotiate(header, query, version):
    assert negotiate(header, query) == version


@pytest.mark.row("C41")
@pytest.mark.parametrize(
    "asked",
    [
        "2.0",
        "1.1",
        "0.2",
        "0.2.5",
        "99.0",
        "1",
        "1.",
        ".0",
        "v1.0",
        "1.0-rc1",
        "1.0.x",
        "1.0.",
        "1.0.0.0",
        "01.0",
        "1.00",
        "-1.0",
        "1.0, 1.0",
        "1.0\n",
        "1\n.0",
        "1.0\0",
        "\u0661.0",
        "1,0",
        "latest",
        "1" * 100_000,
        "1." + "0" * 100_000,
        " " * 100_000 + "x",
        "1.0, 0.3",
        "\udcff\udcfe",
    ],
    ids=lambda text: ascii(text[:20]),
)
@pytest.mark.parametrize("in_query", [False, True])
def test_negotiate_refuses(asked, in_query):
    with pytest.raises(A2AError) as raised:
        negotiate(*((None, asked) if in_query else (asked, None)))
    assert raised.value.kind is ErrorKind.VERSION_NOT_SUPPORTED
    assert raised.value.metadata["supportedVersions"] == "1.0, 0.3"
    assert len(raised.value.metadata["requestedVersion"].encode()) <= 32


@pytest.mark.row("C42")
@given(st.sampled_from(VERSIONS), st.none() | st.integers(0, 999_999))
def test_the_patch_number_does_not_count(version, patch):
    assert negotiate(version if patch is None else f"{version}.{patch}", None) == version


def test_formats_are_distinct():
    assert [wire.format for wire in WIRES] == [
        "a2a-jsonrpc-1.0",
        "a2a-rest-1.0",
        "a2a-jsonrpc-0.3",
        "a2a-rest-0.3",
    ]
    assert Wire("0.3", "rest") in WIRES


@pytest.mark.parametrize(
    ("headers", "uris"),
    [
        ([], set()),
        ([""], set()),
        ([" , ,"], set()),
        (["urn:a"], {"urn:a"}),
        (["urn:a,urn:b"], {"urn:a", "urn:b"}),
        ([" urn:a ,\thttps://x.example/e/v1 "], {"urn:a", "https://x.example/e/v1"}),
        (["urn:a", "urn:b, urn:a"], {"urn:a", "urn:b"}),
        (["urn:A"], {"urn:A"}),
        ([",".join(["urn:a"] * 10_000)], {"urn:a"}),
    ],
)
def test_read_extensions(headers, uris):
    assert read_extensions(headers) == uris


def test_require_extensions():
    require_extensions([], frozenset())
    require_extensions(["urn:a"], frozenset({"urn:a", "urn:b"}))
    with pytest.raises(A2AError) as raised:
        require_extensions(["urn:a", "urn:b", "urn:c"], frozenset({"urn:b", "URN:A"}))
    assert raised.value.kind is ErrorKind.EXTENSION_SUPPORT_REQUIRED
    assert raised.value.metadata == {"missingExtensions": "urn:a, urn:c"}
