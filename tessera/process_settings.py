"""The settings that the router and the shard server share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tessera.certificates import Certificates
from tessera.errors import SettingsError
from tessera.settings import ByteSize, setting


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What every serving process needs: where it listens, its control plane, its logs."""

    cluster: str = setting("name of the cluster, part of every etcd key", "default")
    etcd: tuple[str, ...] = setting(
        "etcd endpoints, host:port; repeat the flag or separate by commas", (), metavar="HOST:PORT"
    )
    etcd_ca: str = setting("file with the CA certificates that etcd's certificate is checked against; turns TLS on", "")
    etcd_cert: str = setting("file with this process's client certificate for etcd", "")
    etcd_key: str = setting("file with the private key of --etcd-cert", "")
    pollers: int = setting("threads that serve requests; 0 means one per core", 0, minimum=0)
    max_message_bytes: ByteSize = setting(
        "largest message in either direction; larger ones are refused with RESOURCE_EXHAUSTED",
        ByteSize(256 << 20),
        minimum=1024,
    )
    max_in_flight: int = setting(
        "requests in progress at once; more are refused with RESOURCE_EXHAUSTED", 4096, minimum=1
    )
    default_deadline_s: float = setting("deadline of requests that come without one, seconds", 30.0, minimum=0.001)
    tls_cert: str = setting("file with the certificate chain that is shown to callers; turns TLS on", "")
    tls_key: str = setting("file with the private key of --tls-cert", "")
    tls_client_ca: str = setting("file with the CA certificates that callers must be signed by (mutual TLS)", "")
    tls_poll_s: float = setting(
        "time between two looks at certificate files, seconds; new ones are shown to whoever connects from then on; 0 "
        "means they are read once",
        10.0,
        minimum=0.0,
    )
    drain_timeout_s: float = setting(
        "on SIGTERM, how long requests in progress may take to end, seconds", 30.0, minimum=0.0
    )
    metrics_port: int | None = setting(
        "port for Prometheus and probes on the host of --listen: HTTP without TLS, /monitoring/prometheus/metrics and "
        "/metrics, /healthz, /readyz; 0 takes a free one; without it there is none",
        None,
        minimum=0,
    )
    ready_file: str = setting("file that is there (one line of JSON) while this process is ready to serve", "")
    log_format: str = setting("form of the log lines on stderr", "text", choices=("text", "json"))
    log_level: str = setting("least severity that is logged", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: half of a certificate and key, or one that would be ignored without saying so.
        """
        self.check_together("tls_cert", "tls_key")
        self.check_together("etcd_cert", "etcd_key")
        self.check_needs("tls_client_ca", "tls_cert")
        self.check_needs("etcd_cert", "etcd_ca")

    def check_needs(self, name: str, needed: str) -> None:
        """Raise SettingsError if the setting `name` is given without the setting `needed`."""
        if getattr(self, name) and not getattr(self, needed):
            raise SettingsError(f"{_flag(needed)} must be given with {_flag(name)}")

    def check_together(self, one: str, other: str) -> None:
        """Raise SettingsError if only one of the two settings is given."""
        self.check_needs(one, other)
        self.check_needs(other, one)

    def check_metrics_port(self, listen: str) -> None:
        """Raise SettingsError if --metrics-port is no port, or --listen has no host for it."""
        if self.metrics_port is not None and self.metrics_port >= 1 << 16:
            raise SettingsError(f"--metrics-port: got {self.metrics_port}, expected 0 to 65535")
        if self.metrics_port is not None and listen.startswith("unix:"):
            raise SettingsError(f"--metrics-port: needs the host of --listen, got --listen={listen}")

    def certificates(self) -> Certificates:
        """Return what the files of --tls-cert, --tls-key and --tls-client-ca hold now.

        Raises:
            SettingsError: one cannot be read; names its flag.
        """
        return Certificates(*(self.read_file(name) for name in ("tls_cert", "tls_key", "tls_client_ca")))

    def read_file(self, name: str) -> bytes:
        """Return the content of the file that the setting `name` points at; empty when the setting is.

        Raises:
            SettingsError: it cannot be read; names the flag and the file.
        """
        return read_file(getattr(self, name), _flag(name))

    def checked_file(self, name: str) -> str:
        """Return the path that the setting `name` holds, once the file could be read; empty when the setting is.

        Raises:
            SettingsError: it cannot be read; names the flag and the file.
        """
        self.read_file(name)
        return str(getattr(self, name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def read_file(path: str, flag: str) -> bytes:
    """Return the content of the file that `flag` names; empty when `path` is.

    Raises:
        SettingsError: it cannot be read; names the flag and the file.
    """
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{flag} {path}: {error.strerror}") from error


def host_of(listen: str) -> str:
    """Return the host of the address `listen`, without the brackets of IPv6; empty means every address."""
    return listen.rpartition(":")[0].strip("[]")


def with_port(listen: str, port: int) -> str:
    """Return the address `listen` with the port that was really bound; a Unix socket stays as it is."""
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
