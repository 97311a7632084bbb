from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecast_broker.core.a2a.errors import A2AError, ErrorKind
from sidecast_broker.core.a2a.target import RESERVED, WrongMethod, match, refusal_wire
from sidecast_broker.core.a2a.wire import VERSIONS, Wire


def found(method, target, version="1.0"):
    call = match(method, target, version)
    return call and (
        call.operation and call.operation.name,
        call.agent,
        call.tenant,
        call.task,
        call.config,
        call.target,
    )


def refused(method, target, version="1.0"):
    with pytest.raises(A2AError) as raised:
        match(method, target, version)
    return raised.value.kind


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("target", "agent", "passed"),
    [
        ("/", "", "/"),
        ("/?A2A-Version=1.0", "", "/?A2A-Version=1.0"),
        ("/a2a", "", "/a2a"),
        ("/agents/planner", "planner", "/"),
        ("/agents/planner/", "planner", "/"),
        ("/agents/planner?x=1", "planner", "/?x=1"),
        ("/agents/planner/a2a", "planner", "/a2a"),
        ("/agents/a%2Fb/a2a?q=/../x", "a/b", "/a2a?q=/../x"),
    ],
)
def test_jsonrpc(version, target, agent, passed):
    call = match("POST", target, version)
    assert call.wire == Wire(version, "jsonrpc")
    assert call.operation is None
    assert (call.agent, call.target) == (agent, passed)
    with pytest.raises(WrongMethod) as raised:
        match("GET", target, version)
    assert raised.value.allow == ("POST",)


@pytest.mark.row("C44")
@pytest.mark.parametrize(
    ("method", "path", "name", "ids"),
    [
        ("POST", "/message:send", "SendMessage", ("", "")),
        ("POST", "/message:stream", "SendStreamingMessage", ("", "")),
        ("GET", "/tasks", "ListTasks", ("", "")),
        ("GET", "/tasks/a", "GetTask", ("a", "")),
        ("GET", "/tasks/a:b", "GetTask", ("a:b", "")),
        ("GET", "/tasks/a:cancel:b", "GetTask", ("a:cancel:b", "")),
        ("POST", "/tasks/a:cancel", "CancelTask", ("a", "")),
        ("POST", "/tasks/a:b:cancel", "CancelTask", ("a:b", "")),
        ("POST", "/tasks/a:subscribe", "SubscribeToTask", ("a", "")),
        ("GET", "/tasks/a:subscribe", "SubscribeToTask", ("a", "")),
        ("GET", "/tasks/tasks:subscribe", "SubscribeToTask", ("tasks", "")),
        ("POST", "/tasks/a/pushNotificationConfigs", "CreateTaskPushNotificationConfig", ("a", "")),
        ("GET", "/tasks/a/pushNotificationConfigs", "ListTaskPushNotificationConfigs", ("a", "")),
        ("GET", "/tasks/a/pushNotificationConfigs/c", "GetTaskPushNotificationConfig", ("a", "c")),
        ("DELETE", "/tasks/a/pushNotificationConfigs/c", "DeleteTaskPushNotificationConfig", ("a", "c")),
    ],
)
def test_rest(method, path, name, ids):
    assert found(method, path) == (name, "", "", *ids, path)
    assert found(method, f"/acme{path}?x=%2F") == (name, "", "acme", *ids, f"/acme{path}?x=%2F")
    assert found(method, f"/agents/p{path}") == (name, "p", "", *ids, path)
    assert found(method, f"/agents/p/acme{path}?") == (name, "p", "acme", *ids, f"/acme{path}?")
    assert found(method, f"/v1{path}?y", "0.3") == (name, "", "", *ids, f"/v1{path}?y")
    assert found(method, f"/agents/p/v1{path}", "0.3") == (name, "p", "", *ids, f"/v1{path}")
    assert match(method, path, "1.0").wire == Wire("1.0", "rest")
    assert match(method, f"/v1{path}", "0.3").wire == Wire("0.3", "rest")


def test_the_extended_card():
    assert found("GET", "/extendedAgentCard")[0] == "GetExtendedAgentCard"
    assert found("GET", "/acme/extendedAgentCard")[2] == "acme"
    assert found("GET", "/v1/card", "0.3")[0] == "GetExtendedAgentCard"
    assert found("GET", "/card") is None
    assert found("GET", "/v1/extendedAgentCard", "0.3") is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/.well-known/agent-card.json", "/.well-known/agent.json"])
def test_the_card_is_of_both_generations(version, method, path):
    assert found(method, path, version) == ("GetAgentCard", "", "", "", "", path)
    assert found(method, "/agents/p" + path, version) == ("GetAgentCard", "p", "", "", "", path)
    with pytest.raises(WrongMethod):
        match("POST", path, version)


@pytest.mark.parametrize(
    ("method", "target", "version"),
    [
        ("POST", "/v1/message:stream", "1.0"),
        ("GET", "/v1/tasks/a:subscribe", "1.0"),
        ("POST", "/message:stream", "0.3"),
        ("GET", "/tasks/a:subscribe", "0.3"),
        ("GET", "/acme/tasks/a:subscribe", "0.3"),
    ],
)
def test_each_path_is_of_one_generation(method, target, version):
    assert refused(method, target, version) is ErrorKind.VERSION_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("method", "target", "version", "allow"),
    [
        ("GET", "/message:stream", "1.0", {"POST"}),
        ("POST", "/tasks/a", "1.0", {"GET"}),
        ("POST", "/tasks/a:unknown", "1.0", {"GET"}),
        ("POST", "/tasks/a%3Acancel", "1.0", {"GET"}),
        ("GET", "/tasks/a:cancel", "1.0", {"POST"}),
        ("PUT", "/v1/tasks/a:subscribe", "0.3", {"GET", "POST"}),
        ("get", "/tasks/a", "1.0", {"GET"}),
        ("", "/tasks/a/pushNotificationConfigs", "1.0", {"GET", "POST"}),
        ("PATCH", "/tasks/a/pushNotificationConfigs/c", "1.0", {"GET", "DELETE"}),
    ],
)
def test_wrong_methods(method, target, version, allow):
    with pytest.raises(WrongMethod) as raised:
        match(method, target, version)
    assert set(raised.value.allow) == allow


@pytest.mark.parametrize(
    "target",
    [
        "/x",
        "/a2a/",
        "/a2a/stream",
        "/tasks/",
        "/tasks/a/",
        "/tasks/a/events",
        "/tasks/a/messages/stream",
        "/tasks/a/pushNotificationConfigs/",
        "/tasks/a/pushNotificationConfigs/c/d",
        "/tasks/a:subscribe/x",
        "/stream/tasks/a",
        "/api/stream/a",
        "/agents",
        "/agents/",
        "/agents/p/agents/q",
        "/agents/p/agents/q/a2a",
        "/agents/p/x",
        "/x/y/tasks/a",
        "/v1",
        "/v1/",
        "/v1/acme/tasks/a",
        "/acme/v1/tasks/a",
        "/acme/a2a",
        "/acme",
        "/acme/",
        "/Tasks/a",
        "/message%3Asend",
        "/%74asks/a",
        "/tasks/a/%70ushNotificationConfigs",
        "/.well-known/agent-card.json/",
        "/acme/.well-known/agent-card.json",
        "/ui/",
        "/metrics",
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_of_a2a(target, version, method):
    assert match(method, target, version) is None


@pytest.mark.parametrize("segment", sorted(RESERVED))
@pytest.mark.parametrize("spell", [str, lambda text: "".join(f"%{ord(char):02x}" for char in text)])
def test_reserved_segments_are_no_tenants(segment, spell):
    target = f"/{spell(segment)}/tasks/a:subscribe"
    if target.startswith("/v1/"):
        assert refused("GET", target) is ErrorKind.VERSION_NOT_SUPPORTED
    else:
        assert match("GET", target, "1.0") is None


@pytest.mark.row("C44")
@pytest.mark.parametrize(
    ("raw", "task"),
    [
        ("a%2Fb", "a/b"),
        ("%2F", "/"),
        ("%00", "\0"),
        ("a%0D%0Ab", "a\r\nb"),
        ("%25FF", "%FF"),
        ("%252e%252e", "%2e%2e"),
        ("%252F", "%2F"),
        ("..", ".."),
        ("%2e%2E", ".."),
        ("a%3Acancel", "a:cancel"),
        ("a:subscribe", "a:subscribe"),
        ("%C3%A9", "é"),
        ("+", "+"),
        ("%20", " "),
        ("*", "*"),
        (">", None),
        ("_", "_"),
        ("a;x=1", "a;x=1"),
        ("%F0%9F%98%80", "😀"),
        ("x" * 256, "x" * 256),
        ("%C3%A9" * 128, "é" * 128),
    ],
    ids=lambda text: ascii(text and text[:20]),
)
def test_ids_are_decoded_once(raw, task):
    if task is None:
        assert refused("GET", f"/tasks/{raw}:subscribe") is ErrorKind.INVALID_REQUEST
        return
    assert match("GET", f"/tasks/{raw}:subscribe", "1.0").task == task
    assert match("GET", f"/v1/tasks/{raw}:subscribe", "0.3").task == task


@pytest.mark.parametrize(
    "raw",
    [
        "%FF",
        "%C3",
        "%C0%80",
        "%ED%A0%80",
        "%F5%80%80%80",
        "%",
        "%2",
        "%zz",
        "%u0061",
        "é",
        "\udcff",
        "a b",
        "a\\b",
        "a\x00",
        "a\r\nb",
        "a\tb",
        "a#b",
        '"',
        "",
        "x" * 257,
        "%C3%A9" * 129,
        "a" * 10_240,
        "%41" * 10_240,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_ids_that_are_none(raw):
    for place in ("/tasks/{}:subscribe", "/{}/tasks/a:subscribe", "/agents/{}/tasks/a:subscribe"):
        assert refused("GET", place.format(raw)) is ErrorKind.INVALID_REQUEST
    assert refused("POST", f"/agents/{raw}/a2a") is ErrorKind.INVALID_REQUEST
    assert refused("GET", f"/v1/tasks/{raw}:subscribe", "0.3") is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "tasks/a",
        "http://broker.example/tasks/a",
        "https://broker.example/",
        "broker.example:443",
        "//",
        "//a",
        "//broker.example/tasks/a",
        "/tasks//a",
        "/tasks/a//",
        "/./tasks/a",
        "/../tasks/a",
        "/tasks/.",
        "/tasks/..",
        "/tasks/a/..",
        "/tasks/../../etc/passwd",
        "/tasks/%2e",
        "/tasks/%2e%2e",
        "/tasks/.%2E",
        "/tasks/%2E./x",
        "/agents/%2e%2e/a2a",
        "/agents/./a2a",
        "/..",
        "/tasks/a?x#y",
        "/tasks/a?x y",
        "/tasks/a?é",
        "/tasks/a?\r\nX: y",
        "?A2A-Version=1.0",
        "/" + "/a" * 5_000 + "//",
        "/" + "../" * 3_000,
    ],
    ids=lambda text: ascii(text[:30]),
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_targets_that_are_no_plain_path(target, method):
    for version in VERSIONS:
        assert refused(method, target, version) is ErrorKind.INVALID_REQUEST
        assert refusal_wire(target, version) == Wire(version, "rest")


def test_long_paths_are_nothing_of_a2a():
    assert match("GET", "/a" * 5_000, "1.0") is None
    assert match("GET", "/" + "a" * 10_240, "1.0") is None
    assert match("GET", "/tasks" + "/%2F" * 2_500, "1.0") is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/tasks/a%2FpushNotificationConfigs"),
        ("GET", "/tasks/a%2F..%2Fb"),
        ("GET", "/tasks/a%3Asubscribe"),
        ("GET", "/tasks/a;b"),
        ("POST", "/tasks/a;b:cancel"),
        ("GET", "/a;u/tasks"),
        ("GET", "/tasks/a%5Cb"),
        ("POST", "/tasks/a%2Fb:cancel"),
        ("POST", "/tasks/b%3Acancel:cancel"),
        ("POST", "/a%2Fb/message:send"),
        ("GET", "/tasks/a/pushNotificationConfigs/c%2Fd"),
        ("DELETE", "/tasks/a/pushNotificationConfigs/c%5Cd"),
    ],
)
def test_what_an_agent_could_read_otherwise_does_not_pass(method, target):
    assert refused(method, target) is ErrorKind.INVALID_REQUEST
    if not target.startswith("/a"):
        assert refused(method, "/v1" + target, "0.3") is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    ("target", "version", "wire"),
    [
        ("/", None, Wire("1.0", "jsonrpc")),
        ("/a2a?A2A-Version=9", None, Wire("1.0", "jsonrpc")),
        ("/a2a", "0.3", Wire("0.3", "jsonrpc")),
        ("/agents/p", "0.3", Wire("0.3", "jsonrpc")),
        ("/agents/%FF/a2a", "0.3", Wire("0.3", "rest")),
        ("/v1/tasks/a", None, Wire("1.0", "rest")),
        ("/v1/tasks/a", "0.3", Wire("0.3", "rest")),
        ("/v1/tasks/a", "1.0", Wire("1.0", "rest")),
        ("/tasks/a", "0.3", Wire("1.0", "rest")),
        ("/tasks/a", "1.0", Wire("1.0", "rest")),
        ("/agents/p/v1/tasks/%FF", "0.3", Wire("0.3", "rest")),
        ("//", "1.0", Wire("1.0", "rest")),
    ],
)
def test_refusal_wire(target, version, wire):
    assert refusal_wire(target, version) == wire


@given(
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.text() | st.text("/ad%2eEfF.:?tsk", max_size=40).map("/".__add__),
    st.sampled_from(VERSIONS),
)
def test_any_target_has_one_of_four_outcomes(method, target, version):
    call, allow, kind = None, (), None
    try:
        call = match(method, target, version)
    except WrongMethod as wrong:
        allow = wrong.allow
    except A2AError as error:
        kind = error.kind
    assert method not in allow
    assert kind in (None, ErrorKind.INVALID_REQUEST, ErrorKind.VERSION_NOT_SUPPORTED)
    if call is not None:
        assert call.target.startswith("/")
        assert target.endswith(call.target) or target.startswith("/agents/")
    assert refusal_wire(target, version).version in VERSIONS
