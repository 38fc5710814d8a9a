"""Processes and clients that speak TLS with certificates on both sides."""

from __future__ import annotations

from pathlib import Path

import grpc

from admin.loading import load
from admin.local_cluster import LocalCluster
from placement.connect import EtcdSettings, open_etcd
from support.etcd_process import Certificates
from support.small_model import MODEL
from tessera.repository import Repository


def tls_flags(ours: Certificates) -> tuple[str, ...]:
    """Show our certificate to callers, and demand one of them."""
    return (f"--tls-cert={ours.certificate}", f"--tls-key={ours.key}", f"--tls-client-ca={ours.ca}")


def etcd_flags(etcd: Certificates) -> tuple[str, ...]:
    """Trust etcd's CA and show its certificate."""
    return (f"--etcd-ca={etcd.ca}", f"--etcd-cert={etcd.certificate}", f"--etcd-key={etcd.key}")


def shard_flags(ca: Path, pair: Certificates) -> tuple[str, ...]:
    """Trust `ca` of shard servers and show them the certificate of `pair`."""
    return (f"--shard-tls-ca={ca}", f"--shard-tls-cert={pair.certificate}", f"--shard-tls-key={pair.key}")


def client(ca: Certificates, pair: Certificates | None) -> grpc.ChannelCredentials:
    """Return what a client has that trusts `ca` and shows the certificate of `pair`."""
    files = (pair.key, pair.certificate) if pair is not None else ()
    return grpc.ssl_channel_credentials(ca.ca.read_bytes(), *(file.read_bytes() for file in files))


async def load_model(cluster: LocalCluster, etcd: Certificates, version: int) -> None:
    """Give the small model its placement."""
    files = [str(path) for path in (etcd.ca, etcd.certificate, etcd.key)]
    store = open_etcd(EtcdSettings((cluster.etcd_endpoint,), *files))
    try:
        repository = Repository(cluster.repository)
        await load(
            store, cluster.cluster, repository, MODEL, [version], replicas=1, timeout_s=60, min_servers=cluster.shards
        )
    finally:
        await store.close()
