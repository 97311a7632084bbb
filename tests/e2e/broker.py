"""A broker as a process of its own: started, killed, started again on the same ports, asked for its metrics.

Must not know what it serves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from e2e.ports import fixed_ports
from prometheus_client.parser import text_string_to_metric_families

READY_S_MAX = 20.0
STOP_S_MAX = 10.0
_POLL_S = 0.02


class Broker:
    """One `sidecast serve`; a context manager that starts and stops it.

    Args:
        folder: where its log is written.
        nats_urls: where NATS is.
        settings: further settings by `section.key`.

    Attributes:
        host: of the public listener.
        port: of the public listener, the same over restarts.
        url: of the public listener.
        process: the running process, or None.
        kills: how often it was killed.
    """

    def __init__(
        self, folder: Path, nats_urls: list[str], settings: Mapping[str, object] | None = None
    ) -> None:
        self.host = "127.0.0.1"
        self.port, self._internal_port = fixed_ports(2)
        self.url = f"http://{self.host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.kills = 0
        self.log_path = folder / f"broker-{self.port}.log"
        effective = {
            "server.port": self.port,
            "server.internal_port": self._internal_port,
            "server.log_format": "json",
            "nats.url": ",".join(nats_urls),
            **(settings or {}),
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAST_")}
        self._environment = clean | {
            f"SIDECAST_{name.replace('.', '_').upper()}": str(value) for name, value in effective.items()
        }
        self._counted: dict[str, float] = {}

    def start(self) -> Self:
        """Start it and wait until it listens and has seen the stream."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecast_broker", "serve"],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        deadline = time.monotonic() + READY_S_MAX
        while not self._answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"the broker ended: {self.log_path.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the broker doesn't listen: {self.log_path.read_text()[-2000:]}")
            time.sleep(_POLL_S)
        return self

    def _answers(self) -> bool:
        try:
            return json.loads(self._get("/readyz"))["nats"]["epoch"] is not None
        except (urllib.error.URLError, OSError):
            return False

    def ready(self) -> bool:
        """Tell whether it says it is ready, as a load balancer asks."""
        try:
            return bool(json.loads(self._get("/readyz"))["status"] == "ok")
        except (urllib.error.URLError, OSError):
            return False

    def streams(self) -> list[dict[str, Any]]:
        """Give what it says of its streams."""
        found: list[dict[str, Any]] = json.loads(self._get("/streams"))["streams"]
        return found

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.host}:{self._internal_port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def kill9(self) -> None:
        """Kill it without warning; what it has counted is kept."""
        self._keep_counted()
        self._end(signal.SIGKILL)
        self.kills += 1

    def stop(self) -> None:
        """Stop it in good order; nothing happens where it doesn't run."""
        if self.process is not None:
            self._keep_counted()
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def metrics(self) -> dict[str, float]:
        """Give its metrics as they stand: `name` or `name{value}` (its labels' values) → value."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self._get("/metrics").decode()):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def counted(self, name: str) -> float:
        """Give a counter over all its lives, all label values together."""
        now = self.metrics() if self.process is not None else {}
        totals = [self._counted, now]
        return sum(value for total in totals for key, value in total.items() if key.partition("{")[0] == name)

    def _keep_counted(self) -> None:
        for name, value in self.metrics().items():
            self._counted[name] = self._counted.get(name, 0.0) + value

    def nats_server(self) -> str:
        """Give the `host:port` of the NATS server it connected to last, by its log."""
        connected = [line for line in self.log_lines() if line["event"] == "nats_connected"]
        return str(connected[-1]["server"]) if connected else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """Give what it has logged so far."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Self:
        return self if self.process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
