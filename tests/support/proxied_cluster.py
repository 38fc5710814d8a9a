"""A cluster of real processes whose connections tests can break: to shard servers, and of each process to etcd."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import grpc

from admin.local_cluster import START_TIMEOUT_S, LocalCluster
from admin.processes import Child, wait_until
from protos import etcd_pb2 as pb
from support.fault_proxy import FaultProxy


@dataclass
class ProxiedCluster(LocalCluster):
    """As `LocalCluster`.

    Args:
        proxied: processes behind a proxy: shard servers are reached through it, the router reaches etcd through it.
        etcd_of: process → the etcd endpoints that it is given instead of `etcd_endpoint`.
        environ_of: process → variables of its environment.
    """

    proxied: Sequence[str] = ()
    etcd_of: dict[str, str] = field(default_factory=dict)
    environ_of: dict[str, dict[str, str]] = field(default_factory=dict)
    proxies: dict[str, FaultProxy] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        """Start the proxies."""
        super().__post_init__()
        # Unix sockets have short names only, and nobody else takes them as ports of the machine may be taken.
        self._sockets = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-")))
        self.proxies = {name: self._stack.enter_context(FaultProxy()) for name in self.proxied}

    def start_control_plane(self) -> None:
        """See `LocalCluster`."""
        super().start_control_plane()
        if "router" in self.proxies:
            self.proxies["router"].target = self.etcd_endpoint
            self.etcd_of["router"] = self.proxies["router"].address

    def start_server(self, server_id: str) -> Child:
        """See `LocalCluster`."""
        proxy = self.proxies.get(server_id)
        if proxy is None:
            return super().start_server(server_id)
        proxy.target = f"unix:{self._sockets / server_id}"
        before = self.server_arguments
        self.server_arguments = (*before, f"--listen={proxy.target}", f"--advertise={proxy.address}")
        try:
            return super().start_server(server_id)
        finally:
            self.server_arguments = before

    def start_router_beside(self, name: str) -> str:
        """Start another router with a state directory of its own; return its address once it listens."""
        state_dir, ready_file = self.directory / f"{name}.state", self._ready_file(name)
        state_dir.mkdir(exist_ok=True)
        command = ["router", "--listen=127.0.0.1:0", f"--state-dir={state_dir}", *self.router_arguments]
        started = self._start(name, command, self.router_cpus)
        wait_until("the router listens", ready_file.exists, (started,), START_TIMEOUT_S)
        return str(json.loads(ready_file.read_text("utf-8"))["address"])

    def _start(self, name: str, command: Sequence[str], cpus: frozenset[int], repository: str = "") -> Child:
        before = self.etcd_endpoint
        self.etcd_endpoint = self.etcd_of.get(name, before)
        try:
            with patch.dict(os.environ, self.environ_of.get(name, {})):
                return super()._start(name, command, cpus, repository)
        finally:
            self.etcd_endpoint = before

    def stop(self) -> None:
        """See `LocalCluster`."""
        for proxy in self.proxies.values():
            proxy.heal()
        super().stop()
        self._stack.close()


def metric(cluster: LocalCluster, name: str) -> float:
    """Return the sum of a metric of the router (which has --metrics-port) over its labels."""
    with urllib.request.urlopen(f"http://{cluster.metrics_address}/metrics", timeout=30) as response:
        text = response.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def child(cluster: LocalCluster, name: str) -> Child:
    """Return the process of that name that was started last."""
    return [child for child in cluster.children.children if child.name == name][-1]


def signal_to(cluster: LocalCluster, name: str, number: int) -> None:
    """Send a signal to a process; wait for its end if it cannot but end."""
    process = child(cluster, name).process
    os.kill(process.pid, number)
    if number == signal.SIGKILL:
        process.wait(30)


def follows_etcd(cluster: LocalCluster) -> bool:
    """Whether the router's last exchange with etcd went well."""
    return metric(cluster, "tessera_store_connected") == 1


def compact(cluster: LocalCluster) -> None:
    """Write something that concerns nobody, and let etcd forget its history up to there."""
    with grpc.insecure_channel(cluster.etcd_endpoint) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Txn", pb.TxnRequest.SerializeToString, pb.TxnResponse.FromString)
        operation = pb.RequestOp(request_put=pb.PutRequest(key=b"elsewhere", value=b"anything"))
        revision = put(pb.TxnRequest(success=[operation]), timeout=30).header.revision
        forget = channel.unary_unary(
            "/etcdserverpb.KV/Compact", pb.CompactionRequest.SerializeToString, pb.CompactionResponse.FromString
        )
        forget(pb.CompactionRequest(revision=revision, physical=True), timeout=30)
