"""The settings of the shard server process."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.errors import SettingsError
from tessera.process_settings import ProcessSettings
from tessera.settings import ByteSize, format_bytes, setting

MIN_MEMORY_LIMIT_BYTES = 320 << 20
"""Below it, libraries fail to load or threads to start, in many obscure ways; measured on two cores."""


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
    repository: str = setting("directory with packages and blobs")
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
    populate: bool = setting("read blobs into memory when they are mapped, not when rows are first asked for", False)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: no control plane, no address that routers could use, or too little memory to start.
        """
        super().__post_init__()
        if not self.etcd:
            raise SettingsError("--etcd must be given")
        if 0 < self.memory_limit_bytes < MIN_MEMORY_LIMIT_BYTES:
            raise SettingsError(
                f"--memory-limit-bytes: got {format_bytes(self.memory_limit_bytes)}, expected 0 or at least "
                f"{format_bytes(MIN_MEMORY_LIMIT_BYTES)}, which libraries and threads take before anything is held"
            )
        host = self.listen.rpartition(":")[0]
        if not self.advertise and host in ("", "0.0.0.0", "[::]"):
            raise SettingsError(f"--advertise must be given: --listen {self.listen} names no host for routers to reach")
