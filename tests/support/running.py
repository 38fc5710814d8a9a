"""Clusters of real processes for tests, through the same code as `tessera up`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from admin.loading import load
from admin.local_cluster import LocalCluster
from admin.serving_client import wait_until_available
from placement.connect import EtcdSettings, open_etcd
from support.small_model import MODEL
from tessera.repository import Repository


class ClusterFactory(Protocol):
    """See the fixture `start_cluster`."""

    def __call__(self, **settings: Any) -> LocalCluster: ...


@contextlib.contextmanager
def run_cluster(
    directory: Path,
    repository: Path,
    *,
    shards: int = 3,
    replicas: int = 1,
    versions: Sequence[int] = (1, 2),
    labels: Mapping[str, int] | None = None,
    make: Callable[..., LocalCluster] = LocalCluster,
    **settings: Any,
) -> Iterator[LocalCluster]:
    """Start etcd, servers and a router, load `versions` of the small model, end everything."""
    cluster = make(
        repository=repository,
        directory=directory,
        shards=shards,
        router_listen="127.0.0.1:0",
        router_arguments=("--pollers=1", "--drain-timeout-s=5", *settings.pop("router_arguments", ())),
        server_arguments=("--pollers=1", "--drain-timeout-s=5", *settings.pop("server_arguments", ())),
        **settings,
    )
    try:
        cluster.start_control_plane()
        cluster.start_servers()
        cluster.start_router()
        asyncio.run(_load(cluster, versions, replicas, labels))
        wait_until_available(cluster.router_address, {MODEL: versions}, timeout_s=30)
        yield cluster
    finally:
        cluster.stop()


async def _load(
    cluster: LocalCluster, versions: Sequence[int], replicas: int, labels: Mapping[str, int] | None
) -> None:
    store = open_etcd(EtcdSettings(tuple(cluster.etcd_endpoint.split(","))))
    try:
        await load(
            store,
            cluster.cluster,
            Repository(cluster.repository),
            MODEL,
            versions,
            replicas=replicas,
            timeout_s=60,
            labels=labels,
            min_servers=cluster.shards,
        )
    finally:
        await store.close()
