"""The settings of the router process."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from placement.peer_calls import PeerTls
from router.serving_settings import ServingSettings
from tessera.errors import SettingsError
from tessera.settings import setting


@dataclass(frozen=True, kw_only=True)
class RouterSettings(ServingSettings):
    """What a router can be told."""

    listen: str = setting("where clients reach this router: host:port or unix:path", "0.0.0.0:8500")
    advertise: str = setting(
        "address that is registered for `tessera status`; empty means --listen, with this machine's name where that "
        "names no host",
        "",
    )
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
    placement_peers: tuple[str, ...] = setting(
        "shard servers, host:port, to ask for the placement while etcd is not heard of, beside those that are known; "
        "lets a router start without etcd and without --state-dir",
        (),
        metavar="HOST:PORT",
    )
    retry_delay_s: float = setting(
        "how long a shard server may be silent before its replica is asked too, seconds", 0.05, minimum=0.001
    )
    retry_budget_tokens: int = setting(
        "retries and second requests allowed in a burst; every ten answers earn one more", 1024, minimum=1
    )
    max_in_flight_lookups_per_server: int = setting(
        "requests to one shard server at once; what further lookups ask of it shares the next one; 0 means no sharing",
        2,
        minimum=0,
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
    enable_batching: bool = setting(
        "batch the regions that a model's graph marks for it; false runs them request by request; graphs without "
        "regions are the same either way",
        True,
    )
    batching_policy_file: str = setting(
        "TOML file with the policy of each batched region; read again when it changes and on SIGHUP", ""
    )
    batching_parameters_file: str = setting(
        "TensorFlow Serving's batching parameters (text proto) instead of --batching-policy-file; read again likewise",
        "",
    )
    max_in_flight_batches: int = setting(
        "batches that a device runs at once; 0 means one or two, whichever is found to be faster", 0, minimum=0
    )
    inline_budget_micros: int = setting(
        "a batch that is expected to take longer runs on a thread of its own instead of that of the request that "
        "completes it, microseconds",
        5000,
        minimum=0,
    )
    tensor_content: bool = setting("answer in tensor_content instead of the typed fields that most clients read", False)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: nothing to serve, a placement without a repository, half of a certificate and key, or
                settings of batching that exclude each other.
        """
        super().__post_init__()
        self.check_together("shard_tls_cert", "shard_tls_key")
        self.check_needs("shard_tls_cert", "shard_tls_ca")
        if not (self.etcd or self.saved_model or self.model or self.model_config_file):
            raise SettingsError(
                "--etcd, --saved-model, --model or --model-config-file must be given: there is nothing to serve without"
            )
        self.check_needs("placement_peers", "etcd")
        if self.etcd and not self.repository:
            raise SettingsError("--repository must be given with --etcd")
        if self.batching_policy_file and self.batching_parameters_file:
            raise SettingsError("--batching-policy-file and --batching-parameters-file: expected only one of them")
        self.check_needs("batching_policy_file", "enable_batching")
        self.check_needs("batching_parameters_file", "enable_batching")
        self.check_metrics_port(self.listen)

    def shard_tls(self) -> PeerTls:
        """Return what calls of shard servers outside of the data path need.

        Raises:
            SettingsError: a file cannot be read.
        """
        return PeerTls(
            ca=self.read_file("shard_tls_ca"),
            cert=self.read_file("shard_tls_cert"),
            key=self.read_file("shard_tls_key"),
        )

    def advertised(self, address: str) -> str:
        """Return what is registered by a router that listens on `address`."""
        host, _, port = address.rpartition(":")
        if self.advertise or host not in ("", "0.0.0.0", "[::]"):
            return self.advertise or address
        return f"{socket.gethostname()}:{port}"  # "every address" means nothing elsewhere
