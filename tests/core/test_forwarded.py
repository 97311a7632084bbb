from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.forwarded import (
    HOPS_MAX,
    LINE_BYTES_MAX,
    Header,
    client_of,
    limited_as,
    parse_address,
    parse_networks,
)

PROXY = "10.0.0.1"
TRUSTED = parse_networks("10.0.0.0/8, fd00::/8,::1")


def client(*forwarded: str, xff: tuple[str, ...] = (), peer: str = PROXY, header: Header = "any") -> str:
    return client_of(peer, TRUSTED, forwarded, xff, header)


# --- who is believed


@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8::9", "11.0.0.1", "::2"])
def test_who_is_no_proxy_can_say_what_they_like(peer: str) -> None:
    assert client("for=1.2.3.4", xff=("1.2.3.4",), peer=peer) == peer


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_of("127.0.0.1", (), ["for=1.2.3.4"], ["1.2.3.4"]) == "127.0.0.1"


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::5", "fd00::5%eth0", "::1"])
def test_a_proxy_is_known_in_every_spelling(peer: str) -> None:
    assert client("for=1.2.3.4", peer=peer) == client(xff=("1.2.3.4",), peer=peer) == "1.2.3.4"


def test_a_peer_that_has_no_address_is_what_it_is() -> None:
    assert client_of("", TRUSTED, ["for=1.2.3.4"], []) == ""


# --- the walk from the right


@pytest.mark.parametrize(
    ("chain", "wanted"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2", "fd00::2"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (["10.0.0.66", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (["nonsense", "203.0.113.9"], "203.0.113.9"),
        (["", "203.0.113.9"], "203.0.113.9"),
        (["10.0.0.7", "10.0.0.2"], "10.0.0.7"),
        (["203.0.113.9", "unknown"], PROXY),
        (["203.0.113.9", "unknown", "10.0.0.2"], PROXY),
        (["203.0.113.9", "_hidden"], PROXY),
        (["203.0.113.9", "nonsense"], PROXY),
        (["203.0.113.9", "10.0.0.2x"], PROXY),
    ],
)
def test_the_first_from_the_right_that_is_no_proxy(chain: list[str], wanted: str) -> None:
    assert client(xff=(", ".join(chain),)) == wanted
    assert client(xff=tuple(chain)) == wanted, "lines are one list"
    elements = [f'for="[{each}]"' if ":" in each else f'for="{each}"' for each in chain]
    assert client(", ".join(elements)) == wanted
    assert client(*elements) == wanted


def test_a_chain_without_end_is_none() -> None:
    chain = ["203.0.113.9", *["10.0.0.2"] * (HOPS_MAX - 1)]
    assert client(xff=(",".join(chain),)) == "203.0.113.9"
    assert client(xff=(",".join([*chain, "10.0.0.2"]),)) == PROXY


def test_a_line_without_end_is_none() -> None:
    assert client(xff=("1.2.3.4," * LINE_BYTES_MAX + "1.2.3.4",)) == PROXY
    assert client("for=1.2.3.4," * LINE_BYTES_MAX + "for=1.2.3.4") == PROXY
    assert client(xff=("9" * 100_000, "203.0.113.9")) == "203.0.113.9"


# --- spellings


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("203.0.113.9:_port", "203.0.113.9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:DB8::9]:4711", "2001:db8::9"),
        ("[2001:db8::9]:_p", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[fe80::9%eth0]", "fe80::9"),
        ("[fe80::9%25eth0]:80", "fe80::9"),
        ("fe80::9%eth0", "fe80::9"),
        ("[::ffff:203.0.113.9]", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:10.0.0.3]", "10.0.0.3"),
        ("[203.0.113.9]", PROXY),
        ("[2001:db8::9", PROXY),
        ("2001:db8::9]", PROXY),
        ("[[2001:db8::9]]", PROXY),
        ("[]", PROXY),
        ("203.0.113.9:", PROXY),
        ("203.0.113.9:123456", PROXY),
        ("203.0.113.256", PROXY),
        ("203.0.113", PROXY),
        ("0203.0.113.9", PROXY),
        ("203.0.113.9/32", PROXY),
        ("2001:db8::9::1", PROXY),
        ("\u0662\u0660\u0663.0.113.9", PROXY),
        ("203.0.113.9\x00", PROXY),
        ("localhost", PROXY),
        ("unknown:80", PROXY),
        ("_gazonk", PROXY),
    ],
)
def test_spellings_of_an_address(node: str, wanted: str) -> None:
    assert client(f'for="{node}"') == client(xff=(node,)) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=203.0.113.9", "203.0.113.9"),
        ("FOR=203.0.113.9;PROTO=https", "203.0.113.9"),
        ("by=10.0.0.1;for=203.0.113.9;host=x;proto=https", "203.0.113.9"),
        ('for="203.0.113.9" , for="10.0.0.2"', "203.0.113.9"),
        ('for="\\203.0.113.9"', "203.0.113.9"),
        ('host="a,for=6.6.6.6";for=203.0.113.9', "203.0.113.9"),
        ('for=203.0.113.9;host="a\\",for=6.6.6.6"', "203.0.113.9"),
        ("proto=https", PROXY),
        ("for=6.6.6.6, proto=https", PROXY),
        ("for=203.0.113.9;for=6.6.6.6", PROXY),
        ("for=203.0.113.9;For=6.6.6.6", PROXY),
        ("for=", PROXY),
        ("for", PROXY),
        ("=203.0.113.9", PROXY),
        ("for =203.0.113.9", PROXY),
        ("for= 203.0.113.9", PROXY),
        ("for=203.0.113.9;", PROXY),
        ("for=203.0.113.9,", PROXY),
        ("for=[2001:db8::9]", PROXY),
        ("for=203.0.113.9:80", PROXY),
        ('for="203.0.113.9', PROXY),
        ('for="6.6.6.6, for=203.0.113.9', PROXY),
        ('for="203.0.113.9"x', PROXY),
        ('for="203.0.113.9\x01"', PROXY),
        ("for=203.0.113.9 for=6.6.6.6", PROXY),
        ("", PROXY),
        (",", PROXY),
        (";", PROXY),
    ],
)
def test_lines_of_forwarded(line: str, wanted: str) -> None:
    assert client(line) == wanted


def test_a_quote_left_open_swallows_no_line_of_a_proxy() -> None:
    assert client('for="6.6.6.6', "for=203.0.113.9") == "203.0.113.9"


# --- both headers


def test_both_headers_must_agree() -> None:
    assert client("for=203.0.113.9", xff=("203.0.113.9",)) == "203.0.113.9"
    assert client("for=203.0.113.9", xff=("6.6.6.6, 203.0.113.9, 10.0.0.2",)) == "203.0.113.9"
    # Whichever the proxy doesn't write came from the client, whom it would hide.
    assert client("for=6.6.6.6", xff=("203.0.113.9",)) == PROXY
    assert client("for=203.0.113.9", xff=("6.6.6.6",)) == PROXY
    assert client("nonsense", xff=("203.0.113.9",)) == PROXY
    assert client("for=203.0.113.9", xff=("unknown",)) == PROXY


def test_the_header_that_was_named_counts_alone() -> None:
    assert client("for=203.0.113.9", xff=("6.6.6.6",), header="forwarded") == "203.0.113.9"
    assert client("for=6.6.6.6", xff=("203.0.113.9",), header="x-forwarded-for") == "203.0.113.9"
    assert client(xff=("6.6.6.6",), header="forwarded") == PROXY
    assert client("for=6.6.6.6", header="x-forwarded-for") == PROXY


# --- whatever comes

nodes = st.text(alphabet='0123456789abcdef.:[]%_"\\;=, for', max_size=40) | st.text(max_size=20)


@given(lines=st.lists(nodes, max_size=4), own=st.ip_addresses())
def test_what_a_client_sends_never_hides_what_the_proxy_adds(lines: list[str], own: object) -> None:
    address = parse_address(str(own))
    assert address is not None
    if any(address in network for network in TRUSTED):
        return
    node = f'"[{own}]"' if ":" in str(own) else str(own)
    assert client(*lines, f"for={node}") == str(address)
    assert client(xff=(*lines, str(own))) == str(address)
    assert client(xff=(",".join([*lines, str(own)]),)) == str(address)


@given(forwarded=st.lists(nodes, max_size=4), xff=st.lists(nodes, max_size=4))
def test_the_answer_is_always_an_address(forwarded: list[str], xff: list[str]) -> None:
    found = client(*forwarded, xff=tuple(xff))
    assert str(parse_address(found)) == found
    assert limited_as(found)


# --- networks


def test_addresses_of_one_network_are_limited_as_one() -> None:
    assert limited_as("203.0.113.9") == "203.0.113.9"
    assert limited_as("2001:db8:1:2::9") == limited_as("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert limited_as("2001:db8:1:3::9") != limited_as("2001:db8:1:2::9")
    assert limited_as("") == ""


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "nonsense", "10.0.0.0/8;::1", "fd00::/8 ::1"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|address"):
        parse_networks(text)


def test_no_networks() -> None:
    assert parse_networks("") == parse_networks(" , ") == ()
