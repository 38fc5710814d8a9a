"""A cluster whose shard servers have directories of their own, the commands that change it, and a load beside them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from admin.local_cluster import LocalCluster
from admin.processes import wait_until
from bench import large_package, models, servers
from bench.context import Context
from bench.load import Target
from bench.load_interference import constant_rate
from tessera.errors import InternalError

RATE_PER_CONNECTION = 125
"""Requests a second of each of four connections: far below what the router can do."""

_RUN_S = 2.0
_COMMAND_TIMEOUT_S = 600.0


@dataclass
class Cluster:
    """See `running`."""

    local: LocalCluster
    table_bytes: int

    def tessera(self, *command: str) -> dict[str, float]:
        """Run `tessera` and return when (seconds since 1970) it said that the operation had come to each state."""
        local = self.local
        flags = [f"--repository={local.repository}", f"--etcd={local.etcd_endpoint}", f"--cluster={local.cluster}"]
        whole = [sys.executable, "-m", "admin", *command, *flags]
        states: dict[str, float] = {}
        said = []
        with subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            timer = threading.Timer(_COMMAND_TIMEOUT_S, process.kill)
            timer.start()
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                state = line.removeprefix("tessera: ").partition(":")[0]
                if state.isupper():
                    states.setdefault(state, time.time())
            timer.cancel()
        if process.returncode != 0:
            raise InternalError(f"{' '.join(command)}: exit code {process.returncode}: {''.join(said)[-1000:]}")
        return states

    def add_server(self, name: str) -> None:
        """Start one more server and wait until it is registered."""
        child = self.local.start_server(name)
        ready_file = self.local.directory / f"{name}.ready"
        wait_until(f"{name} is ready", ready_file.exists, (child,), 60.0)

    def blobs(self, name: str) -> set[Path]:
        """Return the whole blobs in the directory of a server."""
        return {file for file in (self.local.blob_dir(name) / "blobs").rglob("*") if file.is_file()}

    def target(self) -> Target:
        """Return what load can be sent to; its answer was right."""
        request = large_package.request(self.table_bytes)
        pids = tuple(child.process.pid for child in self.local.children.children if child.name != "etcd")
        return servers.target(
            servers.Started(self.local.router_address, pids, 0.0),
            servers.PREDICT,
            request.wire,
            partial(models.check_response, expected=request.expected),
        )

    def resident_bytes(self) -> int:
        """Return what all shard servers have in memory, mapped blobs included."""
        children = [child for child in self.local.children.children if child.name.startswith("server-")]
        status = [Path(f"/proc/{child.process.pid}/status").read_text() for child in children]
        return sum(int(text.split("VmRSS:")[1].split()[0]) << 10 for text in status)


@contextlib.contextmanager
def running(context: Context, shards: int, table_bytes: int, *server_arguments: str) -> Iterator[Cluster]:
    """Give a cluster with version 1 of the large table; everything is gone when the `with` block ends."""
    repository = large_package.make(context.work_dir, table_bytes)
    with tempfile.TemporaryDirectory(dir=context.work_dir, prefix="cluster-") as folder:
        local = LocalCluster(
            repository=repository,
            directory=Path(folder),
            shards=shards,
            cluster="bench",
            router_listen="127.0.0.1:0",
            router_arguments=("--pollers=1",),
            server_arguments=("--pollers=1", *server_arguments),
            server_blob_dirs=True,
        )
        try:
            local.start_control_plane()
            local.start_servers()
            local.start_router()
            cluster = Cluster(local, table_bytes)
            cluster.tessera("model", "load", f"{large_package.MODEL}:1", "--replicas=1")
            deadline_s = time.monotonic() + 60.0
            while True:
                try:
                    cluster.target()
                    break
                except InternalError:
                    if time.monotonic() > deadline_s:
                        raise
            yield cluster
        finally:
            local.stop()


@dataclass
class Load:
    """Sends at a constant rate from `start` to `stop`; any answer that is not a good one is raised by `stop`.

    Attributes:
        log: (start in µs since 1970, latency in µs) of every request.
    """

    target: Target
    log: list[np.ndarray] = field(default_factory=list)
    _error: list[InternalError] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and return when there is load."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        time.sleep(_RUN_S / 2)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                # A run that is disturbed may be late; that shows in the latencies.
                self.log.append(constant_rate(self.target, _RUN_S, RATE_PER_CONNECTION, least=0.5))
        except InternalError as error:
            self._error.append(error)

    def stop(self) -> None:
        """End it. Raises InternalError if a request failed."""
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        if self._error:
            raise self._error[0]

    def p99_us(self, begin_s: float, end_s: float) -> float:
        """Return the 99th percentile of the requests that began in a time (seconds since 1970)."""
        log = np.concatenate(self.log)
        within = (log[:, 0] >= begin_s * 1e6) & (log[:, 0] < end_s * 1e6)
        if not within.any():
            raise InternalError(f"load: no request began within the {end_s - begin_s:.2f} s that are looked at")
        return float(np.percentile(log[within, 1], 99))
