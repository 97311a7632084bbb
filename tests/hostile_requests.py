"""Requests made to break the A2A door, and how each is answered.

Must not know how they are sent.
"""

from __future__ import annotations

import gzip
import zlib
from typing import NamedTuple

from door import BODY_BYTES_MAX, GET_TASK, SMUGGLED, chunked, framed, get, message, post, request, rpc


class Case(NamedTuple):
    """One hostile request.

    Attributes:
        raw: its bytes; `{trap}` stands for the address nobody may ask.
        status: of HTTP, as it must be answered.
        code: of the error, where it must be one.
        passes: the request lines by which the agent may hear of it.
    """

    raw: bytes
    status: int
    code: int | str | None = None
    passes: tuple[str, ...] = ()


def rpc_error(raw: bytes, code: int) -> Case:
    """Say that a request gets a JSON-RPC error, and does not pass."""
    return Case(raw, 200, code)


def rest_error(raw: bytes, status: int = 400) -> Case:
    """Say that a request gets an error of A2A's REST form, and does not pass."""
    return Case(raw, status, status)


def no_http(raw: bytes) -> Case:
    """Say that a request is refused before anybody looks at what it asks for."""
    return Case(raw, 400, "bad-request")


DUPLICATES = {
    f"a member twice: {name}": rpc_error(post(body), -32600)
    for name, body in {
        "method": '{"jsonrpc":"2.0","id":1,"method":"GetTask","method":"CancelTask","params":{"id":"a"}}',
        "method, case": '{"jsonrpc":"2.0","id":1,"method":"GetTask","METHOD":"x","params":{"id":"a"}}',
        "params": '{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a"},"params":{"id":"b"}}',
        "params, case": '{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a"},"PARAMS":{"id":"b"}}',
        "params, escaped": r'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{},"par\u0061ms":{}}',
        "envelope's id": '{"jsonrpc":"2.0","id":1,"id":2,"method":"GetTask","params":{"id":"a"}}',
        "id": rpc(params='{"id":"a","id":"b"}'),
        "id, case": rpc(params='{"id":"a","ID":"b"}'),
        "id, only case": rpc(params='{"ID":"b"}'),
        "id, escaped": rpc(params=r'{"id":"a","\u0069d":"b"}'),
        "id, Kelvin's": rpc("GetTaskPushNotificationConfig", '{"taskId":"a","tas\u212aId":"b","id":"c"}'),
        "taskId, snake": rpc("GetTaskPushNotificationConfig", '{"taskId":"a","task_id":"b","id":"c"}'),
        "tenant": rpc(params='{"id":"a","tenant":"t","tenant":"u"}'),
        "message": rpc("SendMessage", '{"message":{"messageId":"m"},"Message":{"messageId":"m"}}'),
        "message.taskId": rpc("SendMessage", '{"message":{"messageId":"m","taskId":"a","taskID":"b"}}'),
        "message.task_id": rpc("SendMessage", '{"message":{"messageId":"m","taskId":"a","task_id":"b"}}'),
        "message.contextId": rpc("SendStreamingMessage", '{"message":{"contextId":"a","contextid":"b"}}'),
    }.items()
}

JSON_BODIES = {
    "no body": rpc_error(post(""), -32700),
    "not JSON": rpc_error(post("{"), -32700),
    "two values": rpc_error(post(GET_TASK + GET_TASK), -32700),
    "a batch": rpc_error(post(f"[{GET_TASK},{GET_TASK}]"), -32600),
    "an empty batch": rpc_error(post("[]"), -32600),
    "a string": rpc_error(post('"GetTask"'), -32600),
    "UTF-16": rpc_error(post(GET_TASK.encode("utf-16")), -32700),
    "a byte order mark": rpc_error(post(b"\xef\xbb\xbf" + GET_TASK.encode()), -32700),
    "bytes that are no UTF-8": rpc_error(post(GET_TASK.encode().replace(b"a", b"\xff", 1)), -32700),
    "a surrogate in UTF-8": rpc_error(post(GET_TASK.encode().replace(b'"a"', b'"\xed\xa0\x80"')), -32700),
    "half a pair": rpc_error(post(rpc(params=r'{"id":"\ud800"}')), -32700),
    "a line end in a string": rpc_error(post(rpc(params='{"id":"a\nb"}')), -32700),
    "NUL": rpc_error(post(GET_TASK + "\0"), -32700),
    "NaN": rpc_error(post(rpc(rpc_id="NaN")), -32700),
    "an id like 01": rpc_error(post(rpc(rpc_id="01")), -32700),
    "an id that is an object": rpc_error(post(rpc(rpc_id="{}")), -32600),
    "an id too long": rpc_error(post(rpc(rpc_id=f'"{"x" * 300}"')), -32600),
    "deep nesting": rpc_error(post(rpc(params='{"id":"a","x":' + "[" * 1500 + "]" * 1500 + "}")), -32600),
    "deeper nesting": rpc_error(post("[" * 4000), -32600),
    "too many members": rpc_error(
        post(rpc(params="{" + ",".join(f'"{n}":1' for n in range(300)) + "}")), -32600
    ),
    "params that are a list": rpc_error(post(rpc(params='["a"]')), -32602),
    "an id that is a number": rpc_error(post(rpc(params='{"id":1}')), -32602),
    "no task": rpc_error(post(rpc(params="{}")), -32602),
    "no method": rpc_error(post('{"jsonrpc":"2.0","id":1}'), -32600),
    "JSON-RPC 1.0": rpc_error(post(GET_TASK.replace('"2.0"', '"1.0"')), -32600),
    "a method of nobody": rpc_error(post(rpc("rpc.discover")), -32601),
    "a method of the other version": rpc_error(post(rpc("tasks/get")), -32601),
    "a message that is a string": rpc_error(post(rpc("SendMessage", '{"message":"x"}')), -32602),
    "a message's id that is none": rpc_error(
        post(rpc("SendStreamingMessage", message(messageId={"a": 1}))), -32602
    ),
    "REST: a list": rest_error(post("[]", target="/message:send")),
    "REST: another task": rest_error(
        post('{"taskId":"b"}', target="/tasks/a/pushNotificationConfigs"),
    ),
    "REST: a member twice": rest_error(
        post('{"message":{"taskId":"a","TaskId":"b"}}', target="/message:send"),
    ),
}

TARGETS = {
    "absolute form": no_http(post(GET_TASK, target="http://{trap}/")),
    "absolute form of a card": no_http(get("http://{trap}/.well-known/agent-card.json")),
    "absolute form, passed on": no_http(get("http://{trap}/docs/x")),
    "absolute form, https": no_http(get("https://{trap}/docs/x")),
    "absolute form, broken": no_http(get("http://[::1")),
    "authority form": no_http(get("{trap}", method="CONNECT")),
    "a tunnel through a path, passed on": no_http(get("/docs/x", method="CONNECT")),
    "asterisk form": no_http(get("*", method="OPTIONS")),
    "two slashes": rest_error(post(GET_TASK, target="//{trap}/")),
    "two slashes, passed on": rest_error(get("//{trap}/docs/x")),
    "two slashes within": rest_error(get("/docs//{trap}")),
    "a user part": Case(get("/@{trap}/x"), 404, "not-found"),
    "dots": rest_error(get("/docs/../tasks/a")),
    "dots, encoded": rest_error(get("/docs/%2e%2E/tasks/a")),
    "dots, half encoded": rest_error(get("/docs/.%2e/tasks/a")),
    "dots, encoded twice": no_http(get("/docs/%252e%252e/tasks/a")),
    "dots and an encoded slash": no_http(get("/docs/..%2ftasks/a")),
    "dots and parameters": no_http(get("/docs/..;x/tasks/a")),
    "one dot": rest_error(get("/./docs/x")),
    "a backslash": rest_error(get("/docs\\..\\x")),
    "a fragment": rest_error(get("/docs/x#y")),
    "a bad escape": rest_error(get("/docs/%zz")),
    "bytes beyond ASCII": no_http(get("/docs/\xff")),
    "an action in an id": rest_error(get("/tasks/a%3Acancel")),
    "a slash in an id": rest_error(get("/tasks/a%2Fb")),
    "parameters of an id": rest_error(get("/tasks/a;b")),
    "a tenant that is reserved": Case(get("/agents/nobody/docs/x"), 404, "not-found"),
    "another agent": rest_error(get("/agents/nobody/tasks/a"), 404),
    "another task in the query": rest_error(get("/tasks/a?id=b")),
    "a task twice in the query": rest_error(get("/tasks/a?id=a&id=b")),
    "a tenant twice in the query": rest_error(get("/tasks?tenant=t&tenant=u")),
    "a tenant in another case": rest_error(get("/tasks?Tenant=t")),
    "a tenant behind a semicolon": rest_error(get("/tasks?x=1;tenant=t")),
    "a tenant that is no UTF-8": rest_error(get("/tasks?tenant=%ff")),
    "tenants that differ": rest_error(get("/t/tasks/a?tenant=u"), 404),
    "a path of nobody": Case(get("/admin"), 404, "not-found"),
    "a method of HTTP that is not for it": Case(get("/tasks/a", method="PUT"), 405, "method-not-allowed"),
    "a long target": Case(get("/docs/" + "x" * 10_000), 431, "head-too-large"),
}

FRAMING = {
    "both lengths": no_http(
        framed("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    "both lengths, the other way": no_http(
        framed("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"),
    ),
    "two lengths": no_http(framed("Content-Length: 0", "Content-Length: 40")),
    "two equal lengths": no_http(framed("Content-Length: 2", "Content-Length: 2", body=b"{}")),
    "a list of lengths": no_http(framed("Content-Length: 2, 2", body=b"{}")),
    "a negative length": no_http(framed("Content-Length: -2", body=b"{}")),
    "a length with a sign": no_http(framed("Content-Length: +2", body=b"{}")),
    "a hexadecimal length": no_http(framed("Content-Length: 0x2", body=b"{}")),
    "a length beyond all numbers": no_http(framed(f"Content-Length: {2**64 + 2}", body=b"{}")),
    "a coding of nobody": no_http(framed("Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "a coding before chunked": no_http(framed("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "chunked twice": no_http(framed("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    "chunked in two lines": no_http(
        framed("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    ),
    "chunked in HTTP/1.0": no_http(framed("Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0")),
    "chunked in HTTP/1.0, kept alive": no_http(
        framed("Connection: keep-alive", "Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0"),
    ),
    "a chunk without a size": no_http(framed("Transfer-Encoding: chunked", body=b"ZZ\r\n")),
    "a chunk of another size": no_http(framed("Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n")),
    "a chunk that ends in LF": no_http(framed("Transfer-Encoding: chunked", body=b"2\n{}\n0\n\n")),
    "a chunk beyond all numbers": no_http(framed("Transfer-Encoding: chunked", body=b"F" * 17 + b"\r\n")),
    "a folded line": no_http(framed("X-A: b\r\n c")),
    "a folded first line": no_http(framed(" X-A: b")),
    "lines that end in LF": no_http(framed("X-A: b\nContent-Length: 40")),
    "a line that ends in CR": no_http(framed("X-A: b\rContent-Length: 40")),
    "a request that ends in LF": no_http(post(GET_TASK).replace(b"\r\n", b"\n") + SMUGGLED),
    "a space in a name": no_http(framed("X A: b")),
    "a space behind a name": no_http(framed("Content-Length : 40")),
    "NUL in a name": no_http(framed("X\0A: b")),
    "NUL in a value": no_http(framed("X-A: b\0c")),
    "a line without a colon": no_http(framed("X-A")),
    "a name that is empty": no_http(framed(": b")),
    "too many headers": Case(framed(*(f"X-{n}: b" for n in range(200))), 431, "head-too-large"),
    "a long header": Case(framed("X-A: " + "b" * 20_000), 431, "head-too-large"),
    "no Host": no_http(post(GET_TASK).replace(b"Host: x\r\n", b"")),
    "two Hosts": no_http(post(GET_TASK, "Host: {trap}")),
    "an upgrade": rpc_error(post(GET_TASK, "Upgrade: h2c", "Connection: Upgrade"), -32600),
    "an upgrade of a message": rpc_error(
        post(rpc("SendMessage", message()), "Upgrade: h2c", "Connection: Upgrade"), -32600
    ),
    "an upgrade, and more": rpc_error(
        post(GET_TASK, "Upgrade: websocket", "Connection: Upgrade") + SMUGGLED, -32600
    ),
    "an upgrade of what passes": no_http(get("/docs/x", "Upgrade: websocket", "Connection: Upgrade")),
    "something else expected": no_http(post(GET_TASK, "Expect: 200-ok")),
    "no HTTP at all": no_http(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
    "HTTP/2": no_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}

HEADERS = {
    "a foreign Host": Case(post(GET_TASK).replace(b"Host: x", b"Host: {trap}"), 200, passes=("POST /",)),
    "forwarding that is forged": Case(
        post(
            GET_TASK,
            "X-Forwarded-Host: {trap}",
            "X-Forwarded-For: 192.0.2.1",
            "Forwarded: host={trap}",
            "X-Original-URL: http://{trap}/",
            "X-Rewrite-URL: /admin",
            "X-HTTP-Method-Override: DELETE",
        ),
        200,
        passes=("POST /",),
    ),
    "two versions": rpc_error(post(GET_TASK, "A2A-Version: 0.3"), -32009),
    "two versions in the query": rpc_error(
        post(GET_TASK, target="/?A2A-Version=1.0&A2A-Version=0.3", version=""), -32009
    ),
    "a version of nobody": rpc_error(post(GET_TASK, version="7.0"), -32009),
    "a version that is no UTF-8": rpc_error(post(GET_TASK, version="\xff\xfe"), -32009),
    "REST: a version that is no UTF-8": rest_error(get("/tasks/a", version="\xff\xfe")),
    "a header that is no UTF-8": rpc_error(post(GET_TASK, "X-Name: \xff"), -32600),
    "a header that is no UTF-8, of a send": rpc_error(
        post(rpc("SendStreamingMessage", message()), "X-Name: \xff"), -32600
    ),
    "a card's tag that is none": Case(get("/.well-known/agent-card.json", 'If-None-Match: \xff", W/"'), 200),
    "a card for a Host that is none": no_http(
        request("GET", "/.well-known/agent-card.json", host="a/b@{trap}")
    ),
    "an unknown Content-Encoding": Case(post(GET_TASK, "Content-Encoding: br"), 415, -32000),
    "a list of Content-Encodings": Case(post(GET_TASK, "Content-Encoding: gzip, gzip"), 415, -32000),
}

BIG = b"x" * (BODY_BYTES_MAX + 1)
BOMB = gzip.compress(b"x" * 3_000_000)

SIZES = {
    "a body too large": Case(post(BIG), 413, -32000),
    "a body said to be too large": Case(
        request("POST", "/", "A2A-Version: 1.0", f"Content-Length: {2**63}"), 413, -32000
    ),
    "a body too large in chunks": Case(chunked(*[b"x" * 1000] * 5), 413, -32000),
    "REST: a body too large": Case(post(BIG, target="/message:send"), 413, 413),
    "REST v0.3: a body too large": Case(post(BIG, target="/v1/message:stream", version="0.3"), 413, -32000),
    "a bomb": Case(post(BOMB, "Content-Encoding: gzip"), 413, -32000),
    "a bomb in chunks": Case(chunked(BOMB, lines=("Content-Encoding: gzip",)), 413, -32000),
    "a bomb of zlib": Case(post(zlib.compress(b"x" * 3_000_000), "Content-Encoding: deflate"), 413, -32000),
    "a bomb of the public card": Case(
        request("GET", "/.well-known/agent-card.json", "Content-Encoding: gzip", body=BOMB), 200
    ),
    "gzip that is none": rpc_error(post(GET_TASK, "Content-Encoding: gzip"), -32600),
    "gzip that is cut off": rpc_error(post(gzip.compress(b"x" * 99)[:-9], "Content-Encoding: gzip"), -32600),
    "gzip and more": rpc_error(post(gzip.compress(b"{}") + b"x", "Content-Encoding: gzip"), -32600),
}

CASES = DUPLICATES | JSON_BODIES | TARGETS | FRAMING | HEADERS | SIZES
