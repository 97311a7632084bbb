"""The AsyncAPI document: the structure version 3.0.0 asks for, and true to subjects and headers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from sidecast_schemas import headers
from sidecast_schemas.subjects import (
    EVENTS_PREFIX,
    LIVE_PREFIX,
    TaskKey,
    encode_token,
    events_subject,
    live_subject,
)

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "schemas" / "json" / "asyncapi.json").read_text("utf-8")
)
COMPONENTS: dict[str, Any] = DOCUMENT["components"]
MESSAGES: dict[str, dict[str, Any]] = COMPONENTS["messages"]

# The fixed fields of AsyncAPI 3.0.0's objects that this document has: others are refused there.
FIELDS = {
    "document": {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"},
    "info": {"title", "version", "description", "license"},
    "server": {"host", "protocol", "description"},
    "channel": {"address", "title", "description", "servers", "parameters", "messages"},
    "operation": {"action", "channel", "summary", "description", "bindings", "messages"},
    "message": {"name", "title", "summary", "contentType", "headers", "payload", "examples"},
    "example": {"name", "headers", "payload"},
    "parameter": {"default", "description", "examples"},
    "components": {"parameters", "messages", "schemas"},
}
# A plain Schema Object is JSON Schema draft-07: no $defs, and nothing may stand beside $ref.
KEYWORDS = """
type title description properties required items minItems oneOf anyOf enum pattern minimum maximum multipleOf
minLength format default examples $ref
"""
SCHEMA_KEYWORDS = set(KEYWORDS.split())


def resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = DOCUMENT
    for token in reference.removeprefix("#/").split("/"):
        node = node[token]
    return resolve(node["$ref"]) if isinstance(node, dict) and node.keys() == {"$ref"} else node


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in node for reference in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [reference for item in node.values() for reference in references(item)]


def validator(schema: Any) -> Draft7Validator:
    return Draft7Validator({"allOf": [schema], "components": COMPONENTS})


def schema_nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*schema.get("properties", {}).values(), *schema.get("oneOf", []), *schema.get("anyOf", [])]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(node for child in inner for node in schema_nodes(child))]


def test_objects_have_only_the_fields_of_the_specification() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    objects = {
        "document": [DOCUMENT],
        "info": [DOCUMENT["info"]],
        "server": DOCUMENT["servers"].values(),
        "channel": DOCUMENT["channels"].values(),
        "operation": DOCUMENT["operations"].values(),
        "message": MESSAGES.values(),
        "example": [example for message in MESSAGES.values() for example in message.get("examples", [])],
        "parameter": COMPONENTS["parameters"].values(),
        "components": [COMPONENTS],
    }
    for name, members in objects.items():
        for member in members:
            assert member.keys() <= FIELDS[name], name
    assert DOCUMENT["info"].keys() >= {"title", "version"}
    for server in DOCUMENT["servers"].values():
        assert server.keys() >= {"host", "protocol"}
    for kind in COMPONENTS.values():
        assert all(re.fullmatch(r"[A-Za-z0-9.\-_]+", name) for name in kind)


def test_every_reference_resolves() -> None:
    found = references(DOCUMENT)
    assert found
    for reference in found:
        assert isinstance(resolve(reference), dict)


@pytest.mark.parametrize("name", COMPONENTS["schemas"])
def test_schemas_keep_to_the_keywords_of_a_schema_object(name: str) -> None:
    schema = COMPONENTS["schemas"][name]
    Draft7Validator.check_schema(schema)
    for node in schema_nodes(schema):
        assert node.keys() <= SCHEMA_KEYWORDS
        assert "$ref" not in node or node.keys() == {"$ref"}


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_channel_names_each_parameter_of_its_address(name: str) -> None:
    channel = DOCUMENT["channels"][name]
    assert set(re.findall(r"\{(\w+)\}", channel["address"])) == channel["parameters"].keys()
    assert channel["messages"]
    for server in channel["servers"]:
        assert resolve(server["$ref"]) in DOCUMENT["servers"].values()
    for message, reference in channel["messages"].items():
        assert reference == {"$ref": f"#/components/messages/{message}"}


@pytest.mark.parametrize("name", DOCUMENT["operations"])
def test_operation_uses_messages_of_its_channel(name: str) -> None:
    operation = DOCUMENT["operations"][name]
    assert operation["action"] in ("send", "receive")
    channel = operation["channel"]["$ref"]
    assert re.fullmatch(r"#/channels/\w+", channel)
    assert [reference["$ref"] for reference in operation["messages"]] == [
        f"{channel}/messages/{message}" for message in resolve(channel)["messages"]
    ]


def test_agents_send_events_and_everyone_else_receives() -> None:
    actions = {
        (operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for operation in DOCUMENT["operations"].values()
    }
    assert actions == {("send", "events"), ("receive", "live"), ("receive", "stream")}
    used = [name for channel in DOCUMENT["channels"].values() for name in channel["messages"]]
    assert sorted(used) == sorted(MESSAGES)


@pytest.mark.parametrize("key", [TaskKey("", "planner", "task-1"), TaskKey("acme", "a.b", "task/1")])
def test_addresses_are_the_subjects(key: TaskKey) -> None:
    tokens = {
        "tenant": encode_token(key.tenant) if key.tenant else COMPONENTS["parameters"]["tenant"]["default"],
        "agent": encode_token(key.agent),
        "task": encode_token(key.task),
    }
    channels = DOCUMENT["channels"]
    assert channels["events"]["address"].format(**tokens) == events_subject(key)
    assert channels["live"]["address"].format(**tokens) == live_subject(key)
    assert channels["events"]["address"].startswith(EVENTS_PREFIX + ".")
    assert channels["live"]["address"].startswith(LIVE_PREFIX + ".")


def test_header_schemas_name_the_headers() -> None:
    published = {headers.MSG_ID, headers.PRODUCER, headers.OWNER, headers.STATE, headers.TRACEPARENT}
    server = {headers.SUBJECT, headers.SEQUENCE, headers.TIME_STAMP, headers.LAST_SEQUENCE}
    schemas = COMPONENTS["schemas"]
    assert schemas["EventHeaders"]["properties"].keys() == published
    assert "required" not in schemas["EventHeaders"]
    assert schemas["StoredHeaders"]["properties"].keys() == published | server
    assert set(schemas["StoredHeaders"]["required"]) == server


EXAMPLES = [
    (name, index) for name, message in MESSAGES.items() for index in range(len(message.get("examples", [])))
]


@pytest.mark.parametrize(("name", "index"), EXAMPLES)
def test_examples_pass_their_schemas(name: str, index: int) -> None:
    message = MESSAGES[name]
    example = message["examples"][index]
    validator(message["payload"]).validate(example["payload"])
    if "headers" in example:
        validator(message["headers"]).validate(example["headers"])


def test_messages_of_nats_show_headers() -> None:
    for name in ("event", "storedEvent"):
        assert any("headers" in example for example in MESSAGES[name]["examples"])
        assert len(MESSAGES[name]["examples"]) > 1


@pytest.mark.parametrize(
    "hostile",
    [
        {headers.OWNER: "alice.smith"},
        {headers.OWNER: "*"},
        {headers.OWNER: "a" * 129},
        {headers.PRODUCER: "5F0C"},
        {headers.STATE: "working"},
        {headers.MSG_ID: ""},
        {headers.TRACEPARENT: "00-0-0-0"},
        {headers.MSG_ID: 7},
    ],
)
def test_hostile_headers_fail(hostile: dict[str, Any]) -> None:
    assert not validator(MESSAGES["event"]["headers"]).is_valid(hostile)


@pytest.mark.parametrize("owner", ["alice", "a@example.org", "é" * 128, "." * 256, "_", "a" * 129])
def test_owner_header_takes_every_encoded_principal(owner: str) -> None:
    validator(MESSAGES["event"]["headers"]).validate({headers.OWNER: encode_token(owner)})


def test_frames_are_named_by_their_type() -> None:
    frames = list(DOCUMENT["channels"]["stream"]["messages"])
    assert frames
    for name in frames:
        assert MESSAGES[name]["name"] == name
        assert name.split(".")[0] in ("task", "stream")
    record = {
        "type": "task.status",
        "taskId": "t",
        "contextId": "c",
        "seq": 7,
        "at": "2025-11-21T07:06:00.000Z",
    }
    validator(MESSAGES["task.status"]["payload"]).validate(record | {"state": "working"})
    assert not validator(MESSAGES["task.status"]["payload"]).is_valid(record | {"seq": "7"})
    assert not validator(MESSAGES["stream.open"]["payload"]).is_valid({"mode": "live"})


def test_a_batch_holds_frames_of_records() -> None:
    payload = resolve(MESSAGES["task.batch"]["payload"]["$ref"])
    assert payload["required"] == ["events", "taskId", "type"]
    assert resolve(payload["properties"]["events"]["items"]["$ref"])["required"] == [
        "at",
        "contextId",
        "seq",
        "taskId",
        "type",
    ]
