"""A cluster on this machine, of real processes: etcd, shard servers, a router. What `tessera up` runs."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from admin.processes import Child, ChildGroup, fast_allocator, wait_until
from tessera.errors import FailedPreconditionError

START_TIMEOUT_S = 60.0


@dataclass
class LocalCluster:
    """Starts and ends the processes; loading models is the caller's.

    Args:
        repository: directory with packages and blobs.
        directory: private to this cluster; gets logs, etcd's data and the router's state.
        shards: number of shard servers.
        cluster: name of the cluster in etcd.
        router_listen: host:port of the router; port 0 takes a free one.
        server_memory_bytes: RLIMIT_AS of each shard server; 0: none.
        router_cpus, server_cpus, etcd_cpus: cores that the processes may use; empty: all.
        router_arguments, server_arguments: further flags.
        server_blob_dirs: give each shard server a directory for its blobs, below `directory`.
        server_repository: what shard servers get as --repository; empty: `repository`.
    """

    repository: Path
    directory: Path
    shards: int
    cluster: str = "default"
    router_listen: str = "127.0.0.1:8500"
    server_memory_bytes: int = 0
    router_cpus: frozenset[int] = frozenset()
    server_cpus: frozenset[int] = frozenset()
    etcd_cpus: frozenset[int] = frozenset()
    router_arguments: tuple[str, ...] = ()
    server_arguments: tuple[str, ...] = ()
    server_blob_dirs: bool = False
    server_repository: str = ""
    children: ChildGroup = field(init=False)
    etcd_endpoint: str = field(init=False, default="")
    router_address: str = field(init=False, default="")
    metrics_address: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Prepare the directory of the logs."""
        self.children = ChildGroup(self.directory / "logs")

    def start_control_plane(self) -> None:
        """Start etcd and wait until it answers.

        Raises:
            FailedPreconditionError: there is no etcd on this machine.
            UnavailableError, DeadlineExceededError: it did not start; with its log.
        """
        etcd = shutil.which("etcd")
        if etcd is None:
            raise FailedPreconditionError(
                "etcd: not found on PATH; install it (Debian: apt-get install etcd-server) or use --in-process"
            )
        client_port, peer_port = _free_ports(2)
        self.etcd_endpoint = f"127.0.0.1:{client_port}"
        client_url, peer_url = f"http://{self.etcd_endpoint}", f"http://127.0.0.1:{peer_port}"
        child = self.children.start(
            "etcd",
            [
                etcd,
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={client_url}",
                f"--advertise-client-urls={client_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
            ],
            cpus=self.etcd_cpus,
        )
        wait_until("etcd answers", lambda: _is_healthy(self.etcd_endpoint), (child,), START_TIMEOUT_S)

    def start_servers(self) -> None:
        """Start the shard servers and wait until each has registered."""
        children = [self.start_server(f"server-{i}") for i in range(self.shards)]
        wait_until(
            "shard servers are ready",
            lambda: all(self._ready_file(child.name).exists() for child in children),
            children,
            START_TIMEOUT_S,
        )

    def start_server(self, server_id: str) -> Child:
        """Start one shard server; does not wait for it."""
        command = ["shard_server", f"--server-id={server_id}", "--listen=127.0.0.1:0", *self.server_arguments]
        if self.server_memory_bytes:
            command.append(f"--memory-limit-bytes={self.server_memory_bytes}")
        if self.server_blob_dirs:
            command.append(f"--blob-dir={self.blob_dir(server_id)}")
        return self._start(server_id, command, self.server_cpus, self.server_repository)

    def blob_dir(self, server_id: str) -> Path:
        """Return the directory for the blobs of one server."""
        return self.directory / f"{server_id}.blobs"

    def start_router(self) -> None:
        """Start the router and wait until it listens."""
        self.router_address, self.metrics_address = self._start_router("router", self.directory)

    def add_router(self, name: str) -> str:
        """Start a further router beside `router`, wait until it listens, and return its address."""
        state_dir = self.directory / f"{name}.state"
        state_dir.mkdir(exist_ok=True)
        return self._start_router(name, state_dir)[0]

    def _start_router(self, name: str, state_dir: Path) -> tuple[str, str]:
        """Start a router; return its address and that of its metrics."""
        command = ["router", f"--listen={self.router_listen}", f"--state-dir={state_dir}", *self.router_arguments]
        child = self._start(name, command, self.router_cpus)
        ready_file = self._ready_file(name)
        wait_until("the router listens", ready_file.exists, (child,), START_TIMEOUT_S)
        ready = json.loads(ready_file.read_text("utf-8"))
        return ready["address"], ready["metrics"]

    def _start(self, name: str, command: Sequence[str], cpus: frozenset[int], repository: str = "") -> Child:
        ready_file = self._ready_file(name)
        ready_file.unlink(missing_ok=True)
        common = [
            f"--cluster={self.cluster}",
            f"--etcd={self.etcd_endpoint}",
            f"--repository={repository or self.repository}",
            f"--ready-file={ready_file}",
        ]
        return self.children.start(name, [sys.executable, "-m", *command, *common], environ=fast_allocator(), cpus=cpus)

    def _ready_file(self, name: str) -> Path:
        return self.directory / f"{name}.ready"

    def describe(self) -> dict[str, Any]:
        """Return the addresses and process ids, for the ready file and `tessera status`."""
        pids = {child.name: child.process.pid for child in self.children.children}
        servers = {name: pid for name, pid in pids.items() if name.startswith("server-")}
        return {
            "router": self.router_address,
            "metrics": self.metrics_address,
            "etcd": self.etcd_endpoint,
            "cluster": self.cluster,
            "logs": str(self.children.log_dir),
            "pids": {"router": pids.get("router"), "etcd": pids.get("etcd"), "servers": servers},
        }

    def ended(self) -> list[Child]:
        """Return the processes that have ended by themselves."""
        return [child for child in self.children.children if child.process.poll() is not None]

    def stop(self) -> None:
        """End every process: router, servers, etcd, in this order."""
        self.children.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _is_healthy(endpoint: str) -> bool:
    """Whether etcd at `endpoint` says that it has a leader and can write."""
    try:
        with urllib.request.urlopen(f"http://{endpoint}/health", timeout=1) as response:
            return bool(json.load(response).get("health") == "true")
    except (OSError, ValueError):
        return False
