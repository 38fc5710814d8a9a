"""The settings of the router process."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.errors import SettingsError
from tessera.process_settings import ProcessSettings
from tessera.settings import setting


@dataclass(frozen=True, kw_only=True)
class RouterSettings(ProcessSettings):
    """What a router can be told."""

    listen: str = setting("where clients reach this router: host:port or unix:path", "0.0.0.0:8500")
    router_id: str = setting("name of this router in the cluster; empty means host name and port", "")
    repository: str = setting("directory with packages and blobs; needed with --etcd", "")
    saved_model: tuple[str, ...] = setting(
        "serve a plain SavedModel without a control plane; DIR holds saved_model.pb, or numbered versions of which the "
        "largest is served; may be repeated",
        (),
        metavar="NAME=DIR",
    )
    state_dir: str = setting(
        "directory that keeps the last placement, so that the router starts without etcd; empty means it does not", ""
    )
    retry_delay_s: float = setting(
        "how long a shard server may be silent before its replica is asked too, seconds", 0.05, minimum=0.001
    )
    retry_budget_tokens: int = setting(
        "retries and second requests allowed in a burst; every ten answers earn one more", 1024, minimum=1
    )
    busy_poll_us: int = setting(
        "how long a poller that awaits shard servers looks for their answers before it sleeps, microseconds; 200 takes "
        "some tens of microseconds off a request on an idle router and costs CPU time that would have been idle",
        0,
        minimum=0,
    )
    shard_tls_ca: str = setting("file with the CA certificates for shard servers; turns TLS to them on", "")
    shard_tls_cert: str = setting("file with this router's client certificate for shard servers", "")
    shard_tls_key: str = setting("file with the private key of --shard-tls-cert", "")
    intra_op_threads: int = setting("threads that one large operation may use; 0 means one per core", 0, minimum=0)
    onednn: bool = setting("use oneDNN kernels: faster for large layers, slower for small ones", False)
    tensor_content: bool = setting("answer in tensor_content instead of the typed fields that most clients read", False)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: nothing to serve, a placement without a repository, or half of a certificate and key.
        """
        super().__post_init__()
        self.check_together("shard_tls_cert", "shard_tls_key")
        self.check_needs("shard_tls_cert", "shard_tls_ca")
        if not self.etcd and not self.saved_model:
            raise SettingsError("--etcd or --saved-model must be given: there is nothing to serve without either")
        if self.etcd and not self.repository:
            raise SettingsError("--repository must be given with --etcd")
