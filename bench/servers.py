"""Starts what is measured, each pinned to the servers' core, and checks with a real client that it answers right."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from admin.processes import Child, ChildGroup, fast_allocator, wait_until
from bench.load import SERVER_CPU, Target
from tessera.errors import InternalError

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_START_TIMEOUT_S = 300.0
_CALL_TIMEOUT_S = 30.0
_CPUS = frozenset({SERVER_CPU})


@dataclass(frozen=True)
class Started:
    """A server that accepts requests: where, the processes that answer, and the seconds from start to ready."""

    address: str
    pids: tuple[int, ...]
    start_s: float


@dataclass
class Servers:
    """Starts servers; `running` ends them all."""

    group: ChildGroup
    _number: int = field(default=0)

    def echo(self, binary: Path) -> Started:
        """Start the bare C++ gRPC echo; it prints its port when it listens."""
        child, start = self._start("echo", [str(binary), "--port", "0", "--method", PREDICT])
        wait_until("the echo server listens", lambda: _port(child) is not None, (child,), _START_TIMEOUT_S)
        return Started(f"127.0.0.1:{_port(child)}", (child.process.pid,), time.monotonic() - start)

    def router(self, model_name: str, saved_model: Path, *flags: str) -> Started:
        """Start a router alone that serves a plain SavedModel; `flags` are further ones."""
        ready_file = self._ready_file()
        child, start = self._start(
            f"router-{model_name}",
            [
                *(sys.executable, "-m", "router", f"--saved-model={model_name}={saved_model}"),
                *("--listen=127.0.0.1:0", "--pollers=1", f"--ready-file={ready_file}"),
                *flags,
            ],
        )
        ready, start_s = self._wait_ready(child, ready_file, start)
        return Started(ready["address"], (child.process.pid,), start_s)

    def rest(self, model_name: str, saved_model: Path) -> Started:
        """Start a router alone that serves a plain SavedModel; the address is that of its REST port."""
        ready_file = self._ready_file()
        command = [
            *(sys.executable, "-m", "router", f"--saved-model={model_name}={saved_model}", "--listen=127.0.0.1:0"),
            *("--rest-listen=127.0.0.1:0", "--pollers=1", f"--ready-file={ready_file}"),
        ]
        child, start = self._start(f"rest-{model_name}", command)
        ready, start_s = self._wait_ready(child, ready_file, start)
        return Started(ready["rest"], (child.process.pid,), start_s)

    def fastapi(self, model_name: str, saved_model: Path) -> Started:
        """Start bench.fastapi_server."""
        ready_file = self._ready_file()
        command = [sys.executable, "-m", "bench.fastapi_server", model_name, str(saved_model), str(ready_file)]
        child, start = self._start(f"fastapi-{model_name}", command)
        ready, start_s = self._wait_ready(child, ready_file, start)
        return Started(ready["rest"], (child.process.pid,), start_s)

    def cluster(self, repository: Path, shards: int, *, spread: bool = False, busy_poll_us: int = 0) -> Started:
        """Start a router, `shards` shard servers and etcd with `tessera up`, all on the same core.

        With `spread` only the router stays there, and the others may use every core.
        """
        ready_file = self._ready_file()
        name = f"bench-{shards}-{'spread' if spread else 'one-core'}-{busy_poll_us}"
        every_core = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        child, start = self._start(
            f"up-{name}",
            [
                *(sys.executable, "-m", "admin", "up", f"--repository={repository}", f"--shards={shards}"),
                f"--busy-poll-us={busy_poll_us}",
                *(f"--cluster={name}", "--port=0", "--pollers=1", f"--ready-file={ready_file}"),
                *((f"--server-cpus={every_core}", f"--etcd-cpus={every_core}") if spread else ()),
            ],
        )
        ready, start_s = self._wait_ready(child, ready_file, start)
        return Started(ready["router"], (ready["pids"]["router"], *ready["pids"]["servers"].values()), start_s)

    def _start(self, name: str, command: list[str]) -> tuple[Child, float]:
        self._number += 1
        start = time.monotonic()
        child = self.group.start(f"{self._number:02d}-{name}", command, environ=fast_allocator(), cpus=_CPUS)
        return child, start

    def _ready_file(self) -> Path:
        path = self.group.log_dir / f"{self._number + 1:02d}.ready"
        path.unlink(missing_ok=True)
        return path

    def _wait_ready(self, child: Child, ready_file: Path, start: float) -> tuple[dict[str, Any], float]:
        wait_until(f"{ready_file.name} appears", ready_file.exists, (child,), _START_TIMEOUT_S)
        return json.loads(ready_file.read_text("utf-8")), time.monotonic() - start


@contextlib.contextmanager
def running(log_dir: Path) -> Iterator[Servers]:
    """Give a place to start servers in; all of them are gone when the `with` block ends."""
    group = ChildGroup(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    try:
        yield Servers(group)
    finally:
        group.stop(timeout_s=60.0)


def target(started: Started, method: str, request: bytes, check: Callable[[bytes], str]) -> Target:
    """Return what load can be sent to, after one request whose answer `check` finds nothing wrong with."""
    response = call(started.address, method, request)
    wrong = check(response)
    if wrong:
        raise InternalError(f"{method} at {started.address}: {wrong}")
    return Target(started.address, method, request, len(response), started.pids)


def call(address: str, method: str, request: bytes) -> bytes:
    """Send one request with grpcio and return the answer.

    Raises:
        InternalError: the server answered with an error, or not within 30 s.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            send: Any = channel.unary_unary(method)  # without serializers it takes and gives bytes
            return bytes(send(request, timeout=_CALL_TIMEOUT_S, wait_for_ready=True))
        except grpc.RpcError as error:
            raise InternalError(f"{method} at {address}: {error.code().name}: {error.details()}") from error


def _port(child: Child) -> int | None:
    """Return the port that the echo server has printed, alone on the first line."""
    lines = child.log_path.read_text("utf-8", "replace").splitlines(keepends=True)
    return int(lines[0]) if lines and lines[0].endswith("\n") else None
