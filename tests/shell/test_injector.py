"""The injector over TLS: what the API server asks, what anybody else may try, and files that change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from certificate_files import Files
from click.testing import CliRunner
from injected_pods import SHAPES, TEMPLATE, annotated, patched_by, pod, review, validate
from sse import TIMEOUT_S

from sidecast_broker import injector as module
from sidecast_broker.__main__ import main
from sidecast_broker.auth.watched_file import UnusableFile
from sidecast_broker.configuration import load
from sidecast_broker.injector import Injecting, injecting

BODY_BYTES_MAX = 65_536


class Asked:
    """A running injector, and a client that trusts it."""

    def __init__(self, running: Injecting, session: aiohttp.ClientSession, template: Path) -> None:
        self.running = running
        self.session = session
        self.template = template

    async def post(self, body: bytes, **more: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(f"{self.running.url}/mutate?timeout=5s", data=body, **more) as answer:
            return answer.status, json.loads(await answer.read())

    async def mutate(self, made: Any, **changed: Any) -> dict[str, Any]:
        status, answer = await self.post(json.dumps(review(made, **changed)).encode())
        assert status == 200, answer
        assert answer["response"]["uid"] == review(made)["request"]["uid"]
        return answer

    async def get(self, url: str) -> tuple[int, str]:
        async with self.session.get(url) as answer:
            return answer.status, await answer.text()


def settings_of(files: Files, **changed: str) -> dict[str, str]:
    return {
        "SIDECAST_SERVER_PORT": "0",
        "SIDECAST_SERVER_INTERNAL_PORT": "0",
        "SIDECAST_SERVER_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
        "SIDECAST_SERVER_BODY_S": "1",
        "SIDECAST_SERVER_TLS_CERTIFICATE": str(files.path("certificate")),
        "SIDECAST_SERVER_TLS_KEY": str(files.path("key")),
        **changed,
    }


@contextlib.asynccontextmanager
async def asked_at(files: Files, text: str = json.dumps(TEMPLATE)) -> AsyncIterator[Asked]:
    template = files.folder / "template.json"
    template.write_text(text)
    settings = load(None, settings_of(files), {})
    connector = aiohttp.TCPConnector(ssl=files.context())
    async with (
        injecting(settings, str(template)) as running,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session,
    ):
        yield Asked(running, session, template)


@pytest.fixture
async def asked(files: Files, unharmed: None) -> AsyncIterator[Asked]:
    async with asked_at(files) as found:
        yield found


# --- pods


@pytest.mark.parametrize("name", SHAPES)
async def test_each_shape_becomes_what_it_must(asked: Asked, name: str) -> None:
    shape = SHAPES[name]
    answer = await asked.mutate(shape.pod, namespace=shape.namespace)
    assert answer["response"]["allowed"] is True
    after = patched_by(shape.pod, answer)
    assert after == shape.wanted(TEMPLATE["template"])
    assert bool(answer["response"].get("warnings")) == (shape.outcome == "left" or name == "beside")
    validate(after)
    again = await asked.mutate(after, namespace=shape.namespace)
    assert "patch" not in again["response"], "done twice, it is done once"


async def test_an_override_is_taken_or_denies_the_pod(asked: Asked) -> None:
    made = annotated(agent_name="planner", agent_port="9000", tenant="acme")
    after = patched_by(made, await asked.mutate(made))
    validate(after)
    own = {entry["name"]: entry["value"] for entry in after["spec"]["initContainers"][0]["env"]}
    assert own["SIDECAST_AGENT_URL"] == "http://127.0.0.1:9000"
    response = (await asked.mutate(annotated(agent_url="http://u:secret@x")))["response"]
    assert response["allowed"] is False
    assert response["status"]["message"].startswith("sidecast: sidecast.dev/agent-url: ")
    assert "patch" not in response


async def test_what_is_no_new_pod_stays(asked: Asked) -> None:
    for changed in (
        {"operation": "UPDATE"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
    ):
        response = (await asked.mutate(pod("plain"), **changed))["response"]
        assert set(response) == {"uid", "allowed"}


async def test_many_at_once(asked: Asked) -> None:
    answers = await asyncio.gather(*(asked.mutate(pod("plain")) for _ in range(module.REVIEWS_MAX)))
    assert len({json.dumps(answer) for answer in answers}) == 1


# --- hostile input


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}',
        json.dumps(review(None)).encode(),
        json.dumps(review({"metadata": {"labels": {"sidecast.dev/inject": "true"}}})).encode(),
        json.dumps(review({"metadata": "x"})).encode(),
        json.dumps(review(pod("plain"), uid={})).encode(),
        json.dumps(review(pod("plain"))).encode().replace(b'"uid"', b'"uid":"first","uid"'),
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_malformed_review_is_400_and_nothing_else(asked: Asked, body: bytes) -> None:
    status, answer = await asked.post(body)
    assert (status, set(answer), answer["error"]["code"]) == (400, {"error"}, "bad-request")
    assert len(answer["error"]["message"]) < 200
    await asked.mutate(pod("plain"))


async def test_a_body_is_bounded_in_size(asked: Asked) -> None:
    status, answer = await asked.post(b" " * (BODY_BYTES_MAX + 1))
    assert (status, answer["error"]["code"]) == (413, "body-too-large")


async def test_a_body_is_bounded_in_time(asked: Asked) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    status, answer = await asked.post(slowly())  # type: ignore[arg-type]
    assert (status, answer["error"]["code"]) == (408, "request-timeout")


async def test_bodies_under_way_are_few(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REVIEWS_MAX", 0)
    status, answer = await asked.post(json.dumps(review(pod("plain"))).encode())
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    monkeypatch.undo()
    await asked.mutate(pod("plain"))


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/mutate", 405), ("POST", "/", 404)])
async def test_nothing_else_is_there(asked: Asked, method: str, path: str, status: int) -> None:
    async with asked.session.request(method, asked.running.url + path) as answer:
        assert answer.status == status


async def test_plain_http_is_no_answer(asked: Asked) -> None:
    with pytest.raises(aiohttp.ClientError):
        await asked.get(asked.running.url.replace("https", "http"))


async def test_no_secret_of_a_pod_reaches_a_log(files: Files) -> None:
    made = annotated(agent_url="http://user:hunter2@x", other="hunter2")
    made["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "hunter2"}]
    made["metadata"]["generateName"] = "a\n\x1b[2Jb-"
    whole = {**pod("plain"), "spec": made["spec"]}
    with structlog.testing.capture_logs() as lines:
        async with asked_at(files) as asked:
            answers = [await asked.mutate(made), await asked.mutate(whole)]
            await asked.post(json.dumps(review(made, uid=None)).encode())
    told = [line for line in lines if line["event"] == "pod_reviewed"]
    assert [line["outcome"] for line in told] == ["denied", "injected"]
    assert told[0]["pod"] == "a??[2Jb-"
    assert "hunter2" not in str(lines)
    assert "hunter2" not in str(answers)


# --- probes, metrics, files that change


async def test_probes_and_metrics(asked: Asked) -> None:
    await asked.mutate(pod("plain"))
    for base in (asked.running.url, asked.running.internal_url):
        assert [(await asked.get(f"{base}/{path}"))[0] for path in ("livez", "readyz")] == [200, 200]
    metrics = (await asked.get(f"{asked.running.internal_url}/metrics"))[1]
    assert 'sidecast_injections_total{outcome="injected"} 1.0' in metrics
    asked.running.injector.draining = True
    assert (await asked.get(f"{asked.running.url}/readyz"))[0] == 503
    assert (await asked.get(f"{asked.running.url}/livez"))[0] == 200
    async with asked.session.post(
        f"{asked.running.url}/mutate", data=json.dumps(review(pod("plain"))).encode()
    ) as answer:
        assert (answer.status, answer.headers["Connection"]) == (200, "close")


async def serial(asked: Asked, context: ssl.SSLContext) -> object:
    host, port = asked.running.url.removeprefix("https://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    try:
        return writer.get_extra_info("peercert")["serialNumber"]
    finally:
        writer.transport.abort()


async def test_a_new_certificate_counts_for_new_connections(asked: Asked, files: Files) -> None:
    await asked.mutate(pod("plain"))
    first = await serial(asked, files.context())
    files.renew()
    async with asyncio.timeout(TIMEOUT_S):
        while await serial(asked, files.context()) == first:
            await asyncio.sleep(0.05)
    await asked.mutate(pod("plain"))


async def test_a_new_template_counts_and_a_broken_one_does_not(asked: Asked) -> None:
    def image(answer: dict[str, Any]) -> str:
        return str(patched_by(pod("plain"), answer)["spec"]["initContainers"][0]["image"])

    asked.template.write_text(json.dumps(TEMPLATE).replace("sidecast:0.1.0", "sidecast:0.2.0"))
    async with asyncio.timeout(TIMEOUT_S):
        while image(await asked.mutate(pod("plain"))) != "sidecast:0.2.0":
            await asyncio.sleep(0.05)
    with structlog.testing.capture_logs() as lines:
        asked.template.write_text("{")
        async with asyncio.timeout(TIMEOUT_S):
            while not any(line["event"] == "file_unusable" for line in lines):
                assert image(await asked.mutate(pod("plain"))) == "sidecast:0.2.0"
                await asyncio.sleep(0.05)


async def test_an_unusable_template_stops_the_start(files: Files) -> None:
    with pytest.raises(UnusableFile, match=r"template\.json"):
        async with asked_at(files, "{}"):
            pass


# --- the command


def test_without_tls_there_is_no_injector(tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps(TEMPLATE))
    result = CliRunner().invoke(main, ["injector", "--template", str(template)], env={})
    assert result.exit_code == 2
    assert "server.tls_certificate" in result.stderr
    assert CliRunner().invoke(main, ["injector"]).exit_code == 2


def test_the_command_serves_and_goes_away_in_good_order(files: Files) -> None:
    template = files.folder / "template.json"
    template.write_text(json.dumps(TEMPLATE))
    environ = settings_of(files, SIDECAST_SERVER_HOST="0.0.0.0", SIDECAST_STREAM_DRAIN_S="0.2")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("sidecast")), "injector", "--template", str(template)],
        env={**os.environ, **environ, "SIDECAST_SERVER_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = json.loads(process.stderr.readline())
        assert said["event"] == "listening"
        assert said["url"].startswith("https://0.0.0.0:")
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert [json.loads(line)["event"] for line in rest.splitlines()] == ["draining", "stopped"]
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
