"""The settings of the shard server process."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.errors import SettingsError
from tessera.process_settings import ProcessSettings
from tessera.settings import ByteSize, format_bytes, setting

MIN_MEMORY_LIMIT_BYTES = 320 << 20
"""Below it, libraries fail to load or threads to start, in many obscure ways; measured on two cores."""

MIN_STAGING_BYTES_PER_S = 1 << 20
"""So that a chunk never waits longer than a second."""


@dataclass(frozen=True, kw_only=True)
class ShardServerSettings(ProcessSettings):
    """What a shard server can be told."""

    server_id: str = setting("name of this server in the cluster, the same after every restart")
    listen: str = setting("where routers reach this server: host:port or unix:path", "0.0.0.0:8600")
    advertise: str = setting(
        "address that is registered for routers; empty means --listen, which then must name a host", ""
    )
    domain: str = setting(
        "failure domain (zone, rack, host); replicas go to distinct ones; empty means --server-id",
        "",
    )
    repository: str = setting(
        "directory with packages and blobs; with --blob-dir also the URL of an object store, as fsspec knows them "
        "(s3://bucket/models)"
    )
    blob_dir: str = setting(
        "directory of this server alone for the blobs that it holds: they are fetched from other servers or the "
        "repository, and stay over restarts; empty means that blobs are mapped where the repository has them",
        "",
    )
    blob_dir_bytes: ByteSize = setting(
        "what --blob-dir may hold; blobs that are no longer needed stay until their room is; 0 means what its file "
        "system has",
        ByteSize(0),
        minimum=0,
    )
    staging_bytes_per_s: ByteSize = setting(
        "how fast blobs may be fetched, and how fast they are given to other servers, at least 1MiB; 0 means no limit",
        ByteSize(0),
        minimum=0,
    )
    staging_parallel: int = setting("blobs that are fetched at once; each takes 1 MiB of memory", 4, minimum=1)
    peer_tls_ca: str = setting("file with the CA certificates for other shard servers; turns TLS to them on", "")
    peer_tls_cert: str = setting("file with this server's client certificate for other shard servers", "")
    peer_tls_key: str = setting("file with the private key of --peer-tls-cert", "")
    capacity_bytes: ByteSize = setting(
        "bytes of blobs that the planner may place here; 0 means three quarters of the memory limit, or of the "
        "machine's memory",
        ByteSize(0),
        minimum=0,
    )
    memory_limit_bytes: ByteSize = setting(
        "address space that the process may use at most (RLIMIT_AS), at least 320MiB; 0 means no limit",
        ByteSize(0),
        minimum=0,
    )
    verify_blobs: str = setting(
        "what is checked before a blob serves: its whole content by SHA-256, or only its size",
        "content",
        choices=("content", "size"),
    )
    drain_notice_s: float = setting(
        "on SIGTERM, how long lookups are still answered while routers learn that they better ask another server, "
        "seconds; ends as soon as none comes any more; slots that only this server has are answered for "
        "--drain-timeout-s",
        2.0,
        minimum=0.0,
    )
    scrub_interval_s: float = setting(
        "time in which every blob that is held is read again and compared with its SHA-256, seconds; a damaged one is "
        "fetched anew with --blob-dir, and else no longer served; 0 means never",
        7 * 86400.0,
        minimum=0.0,
    )
    populate: bool = setting("read blobs into memory when they are mapped, not when rows are first asked for", False)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: no control plane, no address that routers could use, too little memory to start, or an
                object store without a place for what is fetched from it.
        """
        super().__post_init__()
        self.check_metrics_port(self.listen)
        if not self.etcd:
            raise SettingsError("--etcd must be given")
        if 0 < self.memory_limit_bytes < MIN_MEMORY_LIMIT_BYTES:
            raise SettingsError(
                f"--memory-limit-bytes: got {format_bytes(self.memory_limit_bytes)}, expected 0 or at least "
                f"{format_bytes(MIN_MEMORY_LIMIT_BYTES)}, which libraries and threads take before anything is held"
            )
        self.check_needs("blob_dir_bytes", "blob_dir")
        self.check_together("peer_tls_cert", "peer_tls_key")
        self.check_needs("peer_tls_cert", "peer_tls_ca")
        if "://" in self.repository and not self.blob_dir:
            raise SettingsError(f"--blob-dir must be given with --repository {self.repository}: only files are mapped")
        if 0 < self.staging_bytes_per_s < MIN_STAGING_BYTES_PER_S:
            raise SettingsError(
                f"--staging-bytes-per-s: got {format_bytes(self.staging_bytes_per_s)}, expected 0 or at least "
                f"{format_bytes(MIN_STAGING_BYTES_PER_S)}, which is what is sent at once"
            )
        host = self.listen.rpartition(":")[0]
        if not self.advertise and host in ("", "0.0.0.0", "[::]"):
            raise SettingsError(f"--advertise must be given: --listen {self.listen} names no host for routers to reach")
