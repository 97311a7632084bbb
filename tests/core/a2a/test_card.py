from __future__ import annotations

import json
from typing import Any

import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3.types import AgentCard as AgentCardV03
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseError
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.card import (
    RESUME,
    Card,
    Interface,
    InvalidCard,
    etag,
    read,
    rewrite,
    watch_only,
)
from sidecast_broker.core.a2a.security import declared

BASE = "https://broker.example/team"
WIRES = {
    ("JSONRPC", "1.0", f"{BASE}/a2a"),
    ("HTTP+JSON", "1.0", BASE),
    ("JSONRPC", "0.3", f"{BASE}/a2a"),
    ("HTTP+JSON", "0.3", BASE),
}


def encode(card: Any) -> bytes:
    return json.dumps(card).encode()


def interface(url: str, binding: str = "JSONRPC", version: str = "1.0", **more: str) -> pb.AgentInterface:
    return pb.AgentInterface(url=url, protocol_binding=binding, protocol_version=version, **more)


def sdk_card(*interfaces: pb.AgentInterface, **fields: Any) -> bytes:
    """Give the card as a2a-sdk serves it."""
    fields = {
        "name": "planner",
        "description": "Plans.",
        "version": "3.1",
        "default_input_modes": ["text/plain"],
        "default_output_modes": ["text/plain"],
        "capabilities": pb.AgentCapabilities(streaming=True, push_notifications=True),
        "skills": [pb.AgentSkill(id="plan", name="Plan", description="Makes plans.", tags=["plan"])],
    } | fields
    card = pb.AgentCard(supported_interfaces=interfaces or [interface("http://agent:9000/rpc")], **fields)
    return encode(agent_card_to_dict(card))


V03: dict[str, Any] = {
    "name": "old planner",
    "description": "Plans.",
    "version": "1.2.0",
    "protocolVersion": "0.3.0",
    "url": "http://agent:9000/",
    "preferredTransport": "JSONRPC",
    "additionalInterfaces": [
        {"url": "http://agent:9000/", "transport": "JSONRPC"},
        {"url": "http://agent:9000/rest/", "transport": "HTTP+JSON"},
        {"url": "agent:9001", "transport": "GRPC"},
    ],
    "capabilities": {"streaming": False, "pushNotifications": False, "stateTransitionHistory": True},
    "defaultInputModes": ["text"],
    "defaultOutputModes": ["text"],
    "skills": [
        {
            "id": "s",
            "name": "S",
            "description": "d",
            "tags": ["t"],
            "examples": ["e"],
            "security": [{"key": []}],
        }
    ],
    "supportsAuthenticatedExtendedCard": True,
    "security": [{"login": ["read", "write"]}, {"key": []}],
    "securitySchemes": {
        "login": {
            "type": "oauth2",
            "description": "Log in.",
            "flows": {
                "authorizationCode": {
                    "authorizationUrl": "https://id.example/auth",
                    "tokenUrl": "https://id.example/token",
                    "scopes": {"read": "Read.", "write": "Write."},
                }
            },
        },
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "open": {"type": "openIdConnect", "openIdConnectUrl": "https://id.example/.well-known"},
        "certificate": {"type": "mutualTLS"},
    },
    "provider": {"organization": "Planners", "url": "https://planners.example"},
    "signatures": [{"protected": "e30", "signature": "c2ln"}],
}
"""A card as a2a-sdk 0.3.26 writes one."""


def wires(card: pb.AgentCard) -> list[tuple[str, str, str]]:
    return [(each.protocol_binding, each.protocol_version, each.url) for each in card.supported_interfaces]


def both_readers(card: bytes) -> tuple[pb.AgentCard, AgentCardV03]:
    """Read a card as the clients of both generations do."""
    return parse_agent_card(json.loads(card)), AgentCardV03.model_validate(json.loads(card))


CARDS = {
    "1.0": sdk_card(),
    "1.0 and 0.3": sdk_card(
        interface("http://agent:9000/rpc"),
        interface("http://agent:9000/rpc", version="0.3"),
        interface("http://agent:9000/rest", "HTTP+JSON"),
        interface("agent:9001", "GRPC"),
    ),
    "signed": sdk_card(signatures=[pb.AgentCardSignature(protected="e30", signature="c2ln")]),
    "as little as ProtoJSON may write": encode(
        MessageToDict(pb.AgentCard(name="x", supported_interfaces=[interface("http://agent/")]))
    ),
    "0.3": encode(V03),
    "0.2": encode({"url": "http://agent:9000/", "name": "x", "capabilities": {}, "skills": None}),
    "gRPC only": sdk_card(interface("agent:9001", "GRPC")),
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_both_generations_find_only_what_works_here(card: bytes) -> None:
    served = rewrite(card, BASE)
    newer, older = both_readers(served)
    assert set(wires(newer)) == WIRES
    assert newer.capabilities.streaming
    assert older.capabilities.streaming
    assert older.protocol_version == "0.3.0"
    transports = {(each.transport, each.url) for each in older.additional_interfaces or []}
    assert transports == {("JSONRPC", f"{BASE}/a2a"), ("HTTP+JSON", BASE)}
    assert (older.preferred_transport, older.url) in transports
    assert not newer.signatures
    assert older.signatures is None
    assert b"agent:900" not in served
    assert b"GRPC" not in served


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_rewritten_card_is_rewritten_to_itself(card: bytes) -> None:
    served = rewrite(card, BASE)
    assert json.loads(rewrite(served, BASE)) == json.loads(served)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_the_resume_extension_is_declared_once_and_not_required(card: bytes) -> None:
    newer, older = both_readers(rewrite(rewrite(card, BASE), BASE))
    (ours,) = [each for each in newer.capabilities.extensions if each.uri == RESUME]
    assert not ours.required
    assert MessageToDict(ours.params)["header"] == "Last-Event-ID"
    assert MessageToDict(ours.params)["query"] == "last_event_id"
    assert MessageToDict(ours.params)["metadata"] == {RESUME: {"lastEventId": "<cursor>"}}
    assert [each.uri for each in older.capabilities.extensions or []].count(RESUME) == 1


def test_what_the_agent_says_of_itself_stays() -> None:
    extension = pb.AgentExtension(uri="urn:x", required=True, description="X")
    capabilities = pb.AgentCapabilities(push_notifications=True, extensions=[extension])
    provider = pb.AgentProvider(organization="O", url="https://o.example")
    original = sdk_card(capabilities=capabilities, provider=provider, icon_url="https://o.example/icon.png")
    newer, older = both_readers(rewrite(original, BASE))
    before = parse_agent_card(json.loads(original))
    assert newer.capabilities.extensions[0] == extension
    del newer.supported_interfaces[:], before.supported_interfaces[:]
    newer.ClearField("capabilities")
    before.ClearField("capabilities")
    assert newer == before
    assert older.name == "planner"
    assert older.capabilities.push_notifications
    assert older.skills[0].tags == ["plan"]


def test_unknown_members_and_numbers_keep_their_spelling() -> None:
    card = encode(V03)[:-1] + b', "x-new": {"n": 12345678901234567890, "f": 1.50, "e": 1E2}}'
    assert b'"x-new":{"n": 12345678901234567890, "f": 1.50, "e": 1E2}' in rewrite(card, BASE)


def test_security_of_v03_is_read_by_v10_clients() -> None:
    newer, older = both_readers(rewrite(encode(V03), BASE))
    schemes = newer.security_schemes
    flow = schemes["login"].oauth2_security_scheme.flows.authorization_code
    assert flow.token_url == "https://id.example/token"
    assert dict(flow.scopes) == {"read": "Read.", "write": "Write."}
    key = schemes["key"].api_key_security_scheme
    assert (key.location, key.name) == ("header", "X-API-Key")
    token = schemes["token"].http_auth_security_scheme
    assert (token.scheme, token.bearer_format) == ("bearer", "JWT")
    assert schemes["open"].open_id_connect_security_scheme.open_id_connect_url.startswith("https://id")
    assert schemes["certificate"].HasField("mtls_security_scheme")
    first, second = newer.security_requirements
    assert list(first.schemes["login"].list) == ["read", "write"]
    assert list(second.schemes) == ["key"]
    assert list(newer.skills[0].security_requirements[0].schemes) == ["key"]
    assert newer.capabilities.extended_agent_card
    assert older == AgentCardV03.model_validate(V03).model_copy(
        update={
            name: getattr(older, name)
            for name in ("url", "additional_interfaces", "capabilities", "signatures", "preferred_transport")
        }
    )


def test_what_the_broker_takes_stands_in_the_place_of_what_the_agent_does() -> None:
    schemes = declared(["jwt", "api_key", "mtls", "ticket", "none"])
    corp = {"corp": {"httpAuthSecurityScheme": {"scheme": "basic"}}}
    card = V03 | {"securityRequirements": [{"schemes": {"corp": {"list": []}}}]}
    card["securitySchemes"] = V03["securitySchemes"] | corp
    newer, older = both_readers(rewrite(encode(card), BASE, schemes))
    assert set(newer.security_schemes) == set(older.security_schemes) == {"bearer", "apiKey", "mtls"}
    assert newer.security_schemes["bearer"].http_auth_security_scheme.scheme == "bearer"
    assert newer.security_schemes["apiKey"].api_key_security_scheme.name == "X-API-Key"
    assert newer.security_schemes["mtls"].HasField("mtls_security_scheme")
    assert [list(each.schemes) for each in newer.security_requirements] == [["bearer"], ["apiKey"], ["mtls"]]
    assert older.security == [{"bearer": []}, {"apiKey": []}, {"mtls": []}]
    assert not any(skill.security_requirements for skill in newer.skills)
    assert not any(skill.security for skill in older.skills)


def test_where_nothing_is_taken_the_card_asks_for_nothing() -> None:
    card = json.loads(rewrite(encode(V03), BASE, {}))
    assert not card.keys() & {"security", "securityRequirements", "securitySchemes"}


def test_the_v10_form_of_security_stands_beside_the_v03_form() -> None:
    """A reader that takes only the v1.0 members finds them, without the client's own translation."""
    schemes = json.loads(rewrite(encode(V03), BASE))["securitySchemes"]
    assert schemes["key"]["apiKeySecurityScheme"] == {"location": "header", "name": "X-API-Key"}
    assert schemes["token"]["httpAuthSecurityScheme"] == {"scheme": "bearer", "bearerFormat": "JWT"}
    assert schemes["certificate"]["mtlsSecurityScheme"] == {}
    assert schemes["login"]["oauth2SecurityScheme"]["flows"].keys() == {"authorizationCode"}


def test_of_several_flows_one_stays_because_v10_readers_refuse_more() -> None:
    login = V03["securitySchemes"]["login"]
    flow = login["flows"]["authorizationCode"]
    flows = {"clientCredentials": {"tokenUrl": "https://id.example/token", "scopes": {}}}
    flows["authorizationCode"] = flow
    original = encode(V03 | {"securitySchemes": {"login": login | {"flows": flows}}})
    with pytest.raises(ParseError):
        parse_agent_card(json.loads(original))
    served = rewrite(original, BASE)
    newer, _ = both_readers(served)
    assert newer.security_schemes["login"].oauth2_security_scheme.flows.HasField("authorization_code")
    scheme = json.loads(served)["securitySchemes"]["login"]
    assert scheme["flows"] == scheme["oauth2SecurityScheme"]["flows"] == {"authorizationCode": flow}


def test_security_of_v10_is_read_by_v03_clients() -> None:
    schemes = {
        "key": pb.SecurityScheme(
            api_key_security_scheme=pb.APIKeySecurityScheme(location="query", name="key")
        ),
        "token": pb.SecurityScheme(http_auth_security_scheme=pb.HTTPAuthSecurityScheme(scheme="bearer")),
        "certificate": pb.SecurityScheme(mtls_security_scheme=pb.MutualTlsSecurityScheme()),
    }
    requirement = pb.SecurityRequirement(schemes={"key": pb.StringList(), "token": pb.StringList(list=["a"])})
    skill = pb.AgentSkill(id="s", name="S", security_requirements=[requirement])
    card = sdk_card(
        security_schemes=schemes,
        security_requirements=[requirement],
        skills=[skill],
        capabilities=pb.AgentCapabilities(extended_agent_card=True),
    )
    newer, older = both_readers(rewrite(card, BASE))
    assert older.security == [{"key": [], "token": ["a"]}]
    assert older.skills[0].security == older.security
    assert older.security_schemes is not None
    assert {name: each.root.type for name, each in older.security_schemes.items()} == {
        "key": "apiKey",
        "token": "http",
        "certificate": "mutualTLS",
    }
    assert older.supports_authenticated_extended_card
    assert newer.security_schemes == schemes
    assert list(newer.security_requirements) == [requirement]


def test_the_agents_own_wires_come_first() -> None:
    card = sdk_card(interface("http://a/rest", "HTTP+JSON"), interface("http://a/rpc", version="0.3"))
    newer, older = both_readers(rewrite(card, BASE))
    assert [wire[:2] for wire in wires(newer)] == [
        ("HTTP+JSON", "1.0"),
        ("JSONRPC", "0.3"),
        ("JSONRPC", "1.0"),
        ("HTTP+JSON", "0.3"),
    ]
    assert older.preferred_transport == "JSONRPC"


def test_tenants_stay_and_only_v10_has_them() -> None:
    card = sdk_card(interface("http://a/1", tenant="acme"), interface("http://a/2", tenant="other"))
    newer, _ = both_readers(rewrite(card, BASE))
    found = [(each.protocol_version, each.tenant) for each in newer.supported_interfaces]
    assert sorted(found) == sorted([("1.0", "acme"), ("1.0", "other")] * 2 + [("0.3", "")] * 2)


def test_what_the_broker_reads() -> None:
    card = sdk_card(
        interface("http://agent:9000/rpc?code=1", tenant="acme"),
        interface("https://elsewhere.example/rest/", "HTTP+JSON"),
        interface("http://agent:9000", version="0.3"),
        interface("http://agent:9000/next", version="2.0"),
        capabilities=pb.AgentCapabilities(
            extended_agent_card=True, extensions=[pb.AgentExtension(uri="urn:must", required=True)]
        ),
    )
    assert read(card) == Card(
        interfaces=(
            Interface("jsonrpc", "1.0", "/rpc", "code=1", "acme"),
            Interface("rest", "1.0", "/rest", "", ""),
            Interface("jsonrpc", "0.3", "/", "", ""),
        ),
        streaming=False,
        extended=True,
        required=frozenset({"urn:must"}),
    )
    assert read(card).interface("rest", "1.0") == Interface("rest", "1.0", "/rest", "", "")
    assert read(card).interface("rest", "0.3") is None
    assert read(encode(V03)).interfaces == (
        Interface("jsonrpc", "0.3", "/", "", ""),
        Interface("rest", "0.3", "/rest", "", ""),
    )
    assert read(encode(V03)).extended
    assert not read(encode(V03)).streaming


@pytest.mark.parametrize("version", ["1.0", "1.0.1", "1.1", "0.3", "0.3.0", "0.2.5"])
def test_versions_that_can_be_asked(version: str) -> None:
    found = read(encode({"supportedInterfaces": [{"url": "http://a/", "protocolBinding": "jsonrpc", "protocolVersion": version}]}))  # fmt: skip  # noqa: E501
    assert [each.version for each in found.interfaces] == ["1.0" if version[0] == "1" else "0.3"]


@pytest.mark.parametrize(
    "url",
    [
        "agent:9001",
        "",
        "ftp://agent/",
        "file:///etc/passwd",
        "http://",
        "http://[::1/",
        "http://agent:9000/a b",
        "http://agent:9000/a\x00b",
        "http://agent:9000/\u00e4",
        "http://agent:9000//evil.example/",
        "http://agent:9000/a/../admin",
        "http://agent:9000/a/%2e%2E/admin",
        "http://agent:9000/a/..%2Fadmin",
        "http://agent:9000/..",
        "http://agent:9000/a?b=\x7f",
        "http://agent:9000/%zz",
        "http://agent:9000/a HTTP/1.1 X: y",
    ],
)
def test_urls_that_no_request_is_made_of(url: str) -> None:
    card = encode({"supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]})  # fmt: skip  # noqa: E501
    assert read(card).interfaces == ()
    newer, _ = both_readers(rewrite(card, BASE))
    assert set(wires(newer)) == WIRES


def test_credentials_in_the_agents_urls_are_not_served() -> None:
    card = sdk_card(interface("http://user:secret@agent:9000/rpc"), interface("http://u:secret@a/", version="0.3"))  # fmt: skip  # noqa: E501
    assert b"secret" not in rewrite(card, BASE)
    assert read(card).interfaces[0] == Interface("jsonrpc", "1.0", "/rpc", "", "")


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"<html>not here</html>",
        b"null",
        b"[]",
        b"7",
        b'"card"',
        b'{"name": "x"',
        b'{"name": "\xff"}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        encode(V03 | {"capabilities": "all"}),
        encode(V03 | {"capabilities": {"streaming": "yes"}}),
        encode(V03 | {"capabilities": {"extensions": {}}}),
        encode(V03 | {"capabilities": {"extensions": ["urn:x"]}}),
        encode(V03 | {"url": 7}),
        encode(V03 | {"additionalInterfaces": "none"}),
        encode(V03 | {"supportedInterfaces": {"url": "http://a"}}),
        encode(V03 | {"supportedInterfaces": [[]]}),
        encode(V03 | {"protocolVersion": 0.3}),
        encode(V03 | {"skills": {}}),
        encode(V03 | {"skills": [1]}),
        encode(V03 | {"security": {"key": []}}),
        encode(V03 | {"securitySchemes": []}),
        encode(V03 | {"securitySchemes": {"x": "y"}}),
        encode(V03 | {"securitySchemes": {"x": {"type": 1}}}),
        encode(V03 | {"securitySchemes": {"x": {"type": "oauth2", "flows": []}}}),
        encode(V03 | {"securitySchemes": {"x": {"httpAuthSecurityScheme": 1}}}),
        encode(V03 | {"security": None, "securityRequirements": [{"schemes": []}]}),
        encode(V03 | {"security": None, "securityRequirements": [{"schemes": {"x": []}}]}),
    ],
)
def test_what_is_no_card_is_refused(card: bytes) -> None:
    with pytest.raises(InvalidCard) as refused:
        rewrite(card, BASE)
    assert len(str(refused.value)) <= 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*V03, "supportedInterfaces", "securityRequirements", "x"]), JSON))
def test_any_members_give_a_card_or_a_refusal(changes: dict[str, Any]) -> None:
    try:
        served = rewrite(encode(V03 | changes), BASE)
    except InvalidCard:
        return
    assert {each["url"] for each in json.loads(served)["supportedInterfaces"]} == {BASE, f"{BASE}/a2a"}


def test_the_tag_follows_the_bytes() -> None:
    one, other = rewrite(encode(V03), BASE), rewrite(encode(V03), BASE + "/agents/x")
    assert etag(one) == etag(rewrite(encode(V03), BASE))
    assert etag(one) != etag(other)
    assert etag(one).isalnum()


def test_a_slash_at_the_end_of_the_base_is_not_doubled() -> None:
    newer, _ = both_readers(rewrite(encode(V03), "http://127.0.0.1:8480/"))
    assert {each.url for each in newer.supported_interfaces} == {
        "http://127.0.0.1:8480/a2a",
        "http://127.0.0.1:8480",
    }


@given(st.text())
def test_the_card_of_an_agent_that_is_only_watched(name: str) -> None:
    served = rewrite(watch_only(name, "0.1.0"), BASE)
    new, old = both_readers(served)
    assert new.name == old.name == name
    assert set(wires(new)) == WIRES
    assert (old.url, old.protocol_version) == (f"{BASE}/a2a", "0.3.0")
    assert new.capabilities.streaming
    assert old.capabilities.streaming
    assert [each.uri for each in new.capabilities.extensions] == [RESUME]
    # v1.0 calls these lists required, which some readers take for "not empty".
    assert new.skills
    assert new.default_input_modes
    assert new.default_output_modes
    assert new.description
    assert new.version
