"""Runs `tensorflow_model_server` as a process of its own, and asks it over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin.processes import bound_to_parent

COMMAND = (sys.executable, "-m", "router.tfs.main")
READY_TIMEOUT_S = 60.0


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class ModelServer:
    """A running server.

    Attributes:
        port: of gRPC; 0 when it has only a socket.
        rest_port: 0 when REST is off.
    """

    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    rest_port: int

    @property
    def address(self) -> str:
        """Where gRPC is."""
        return f"127.0.0.1:{self.port}"

    @property
    def stdout(self) -> str:
        """All that it has written there."""
        return (self.directory / "stdout").read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """All that it has written there."""
        return (self.directory / "stderr").read_text("utf-8", "replace")

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the ready file and return what it says."""
        path = self.directory / "ready"
        wait_for(path.exists, timeout_s, lambda: self.process.poll() is None, lambda: self.stdout + self.stderr)
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def http(
        self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = 20.0
    ) -> tuple[int, str, dict[str, str]]:
        """Return (status, body, headers in lower case); `body` is text or bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=timeout_s)
        try:
            content = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
            connection.request(verb, path, content, dict(headers or {}))
            response = connection.getresponse()
            answer = response.read().decode("utf-8", "replace")
            return response.status, answer, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 20.0) -> int:
        """Ask it to end, and return its exit code; kill it after `timeout_s`."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def model_server(
    directory: Path,
    *arguments: str,
    rest: bool = True,
    grpc_port: bool = True,
    wait: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Iterator[ModelServer]:
    """Start a server with its output in `directory`, wait until it is ready if `wait`, and end it."""
    directory.mkdir(parents=True, exist_ok=True)
    port, rest_port = free_port() if grpc_port else 0, free_port() if rest else 0
    command = [
        *COMMAND,
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--ready_file={directory / 'ready'}",
        "--drain_timeout_s=5",
        "--pollers=1",
        *arguments,
    ]
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        process = subprocess.Popen(
            bound_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environ or {})},
        )
    server = ModelServer(process, directory, port, rest_port)
    try:
        if wait:
            server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def run_to_end(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def wait_for(
    ready: Callable[[], bool],
    timeout_s: float,
    alive: Callable[[], bool] = lambda: True,
    tell: Callable[[], str] = lambda: "",
    interval_s: float = 0.02,
) -> None:
    """Poll `ready` until it is true; fail with what `tell` says when it takes too long or `alive` is false."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert alive(), f"ended: {tell()}"
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {tell()}"
        time.sleep(interval_s)
