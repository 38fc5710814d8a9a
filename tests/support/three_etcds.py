"""A cluster of real processes on three members of etcd, each of which the router reaches through a proxy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from admin.local_cluster import START_TIMEOUT_S, _free_ports, _is_healthy
from admin.processes import Child, wait_until
from support.fault_proxy import FaultProxy
from support.proxied_cluster import ProxiedCluster

MEMBERS = ("etcd-0", "etcd-1", "etcd-2")


@dataclass
class ThreeEtcds(ProxiedCluster):
    """As `LocalCluster`; the proxies are named after the members."""

    _commands: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the proxies."""
        self.proxied = MEMBERS
        super().__post_init__()

    def start_control_plane(self) -> None:
        """Start the members and wait until they have a leader."""
        etcd = shutil.which("etcd")
        assert etcd, "etcd is not installed: apt-get install etcd-server"
        ports = _free_ports(2 * len(MEMBERS))
        clients = {name: f"127.0.0.1:{port}" for name, port in zip(MEMBERS, ports[:3], strict=True)}
        peers = {name: f"http://127.0.0.1:{port}" for name, port in zip(MEMBERS, ports[3:], strict=True)}
        for name in MEMBERS:
            url = f"http://{clients[name]}"
            self._commands[name] = [
                etcd,
                f"--name={name}",
                f"--data-dir={self.directory / name}",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                f"--listen-peer-urls={peers[name]}",
                f"--initial-advertise-peer-urls={peers[name]}",
                f"--initial-cluster={','.join(f'{other}={peers[other]}' for other in MEMBERS)}",
            ]
            self.proxies[name].target = clients[name]
        self.etcd_endpoint = ",".join(clients.values())
        self.etcd_of["router"] = ",".join(proxy.address for proxy in self.proxies.values())
        started = [self.start_member(name) for name in MEMBERS]
        wait_until("etcd answers", lambda: all(map(_is_healthy, clients.values())), started, START_TIMEOUT_S)

    def start_member(self, name: str) -> Child:
        """Start a member, for the first time or again."""
        return self.children.start(name, self._commands[name])

    def followed(self) -> list[FaultProxy]:
        """Return the proxies through which the router is connected."""
        return [self.proxies[name] for name in MEMBERS if self.proxies[name].open_connections]
